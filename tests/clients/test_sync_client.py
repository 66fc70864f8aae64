import re
import shlex
import shutil
import subprocess
from concurrent import futures

import grpc
import grpc_testing
import pytest

from clients import AsyncRecallClient, DeadlineExceededError, InvalidRequestError, RecallClient, UnavailableError
from protos.recall.v1 import admin_pb2, recall_pb2
from tests.canned_recall import CannedRecall, running

RECALL_SERVICE = recall_pb2.DESCRIPTOR.services_by_name["RecallService"]
ADMIN_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
METHODS = [*RECALL_SERVICE.methods, *ADMIN_SERVICE.methods]


@pytest.fixture
def channel():
    return grpc_testing.channel([RECALL_SERVICE, ADMIN_SERVICE], grpc_testing.strict_real_time())


@pytest.fixture
def in_background():
    with futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit


def answer(channel, method, response, code=grpc.StatusCode.OK, details="", trailing_metadata=()):
    """Ends the next call of a method; its metadata and request."""
    metadata, request, rpc = channel.take_unary_unary(method)
    rpc.send_initial_metadata(())
    rpc.terminate(response, trailing_metadata, code, details)
    return dict(metadata), request


@pytest.mark.parametrize("client_class", [RecallClient, AsyncRecallClient])
def test_every_rpc_has_a_method(client_class):
    names = [re.sub(r"(?<=.)([A-Z])", r"_\1", method.name).lower() for method in METHODS]
    users = ["upsert_users", "find_similar_users", "delete_users", "log_feedback"]
    items = ["recall", "count_items", "get_server_info", "explain", "similar_items", "get_items"]
    assert names == [*items, *users, "drop_items", "reload"]
    assert [name for name in names if not callable(getattr(client_class, name, None))] == []


def test_a_ready_upsert_request_carries_its_own_kinds():
    with pytest.raises(ValueError, match="a ready request carries its own"):
        RecallClient(timeout_s=1).upsert_users(recall_pb2.UpsertUsersRequest(), events={"7": ["view"]})


@pytest.mark.parametrize(
    ("call", "request_sent", "response"),
    [
        (
            lambda client: client.count_items("year > 1990"),
            recall_pb2.CountItemsRequest(filter="year > 1990"),
            recall_pb2.CountItemsResponse(count=12),
        ),
        (
            lambda client: client.upsert_users({"7": [1, 2]}, append_item_ids={"8": [3]}),
            recall_pb2.UpsertUsersRequest(
                users=[
                    recall_pb2.UserUpdate(user_id="7", hist_item=[1, 2]),
                    recall_pb2.UserUpdate(user_id="8", append_item_ids=[3]),
                ]
            ),
            recall_pb2.UpsertUsersResponse(model_version="ab12"),
        ),
        (
            lambda client: client.upsert_users(recall_pb2.UpsertUsersRequest(users=[{"user_id": "7"}] * 2)),
            recall_pb2.UpsertUsersRequest(users=[{"user_id": "7"}] * 2),
            recall_pb2.UpsertUsersResponse(model_version="ab12"),
        ),
        (
            lambda client: client.find_similar_users(["7", [1, 2]], top_k=5),
            recall_pb2.FindSimilarUsersRequest(
                users=[recall_pb2.User(user_id="7"), recall_pb2.User(hist_item=[1, 2])], top_k=5
            ),
            recall_pb2.FindSimilarUsersResponse(model_version="ab12"),
        ),
        (
            lambda client: client.get_items([7, 8], return_attributes=["title"]),
            recall_pb2.GetItemsRequest(item_ids=[7, 8], return_attributes=["title"]),
            recall_pb2.GetItemsResponse(item_ids=[7, 8]),
        ),
        (
            lambda client: client.delete_users(["7"]),
            recall_pb2.DeleteUsersRequest(user_ids=["7"]),
            recall_pb2.DeleteUsersResponse(model_version="ab12"),
        ),
        (
            lambda client: client.log_feedback("buy", [5, 6], user_id="7", recall_id="ab-0", time_ms=1_700_000_000_000),
            recall_pb2.LogFeedbackRequest(
                kind="buy", item_ids=[5, 6], user_id="7", recall_id="ab-0", time_ms=1_700_000_000_000
            ),
            recall_pb2.LogFeedbackResponse(),
        ),
        (
            lambda client: client.get_server_info(),
            recall_pb2.GetServerInfoRequest(),
            recall_pb2.GetServerInfoResponse(model_version="ab12"),
        ),
        (
            lambda client: client.explain(
                [43, 23], top_k=5, filter="a > 1", exclude_item_ids=[9], exclude_history=True
            ),
            recall_pb2.ExplainRequest(
                user=recall_pb2.User(hist_item=[43, 23], exclude_item_ids=[9]),
                top_k=5,
                filter="a > 1",
                exclude_history=True,
                merge_strategy=recall_pb2.MERGE_STRATEGY_BEST_SCORE,
            ),
            recall_pb2.ExplainResponse(model_version="ab12"),
        ),
        (
            lambda client: client.drop_items("items_ab12", allow_live=True),
            admin_pb2.DropItemsRequest(collection="items_ab12", allow_live=True),
            admin_pb2.DropItemsResponse(dropped_count=3706),
        ),
        (lambda client: client.reload(), admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse(model_version="ab12")),
    ],
)
def test_a_call_sends_its_request_and_the_token(channel, in_background, call, request_sent, response):
    client = RecallClient(channel=channel, timeout_s=5, token="secret")
    called = in_background(call, client)
    method_name = type(request_sent).__name__.removesuffix("Request")
    [method] = [method for method in METHODS if method.name == method_name]
    metadata, request = answer(channel, method, response)
    assert called.result() == response
    assert request == request_sent
    assert metadata["authorization"] == "Bearer secret"


def test_a_large_batch_becomes_several_requests_and_one_result(channel, in_background):
    client = RecallClient(channel=channel, timeout_s=5, max_users=2)
    called = in_background(client.recall, [[1], [2], [3]], top_k=1)
    sent = []
    for item_ids in ([10, 20], [30]):
        results = [recall_pb2.UserCandidates(item_ids=[item_id]) for item_id in item_ids]
        response = recall_pb2.RecallResponse(results=results, model_version="ab12", collection="items_ab12")
        sent.append(answer(channel, RECALL_SERVICE.methods_by_name["Recall"], response)[1])
    result = called.result()
    assert [[list(user.hist_item) for user in request.users] for request in sent] == [[[1], [2]], [[3]]]
    assert [list(candidates.item_ids) for candidates in result.results] == [[10], [20], [30]]
    assert (result.model_versions, result.collections) == (("ab12",), ("items_ab12",))


def test_a_failure_is_our_exception(channel, in_background):
    called = in_background(RecallClient(channel=channel, timeout_s=5).recall, [[1]], top_k=0)
    answer(
        channel,
        RECALL_SERVICE.methods_by_name["Recall"],
        None,
        grpc.StatusCode.INVALID_ARGUMENT,
        "top_k is 0, must be 1 to 1000",
        (("error-reason", "INVALID_TOP_K"),),
    )
    with pytest.raises(InvalidRequestError, match=re.escape("top_k is 0, must be 1 to 1000 [INVALID_TOP_K]")):
        called.result()


def test_an_injected_channel_stays_open(channel, monkeypatch):
    closed = []
    monkeypatch.setattr(channel, "close", lambda: closed.append(True))
    with RecallClient(channel=channel, timeout_s=5):
        pass
    assert closed == []


def test_the_deadline_covers_the_whole_split_batch():
    servicer = CannedRecall()
    servicer.delay_s = 0.2
    with running(servicer) as target, RecallClient(target, max_users=1) as client, pytest.raises(DeadlineExceededError):
        client.recall([[1], [2], [3], [4]], top_k=1, timeout_s=0.5)
    assert len(servicer.calls["Recall"]) <= 3  # the fourth was not even sent


def test_health():
    servicer = CannedRecall()
    servicer.serving = [False, True]
    with running(servicer) as target, RecallClient(target, timeout_s=5) as client:
        assert [client.is_serving(), client.is_serving(wait_for_ready=True)] == [False, True]
    with RecallClient(target, timeout_s=5) as client, pytest.raises(UnavailableError):
        client.is_serving()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Self-signed certificate and key for localhost: authority, server and client in one."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command to make a certificate")
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = f"""openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost
        -addext subjectAltName=DNS:localhost -out {certificate} -keyout {key}"""
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    return certificate, key


def test_mutual_tls(certificate):
    cert, key = certificate
    server = grpc.server(futures.ThreadPoolExecutor(2))
    CannedRecall().add_to(server)
    port = server.add_secure_port(
        "localhost:0",
        grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())], cert.read_bytes(), True),
    )
    server.start()
    try:
        with RecallClient(f"localhost:{port}", timeout_s=5, tls=cert, client_cert=certificate) as client:
            assert client.count_items().count == 3706
        with RecallClient(f"localhost:{port}", timeout_s=5, tls=cert) as client, pytest.raises(UnavailableError):
            client.count_items()
    finally:
        server.stop(None).wait()


def test_a_client_certificate_without_tls_is_a_mistake(certificate):
    with pytest.raises(ValueError, match="client_cert needs tls"):
        RecallClient(client_cert=certificate)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_localhost_is_never_sent_to_a_proxy(host, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("no_proxy", "")
    with running(CannedRecall()) as target, RecallClient(f"{host}:{target.rpartition(':')[2]}", timeout_s=5) as client:
        assert client.count_items().count == 3706


def test_an_error_names_the_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with RecallClient("recall.example:50051", timeout_s=5) as client, pytest.raises(UnavailableError) as caught:
        client.count_items()
    assert str(caught.value).startswith("no server was reached at recall.example:50051 through the proxy of ")
    assert "http_proxy=http://127.0.0.1:9" in str(caught.value) and "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_sentence():
    with RecallClient("127.0.0.1:9", timeout_s=5) as client, pytest.raises(UnavailableError) as caught:
        client.count_items()
    start = "`python -m server --listen HOST:PORT` starts one"
    assert str(caught.value) == f"no server answers at 127.0.0.1:9 (connection refused); {start} [UNAVAILABLE]"


def test_ids_come_back_as_the_release_has_them():
    for keyed, histories, found in (
        (False, [[42], []], [[43, 44], [7]]),
        (True, [["0042"], []], [["0042+1", "0042+2"], ["TOP-7"]]),
    ):
        with running(CannedRecall(keyed)) as target, RecallClient(target, timeout_s=5) as client:
            assert client.recall(histories, top_k=2).item_ids == found

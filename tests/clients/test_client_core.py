import json
import re
import time

import grpc
import pytest

import mind.keys
from clients.core import ClientCore, Deadline, channel_options, join_responses
from clients.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    PreconditionError,
    RecallError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
)
from clients.ids import MAX_KEY_BYTES, TWINS, ids_of
from clients.plain import to_plain
from clients.proxies import is_local, proxy_of
from clients.statuses import UserStatus
from clients.sync_client import RecallClient
from protos.recall.v1 import recall_pb2


class FakeRpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "", **metadata: str) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((key.replace("_", "-"), value) for key, value in self._metadata.items())


@pytest.fixture
def client():
    # Opens no connection: that happens on the first call.
    with RecallClient(max_users=3, max_candidates=100) as client:
        yield client


def split(client: ClientCore, histories, top_k, **options) -> list[recall_pb2.RecallRequest]:
    defaults = {"filter": "", "exclude_history": False, "exclude_item_ids": None, "merge_strategy": "best_score"}
    return client._recall_requests(histories, top_k, **(defaults | options))


@pytest.mark.parametrize(
    ("users", "top_k", "sizes"),
    [
        (3, 10, [3]),
        (7, 10, [3, 3, 1]),  # max_users
        (7, 50, [2, 2, 2, 1]),  # 2 x 50 = max_candidates
        (2, 101, [1, 1]),  # even one user is too many: the server says so
        (2, 0, [2]),  # likewise for top_k
        (0, 10, [0]),  # likewise for no users
    ],
)
def test_a_batch_is_split_at_both_limits(client, users, top_k, sizes):
    requests = split(client, [[user] for user in range(users)], top_k)
    assert [len(request.users) for request in requests] == sizes
    assert [user.hist_item[0] for request in requests for user in request.users] == list(range(users))


def test_a_batch_is_split_by_bytes_too():
    client = RecallClient(max_request_bytes=10_000)
    histories = [
        [2**62 + user] * length for user, length in enumerate([100, 300, 500, 2_000, 10, 0, 990])
    ]  # 9 bytes an id
    requests = split(client, histories, 10)
    assert [[len(user.hist_item) for user in request.users] for request in requests] == [
        [100, 300, 500],
        [2_000],  # alone, for the server to refuse
        [10, 0],
        [990],
    ]
    assert [list(user.hist_item) for request in requests for user in request.users] == histories
    assert all(request.ByteSize() < 10_000 for request in requests if len(request.users[0].hist_item) != 2_000)


def test_hash_ids_of_a_default_batch_stay_under_what_a_server_accepts(client):
    client = RecallClient()
    requests = split(client, [[2**62] * 2_000] * 256, 10, filter="x" * 2_000)
    assert len(requests) == 2 and all(request.ByteSize() <= 4 * 2**20 - 5 for request in requests)


@pytest.mark.parametrize(
    ("histories", "kind", "message"),
    [
        (
            [[1], [2, 4.5]],
            TypeError,
            "histories[1][1] is 4.5 (float), must be an integer: item ids are integers of 64 bits, or text",
        ),
        (
            [[1], [43, "43"]],
            TypeError,
            "histories[1][1] is '43' (str), must be an integer as histories[1][0] is: item ids of a release are of one "
            "kind",
        ),
        ([["A"], ["A", "B", 43]], TypeError, "histories[1][2] is 43 (int), must be text as histories[1][0] is"),
        (
            [[], [1], ["43"]],
            TypeError,
            "user 2 of histories has text ids and user 1 integers: item ids of a release are of one kind",
        ),
        ([["A", "b\ud800"]], ValueError, "histories[0][1] is 'b\\ud800' (str), has half a character at position 1"),
        (
            [43, 23],
            TypeError,
            "histories[0] is 43 (int), must be a list of item ids: [[43, 23]] is one user with two clicks",
        ),
        ([[1], [[2]]], TypeError, "histories[1][0] is [2] (list), must be an integer"),
        ([[2**63]], ValueError, f"histories[0][0] is {2**63} (int), does not fit 64 bits"),
        ("ann", TypeError, "histories is the text 'ann', must be a list with one history for each user"),
        ([b"ab"], TypeError, "histories[0] is b'ab' (bytes), must be a list of item ids"),
        ([[None]], TypeError, "histories[0][0] is None (NoneType), must be an integer"),
    ],
)
def test_an_error_names_the_user_and_the_field(client, histories, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        split(client, histories, 10)


def test_errors_name_the_field_in_other_calls_too():
    client = RecallClient(timeout_s=1)
    for call, message in (
        (
            lambda: client.recall([[1], [2]], top_k=1, exclude_item_ids=[[], [2.5]]),
            "exclude_item_ids[1][0] is 2.5 (float)",
        ),
        (lambda: client.explain([1.5], top_k=1), "history[0] is 1.5 (float)"),
        (lambda: client.explain([1], top_k=1, exclude_item_ids=5), "exclude_item_ids is 5 (int)"),
        (lambda: client.upsert_users({"ann": [1], "bob": [1, "x"]}), "hist_item['bob'][1] is 'x' (str)"),
        (lambda: client.recall([[1]], top_k=1, exclude_item_ids=[["A"]]), "user 0 of histories"),
        (lambda: client.upsert_users(append_item_ids={"ann": 7}), "append_item_ids['ann'] is 7 (int)"),
        (lambda: client.upsert_users({7: [1]}), "hist_item has the user_id 7, must be text"),
        (lambda: client.find_similar_users([["a", 1]], top_k=1), "users[0][1] is 1 (int)"),
    ):
        with pytest.raises(TypeError, match=re.escape(message)):
            call()


def test_kinds_that_do_not_fit_the_ids_are_named(client):
    ann = {"ann": [1, 2]}
    for kinds, message in (
        ({"ann": ["view"]}, "events['ann'] has 1 kinds for 2 ids, must be one for each"),
        ({"ann": "view"}, "events['ann'] must be a list of texts"),
        ({"ann": [5, 6]}, "events['ann'] must be a list of texts"),
        ({"bob": ["view"]}, "events has the user_id 'bob', of whom no clicks are given"),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            client.upsert_users(ann, events=kinds)
    with pytest.raises(ValueError, match=re.escape("events['ann']: the user is in hist_item and in append_item_ids")):
        client.upsert_users(ann, append_item_ids=ann, events={"ann": ["view", "buy"]})


def test_what_was_shown_goes_with_the_clicks_of_a_user_or_alone(client):
    updates = client._upsert_request({"ann": [1]}, {"bob": ["KIT-1"]}, None, {"bob": ["KIT-2"], "cid": [3, 4]}).users
    assert list(updates) == [
        recall_pb2.UserUpdate(user_id="ann", hist_item=[1]),
        recall_pb2.UserUpdate(user_id="bob", append_item_keys=["KIT-1"], shown_item_keys=["KIT-2"]),
        recall_pb2.UserUpdate(user_id="cid", shown_item_ids=[3, 4]),
    ]
    with pytest.raises(TypeError, match=re.escape("shown_item_ids['ann'][1] is 'x' (str)")):
        client.upsert_users(shown_item_ids={"ann": [1, "x"]})
    with pytest.raises(ValueError, match="events has the user_id 'ann', of whom no clicks are given"):
        client.upsert_users(events={"ann": ["view"]}, shown_item_ids={"ann": [1]})


def test_pages_are_one_request(client):
    requests = client._recall_requests([[1]] * 300, 10, "", False, None, "best_score", paged=True)
    assert [(len(request.users), request.paged) for request in requests] == [(300, True)]
    [request] = client._recall_requests([[1]] * 300, 10, "", False, None, "best_score", page_token=b"t")
    assert request.page_token == b"t"
    answers = [recall_pb2.RecallResponse(next_page_token=b"t")]
    assert join_responses(answers).next_page_token == b"t"


def test_of_a_history_beyond_the_limit_the_newest_ids_are_sent():
    long, ready = list(range(12)), recall_pb2.User(hist_item=range(12))
    client = RecallClient(max_history=5)
    [request] = split(client, [long, [1, 2], ready], 10)
    assert [list(user.hist_item) for user in request.users] == [long[-5:], [1, 2], long]
    assert list(client._explain_request(long, 10, "", False, long, "best_score").user.hist_item) == long[-5:]
    kinds = {"ann": [f"kind {at}" for at in range(len(long))]}
    assert list(client._upsert_request({"ann": long}, None, kinds).users[0].events) == kinds["ann"][-5:]
    updates = client._upsert_request({"ann": long}, {"bob": long}).users
    assert (list(updates[0].hist_item), list(updates[1].append_item_ids)) == (long[-5:], long[-5:])
    assert list(client._similar_request([long], 10).users[0].hist_item) == long[-5:]
    [request] = split(RecallClient(), [range(13_000)], 10)
    assert list(request.users[0].hist_item) == list(range(3_000, 13_000)), "what a server of default limits accepts"


def test_integers_of_numpy_are_item_ids(client):
    np = pytest.importorskip("numpy")
    [request] = split(client, [np.array([1, 2]), [np.int64(3)], np.zeros(0, np.int32)], 10)
    assert [list(user.hist_item) for user in request.users] == [[1, 2], [3], []]


KEYS = ["KIT-1", "0042", "42", 'a "quoted", <b>', "ключ"]


def test_text_ids_are_sent_as_they_are_in_fields_of_their_own(client):
    """No ids fit both kinds."""
    histories = [KEYS, (), "ann", recall_pb2.User(hist_item_keys=["B"]), (key for key in KEYS[:2])]
    [request] = split(RecallClient(), histories, 10, exclude_item_ids=[[], ["KIT-1", "7"], ["8"], [], []])
    assert [list(user.hist_item_keys) for user in request.users] == [KEYS, [], [], ["B"], KEYS[:2]]
    assert [list(user.exclude_item_keys) for user in request.users] == [[], ["KIT-1", "7"], ["8"], [], []]
    assert [user.user_id for user in request.users] == ["", "", "ann", "", ""]
    assert not any(user.hist_item or user.exclude_item_ids for user in request.users)
    updates = client._upsert_request({"ann": KEYS}, {"bob": ["5"]}).users
    assert (list(updates[0].hist_item_keys), list(updates[1].append_item_keys)) == (KEYS, ["5"])
    assert list(client._similar_request([KEYS], 10).users[0].hist_item_keys) == KEYS
    np = pytest.importorskip("numpy")
    [request] = split(client, [np.array(KEYS), np.array(KEYS, object)], 10)
    assert [list(user.hist_item_keys) for user in request.users] == [KEYS, KEYS]


def test_a_batch_is_split_by_the_bytes_of_text_ids():
    client = RecallClient(max_request_bytes=10_000, max_history=40)
    histories = [["я" * 100] * length for length in (10, 50, 20, 1)]  # 203 bytes an id, the newest 40 of them
    requests = split(client, histories, 10)
    assert [[len(user.hist_item_keys) for user in request.users] for request in requests] == [[10], [40], [20, 1]]
    assert all(request.ByteSize() < 10_000 for request in requests)


def test_every_field_of_ids_has_its_twin():
    """Held to the contract: whatever is added there must be read and written here."""
    assert MAX_KEY_BYTES == mind.keys.MAX_KEY_BYTES
    messages = recall_pb2.DESCRIPTOR.message_types_by_name.values()
    fields = [field for message in messages if not message.name.startswith("Shadow") for field in message.fields]
    assert {
        field.name for field in fields if field.name.endswith(("_key", "_keys")) and field.name != "split_key"
    } == set(TWINS.values())
    others = {"item_count", "count", "integers", "time_ms", "now_unix_s"}
    ids = {field.name for field in fields if field.type == field.TYPE_INT64} - others
    assert ids == set(TWINS)
    for message in recall_pb2.DESCRIPTOR.message_types_by_name.values():
        for name in TWINS.keys() & message.fields_by_name.keys():
            assert TWINS[name] in message.fields_by_name, (message.name, name)


def test_answers_give_the_ids_that_the_release_has():
    integers = recall_pb2.UserCandidates(item_ids=[5, 0], unknown_item_ids=[7])
    texts = recall_pb2.UserCandidates(item_keys=["0042", "42"], unknown_item_keys=["x"])
    assert join_responses([recall_pb2.RecallResponse(results=[integers])]).item_ids == [[5, 0]]
    assert join_responses([recall_pb2.RecallResponse(results=[texts, recall_pb2.UserCandidates()])]).item_ids == [
        ["0042", "42"],
        [],
    ]
    assert ids_of(recall_pb2.DroppedHit(item_key="A"), "item_id") == "A"
    assert ids_of(recall_pb2.DroppedHit(item_id=7), "item_id") == 7
    plain = to_plain(recall_pb2.ExplainResponse(candidates=texts, dropped=[recall_pb2.DroppedHit(item_key="A")]))
    assert (plain["candidates"]["item_ids"], plain["dropped"][0]["item_id"]) == (["0042", "42"], "A")
    assert "key" not in json.dumps(plain)
    assert to_plain(integers)["item_ids"] == [5, 0]


def test_statuses_print_as_names():
    statuses = {name.removeprefix("USER_STATUS_"): number for name, number in recall_pb2.UserStatus.items()}
    assert {str(one): int(one) for one in UserStatus} == statuses
    results = [recall_pb2.UserCandidates(status=number) for number in (1, 6, 99)]
    result = join_responses([recall_pb2.RecallResponse(results=results)])
    assert [str(status) for status in result.statuses] == ["OK", "UNKNOWN_USER", "99"]
    assert result.statuses[1] == recall_pb2.USER_STATUS_UNKNOWN_USER


@pytest.mark.parametrize(
    ("target", "environment", "found"),
    [
        ("recall:50051", {"http_proxy": "http://me:secret@proxy:8080"}, "http_proxy=http://proxy:8080"),
        ("dns:///recall:50051", {"https_proxy": "b", "http_proxy": "a"}, "https_proxy=b"),
        ("recall:50051", {"grpc_proxy": "c", "http_proxy": "a"}, "grpc_proxy=c"),
        ("recall.shop:50051", {"http_proxy": "a", "no_proxy": "other, .shop"}, ""),
        ("recall:50051", {"http_proxy": "a", "no_grpc_proxy": "", "no_proxy": "recall"}, "http_proxy=a"),
        ("recall:50051", {"HTTP_PROXY": "a"}, ""),
        ("recall:50051", {}, ""),
        *[
            (target, {"http_proxy": "a"}, "")
            for target in (
                "localhost:50051",
                "127.0.0.1:50051",
                "[::1]:50051",
                "ipv4:127.0.0.1:1,127.0.0.2:2",
                "dns:///localhost:50051",
                "unix:/run/recall.sock",
            )
        ],
        ("ipv4:127.0.0.1:1,10.0.0.1:1", {"http_proxy": "a"}, "http_proxy=a"),
    ],
)
def test_which_proxy_a_call_goes_through(target, environment, found):
    assert proxy_of(target, environment) == found
    assert dict(channel_options(target))["grpc.enable_http_proxy"] == (0 if is_local(target) else 1)


REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: connect: Connection refused (111)"


@pytest.mark.parametrize(
    ("code", "details", "proxy", "message"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            REFUSED,
            "",
            "no server answers at recall:1 (connection refused); `python -m server --listen HOST:PORT` starts one",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            REFUSED,
            "http_proxy=http://proxy",
            "no server was reached at recall:1 through the proxy of http_proxy=http://proxy (connection refused); "
            "no_proxy spares the hosts that it lists",
        ),
        (grpc.StatusCode.UNAVAILABLE, "stopping", "", "stopping"),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            "Deadline Exceeded",
            "http_proxy=http://proxy",
            "Deadline Exceeded; the call went through the proxy of http_proxy=http://proxy",
        ),
        (grpc.StatusCode.INVALID_ARGUMENT, "top_k", "http_proxy=http://proxy", "top_k"),
    ],
)
def test_a_server_that_is_not_there_is_one_sentence(code, details, proxy, message):
    assert from_rpc_error(FakeRpcError(code, details), "recall:1", proxy).message == message


def test_every_part_of_a_split_batch_carries_all_options(client):
    requests = split(
        client,
        [[1, 2], [3], [], recall_pb2.User(hist_item=[4], exclude_item_ids=[9])],
        top_k=20,
        filter="year > 1990",
        exclude_history=True,
        exclude_item_ids=[[5], [], [6, 7], []],
        merge_strategy="round_robin",
    )
    assert len(requests) == 2
    for request in requests:
        assert (request.top_k, request.filter, request.exclude_history) == (20, "year > 1990", True)
        assert request.merge_strategy == recall_pb2.MERGE_STRATEGY_ROUND_ROBIN
    assert [list(user.exclude_item_ids) for request in requests for user in request.users] == [[5], [], [6, 7], [9]]


def test_a_text_is_the_id_of_a_remembered_user(client):
    [request] = split(client, ["ann", [1]], 10, exclude_item_ids=[[5], []])
    ann, other = request.users
    assert (ann.user_id, list(ann.hist_item), list(ann.exclude_item_ids)) == ("ann", [], [5])
    assert (other.user_id, list(other.hist_item)) == ("", [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude_item_ids": [[1]]}, "exclude_item_ids has 1 lists for 2 histories"),
        ({"exclude_item_ids": [[], [1]]}, "a User message carries its own"),
        ({"merge_strategy": "best"}, "merge_strategy is 'best', must be one of best_score, round_robin"),
    ],
)
def test_a_contradictory_request_is_refused_before_it_is_sent(client, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        split(client, [[1], recall_pb2.User(hist_item=[2])], 10, **options)


def test_a_release_between_two_requests_of_a_batch_shows():
    def response(item_id: int, version: str) -> recall_pb2.RecallResponse:
        results = [recall_pb2.UserCandidates(item_ids=[item_id])]
        return recall_pb2.RecallResponse(results=results, model_version=version, collection=f"items_{version}")

    result = join_responses([response(1, "old"), response(2, "old"), response(3, "new")])
    assert [list(candidates.item_ids) for candidates in result.results] == [[1], [2], [3]]
    assert result.model_versions == ("old", "new")
    assert result.collections == ("items_old", "items_new")
    assert len(result.timings) == 3


@pytest.mark.parametrize("timeout_s", [0, -1.5, float("nan"), float("inf")])
def test_a_deadline_must_be_positive(client, timeout_s):
    for call in (lambda: RecallClient(timeout_s=timeout_s), lambda: client.count_items(timeout_s=timeout_s)):
        with pytest.raises(ValueError, match=f"timeout_s is {timeout_s}, must be a positive number of seconds"):
            call()


def test_a_deadline_is_required(client):
    with pytest.raises(TypeError, match="timeout_s is required"):
        client.count_items()


def test_a_deadline_that_passed_leaves_nothing():
    assert 9 < Deadline.after(10).remaining_s() <= 10
    assert Deadline(time.monotonic() - 1).remaining_s() == 0


def test_only_calls_that_read_are_tried_again():
    config = json.loads(dict(channel_options())["grpc.service_config"])
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    method, upsert = config["methodConfig"]
    assert method["name"] == [{"service": recall_pb2.DESCRIPTOR.services_by_name["RecallService"].full_name}]
    assert method["retryPolicy"]["maxAttempts"] == 4
    assert method["retryPolicy"]["initialBackoff"] == "0.05s"
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"]
    # What says of itself that nothing was written, and nothing else: a click must not count twice.
    assert upsert["name"] == [{"service": method["name"][0]["service"], "method": "UpsertUsers"}]
    assert upsert["retryPolicy"]["retryableStatusCodes"] == ["RESOURCE_EXHAUSTED"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, UnauthenticatedError),
        (grpc.StatusCode.FAILED_PRECONDITION, PreconditionError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, OverloadedError),
        (grpc.StatusCode.INTERNAL, RecallError),
    ],
)
def test_each_status_has_its_exception(code, expected):
    error = from_rpc_error(FakeRpcError(code, "top_k is 0, must be 1 to 1000", error_reason="INVALID_TOP_K"))
    assert type(error) is expected
    assert (error.code, error.message, error.reason) == (code, "top_k is 0, must be 1 to 1000", "INVALID_TOP_K")
    assert error.retry_after_s is None
    assert str(error) == "top_k is 0, must be 1 to 1000 [INVALID_TOP_K]"


@pytest.mark.parametrize(("pushback", "retry_after_s"), [("250", 0.25), ("0", 0), ("-1", None), ("soon", None)])
def test_the_server_s_pushback_is_in_the_exception(pushback, retry_after_s):
    error = from_rpc_error(FakeRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc_retry_pushback_ms=pushback))
    assert isinstance(error, UnavailableError)  # whoever handles one handles the other
    assert error.retry_after_s == retry_after_s


def test_a_message_over_the_size_limit_is_the_caller_s_fault():
    too_long = "Received message larger than max (5000000 vs. 4194304)"
    assert type(from_rpc_error(FakeRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, too_long))) is InvalidRequestError


def test_an_error_that_no_server_sent_shows_its_code():
    assert str(from_rpc_error(FakeRpcError(grpc.StatusCode.UNAVAILABLE, "no route"))) == "no route [UNAVAILABLE]"


def test_plain_data_keeps_ids_as_numbers_and_floats_short():
    response = recall_pb2.RecallResponse(
        results=[recall_pb2.UserCandidates(item_ids=[2**62 + 1], scores=[0.1, 1 / 3], status=recall_pb2.USER_STATUS_OK)]
    )
    plain = to_plain(response)
    [candidates] = plain["results"]
    assert candidates["item_ids"] == [2**62 + 1]
    assert candidates["scores"] == [0.1, 0.333333343]  # the second float32 needs nine digits to read back
    assert candidates["status"] == "USER_STATUS_OK"
    assert candidates["fallback"] is False
    assert plain["timings"]["total_ms"] == 0

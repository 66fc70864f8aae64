"""Who gets in: TLS, mutual TLS, tokens, and their renewal under a running server; and that no log shows a secret."""

import asyncio
import contextlib
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients import AsyncRecallClient, RecallClient, RecallError, UnauthenticatedError, UnavailableError
from clients.gateway.backend import Backend
from clients.gateway.options import load_settings as load_gateway_settings
from mind.artifact import load_artifact
from mind.errors import ConfigError
from mind.milvus.connection import without_credentials
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.edge import tls, tokens
from server.errors import StoreUnavailableError
from server.instrumentation import make_metrics
from server.options import load_settings
from server.settings import Settings
from server.watching.telemetry import SILENT, Telemetry
from tests.artifacts import make_artifact
from tests.conftest import remove_item_collections
from tests.fake_store import FakeStore
from tests.releases import item_store
from tests.server.test_service import GRPCURL, ROOT, running
from tests.server.test_store import publish_here

FIRST, SECOND, ADMIN = "first-token-of-reading", "second-token-of-reading", "token-of-administration"


class Files:
    """Certificates of one authority, in files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.authority = trustme.CA()
        self.ca, self.cert, self.key = (directory / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self.client_cert, self.client_key = directory / "client.pem", directory / "client-key.pem"
        self.client_ca = directory / "client-ca.pem"
        for file in (self.ca, self.client_ca):
            self.authority.cert_pem.write_to_path(file)
        self.write(self.authority.issue_cert("localhost"))
        mine = self.authority.issue_cert("ranking@example.org")
        mine.cert_chain_pems[0].write_to_path(self.client_cert)
        mine.private_key_pem.write_to_path(self.client_key)

    def write(self, issued: trustme.LeafCert) -> None:
        """Make it the server's certificate."""
        issued.cert_chain_pems[0].write_to_path(self.cert)
        issued.private_key_pem.write_to_path(self.key)

    @property
    def server(self) -> dict[str, Path]:
        """Options of a server with TLS."""
        return {"tls_cert": self.cert, "tls_key": self.key}

    @property
    def mine(self) -> tuple[Path, Path]:
        """What a client shows."""
        return self.client_cert, self.client_key


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "certificates")


@pytest.fixture
def others(tmp_path: Path) -> Files:
    """Certificates that nobody here trusts."""
    return Files(tmp_path / "others")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(FIRST + "\n")
    return file


Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a server that answers, and gives `localhost:port`."""
    servers: list[RecallServer] = []

    async def start(telemetry: Telemetry = SILENT, **options: Any) -> str:
        store = FakeStore()
        store.publish(load_artifact(make_artifact(tmp_path / "artifacts")))
        settings = Settings(listen="127.0.0.1:0", artifacts=str(tmp_path / "artifacts"), **options)
        server = RecallServer(settings, store, telemetry=telemetry)
        servers.append(server)
        await server.releases.check()
        await server.start()
        return f"localhost:{server.port}"

    yield start
    for server in servers:
        await server.stop(0)


async def items(target: str, **connection: Any) -> int:
    """Asks over a new connection; the number of candidates."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    if connection.get("tls"):
        certificate, key = connection.get("client_cert") or (None, None)
        credentials = grpc.ssl_channel_credentials(
            connection["tls"].read_bytes(), key and key.read_bytes(), certificate and certificate.read_bytes()
        )
        channel = grpc.aio.secure_channel(target, credentials, options)
    else:
        channel = grpc.aio.insecure_channel(target, options)
    async with channel, AsyncRecallClient(channel=channel, token=connection.get("token"), timeout_s=5) as client:
        return len((await client.recall([[1000, 1007]], top_k=7)).results[0].item_ids)


async def test_with_tls_callers_need_tls_and_the_right_authority(start: Start, files: Files, others: Files) -> None:
    target = await start(**files.server)
    assert await items(target, tls=files.ca) == 7
    for wrong in ({}, {"tls": others.ca}):
        with pytest.raises(UnavailableError):
            await items(target, **wrong)


async def test_with_mutual_tls_callers_need_a_certificate(start: Start, files: Files, others: Files) -> None:
    target = await start(**files.server, tls_client_ca=files.ca)
    assert await items(target, tls=files.ca, client_cert=files.mine) == 7
    for wrong in (None, others.mine):
        with pytest.raises(UnavailableError):
            await items(target, tls=files.ca, client_cert=wrong)


async def test_the_gateway_shows_its_certificate(start: Start, files: Files, others: Files) -> None:
    target = await start(**files.server, tls_client_ca=files.ca)
    for shown, admitted in ((files.mine, True), (others.mine, False)):
        cert, key = map(str, shown)
        options = ["--server", target, "--server-ca-cert", str(files.ca), "--timeout-ms", "5000"]
        options += ["--server-client-cert", cert, "--server-client-key", key]
        async with Backend(load_gateway_settings(options)) as backend:
            with contextlib.nullcontext() if admitted else pytest.raises(UnavailableError):
                assert await backend.main.count_items()


async def test_new_certificates_serve_new_connections_and_keep_old_ones(
    start: Start, files: Files, others: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server.edge.reloaded")
    target = await start(**files.server, tls_client_ca=files.ca)
    with RecallClient(target, tls=files.ca, client_cert=files.mine, timeout_s=5) as open_before:
        assert await asyncio.to_thread(open_before.count_items)
        renewed = others.authority.issue_cert("localhost")
        renewed.cert_chain_pems[0].write_to_path(files.cert)  # the key of before does not fit
        for _ in range(2):
            assert await items(target, tls=files.ca, client_cert=files.mine) == 7
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "is not the key of the certificate in" in caplog.text and "stays in use" in caplog.text
        files.key.write_text("-----BEGIN PRIVATE KEY-----\nMIIE")  # half of it
        assert await items(target, tls=files.ca, client_cert=files.mine) == 7
        files.write(renewed)
        assert await items(target, tls=others.ca, client_cert=files.mine) == 7
        with pytest.raises(UnavailableError):
            await items(target, tls=files.ca, client_cert=files.mine)
        others.authority.cert_pem.write_to_path(files.ca)  # which was also what clients are checked against
        assert await items(target, tls=others.ca, client_cert=others.mine) == 7
        assert (await asyncio.to_thread(open_before.count_items)).count == 200


async def test_certificates_that_rotate_all_the_time_cost_no_new_connection(
    start: Start, files: Files, others: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Mutual TLS: the server's certificate, its key and the authorities of callers change between all handshakes."""
    caplog.set_level(logging.INFO, "server.edge.reloaded")
    target = await start(**files.server, tls_client_ca=files.client_ca)
    both = files.authority.cert_pem.bytes() + others.authority.cert_pem.bytes()
    rotating = asyncio.Event()

    async def call() -> int:
        calls = 0
        while not rotating.is_set():
            assert await items(target, tls=files.ca, client_cert=files.mine) == 7
            calls += 1
        return calls

    callers = [asyncio.create_task(call()) for _ in range(2)]
    for number in range(10):
        await asyncio.to_thread(files.write, await asyncio.to_thread(files.authority.issue_cert, "localhost"))
        files.client_ca.write_bytes(files.authority.cert_pem.bytes() if number % 2 else both)
        with contextlib.nullcontext() if number % 2 == 0 else pytest.raises(UnavailableError):
            await items(target, tls=files.ca, client_cert=others.mine)
    rotating.set()
    assert min(await asyncio.gather(*callers)) > 0
    assert sum("read again" in message for message in caplog.messages) >= 10


async def failure(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(RecallError) as caught:
        await call
    return caught.value.code, caught.value.reason


async def test_recall_needs_a_token_if_there_are_tokens(start: Start, token_file: Path) -> None:
    target = await start(token_file=token_file)
    assert await items(target, token=FIRST) == 7
    for wrong in (None, "first", FIRST + "x", SECOND):
        assert await failure(items(target, token=wrong)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN")
    async with grpc.aio.insecure_channel(target) as channel:
        recall = recall_pb2_grpc.RecallServiceStub(channel)
        for method, request in (
            (recall.CountItems, recall_pb2.CountItemsRequest()),
            (recall.GetServerInfo, recall_pb2.GetServerInfoRequest()),
            (recall.Explain, recall_pb2.ExplainRequest(top_k=5)),
        ):
            for header in (f"Basic {FIRST}", FIRST, "Bearer"):
                with pytest.raises(grpc.aio.AioRpcError, match="no token of the server's --token-file"):
                    await method(request, metadata=(("authorization", header),))
        assert await recall.CountItems(recall_pb2.CountItemsRequest(), metadata=(("authorization", f"bearer {FIRST}"),))
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING  # probes have no token


async def test_the_tokens_of_reading_and_of_administration_are_two(
    start: Start, token_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "admin").write_text(ADMIN)
    target = await start(token_file=token_file, admin_token_file=tmp_path / "admin")
    async with AsyncRecallClient(target, token=ADMIN, timeout_s=5) as client:
        assert (await client.reload()).collection
        assert await failure(client.count_items()) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN")
    async with AsyncRecallClient(target, token=FIRST, timeout_s=5) as client:
        assert await failure(client.reload()) == (grpc.StatusCode.UNAUTHENTICATED, "ADMIN_TOKEN")


async def test_tokens_are_rotated_without_a_gap(
    start: Start, token_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "LOOK_EVERY_S", 0)
    target = await start(token_file=token_file)
    token_file.write_text(f"{FIRST}\n\n{SECOND}\n")
    assert [await items(target, token=token) for token in (FIRST, SECOND)] == [7, 7]
    token_file.write_text(SECOND)
    assert await items(target, token=SECOND) == 7
    assert await failure(items(target, token=FIRST)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN")
    for content, says in (("", "has no token"), ("short", "line 1 has 5 characters, the least is 16")):
        caplog.clear()
        token_file.write_text(content)
        assert [await items(target, token=SECOND) for _ in range(2)] == [7, 7]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert says in caplog.text and "stays in use" in caplog.text
    token_file.unlink()
    assert await items(target, token=SECOND) == 7
    assert SECOND not in caplog.text


async def test_a_token_file_that_could_not_be_read_for_a_while_is_read_again(
    start: Start, token_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing about the file changes again when it becomes readable, such as its permissions or the disk under it."""
    metrics = make_metrics()
    monkeypatch.setattr(tokens, "LOOK_EVERY_S", 0)
    target = await start(telemetry=Telemetry(metrics), token_file=token_file)

    def unusable() -> float | None:
        return metrics.registry.get_sample_value("recall_file_unusable", {"option": "--token-file"})

    assert unusable() == 0
    with monkeypatch.context() as patch:
        patch.setattr(tokens, "read_tokens", Mock(side_effect=ConfigError("--token-file: Input/output error")))
        token_file.write_text(SECOND)
        assert [await items(target, token=FIRST) for _ in range(2)] == [7, 7]
    assert (unusable(), caplog.text.count("Input/output error")) == (1, 1)
    assert await items(target, token=SECOND) == 7
    assert await failure(items(target, token=FIRST)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN")
    assert unusable() == 0


async def test_a_certificate_that_could_not_be_read_for_a_while_is_read_again(
    start: Start, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = make_metrics()
    target = await start(telemetry=Telemetry(metrics), **files.server)
    with monkeypatch.context() as patch:
        patch.setattr(tls, "read_certificates", Mock(side_effect=ConfigError("--tls-key: Input/output error")))
        os.utime(files.server["tls_key"])
        assert await items(target, tls=files.ca) == 7
        assert metrics.registry.get_sample_value("recall_file_unusable", {"option": "--tls-cert"}) == 1
    assert await items(target, tls=files.ca) == 7
    assert metrics.registry.get_sample_value("recall_file_unusable", {"option": "--tls-cert"}) == 0


async def test_explain_can_be_turned_off(start: Start) -> None:
    target = await start(explain=False)
    async with AsyncRecallClient(target, timeout_s=5) as client:
        off = await failure(client.explain([1000], top_k=5))
        assert off == (grpc.StatusCode.UNIMPLEMENTED, "EXPLAIN_OFF")
        assert await client.recall([[1000]], top_k=5)


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


async def test_the_command_line_and_grpcurl_speak_tls_and_send_the_token(
    start: Start, files: Files, token_file: Path
) -> None:
    target = await start(**files.server, tls_client_ca=files.ca, token_file=token_file)
    client = [sys.executable, "-m", "clients", "count", "--server", target]
    mutual = ["--server-ca-cert", files.ca]
    mutual += ["--server-client-cert", files.client_cert, "--server-client-key", files.client_key]
    done = await asyncio.to_thread(run, *client, *mutual, "--server-token-file", token_file)
    assert (done.returncode, done.stdout.split()[0]) == (0, "200"), done.stderr
    values = [str(file) for file in (files.ca, files.client_cert, files.client_key, token_file)]
    for names in (
        ("RECALL_SERVER_CA_CERT", "RECALL_SERVER_CLIENT_CERT", "RECALL_SERVER_CLIENT_KEY", "RECALL_SERVER_TOKEN_FILE"),
        ("RECALL_CLIENT_CA", "RECALL_CLIENT_CERT", "RECALL_CLIENT_KEY", "RECALL_CLIENT_TOKEN_FILE"),  # version 0.1
    ):
        done = await asyncio.to_thread(run, *client, **dict(zip(names, values, strict=True)))
        assert done.returncode == 0, done.stderr
    done = await asyncio.to_thread(run, *client, *mutual)
    assert done.returncode == 1 and "authorization: missing" in done.stderr and "[TOKEN]" in done.stderr
    done = await asyncio.to_thread(run, *client, "--server-client-cert", files.client_cert)
    assert done.returncode == 1 and "--server-client-cert and --server-client-key must be given together" in done.stderr

    curl = [GRPCURL, "-cacert", files.ca, "-cert", files.client_cert, "-key", files.client_key]
    method = "recall.v1.RecallService/CountItems"
    done = await asyncio.to_thread(run, *curl, "-H", f"authorization: Bearer {FIRST}", target, method)
    assert done.returncode == 0 and '"count": "200"' in done.stdout, done.stderr
    done = await asyncio.to_thread(run, *curl, target, method)
    assert "Unauthenticated" in done.stderr  # reflection answered, the method did not


async def test_the_blocking_client_over_tls(start: Start, files: Files, token_file: Path) -> None:
    target = await start(**files.server, token_file=token_file)
    with RecallClient(target, tls=files.ca, token=FIRST, timeout_s=5) as client:
        assert len((await asyncio.to_thread(client.recall, [[1000]], top_k=7)).results[0].item_ids) == 7
    with RecallClient(target, tls=files.ca, timeout_s=5) as client, pytest.raises(UnauthenticatedError):
        await asyncio.to_thread(client.count_items)


def test_every_process_serves_tls(files: Files) -> None:
    options = ("--processes", "2", "--tls-cert", str(files.cert), "--tls-key", str(files.key))
    with running("--milvus-uri", "http://127.0.0.1:1", *options) as server:
        server.wait_for(r"(?s)listening on \S+ with TLS.*listening on \S+ with TLS")
        for _ in range(8):
            credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
            target = server.address.replace("127.0.0.1", "localhost")
            with grpc.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
                assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--tls-cert {cert}", "--tls-cert is {cert}, but --tls-key is not given"),
        ("--tls-client-ca {ca}", "--tls-client-ca is {ca}, but --tls-cert is not given"),
        ("--tls-cert {no} --tls-key {key}", "--tls-cert {no}: cannot be read: No such file or directory"),
        ("--tls-cert {key} --tls-key {key}", "--tls-cert {key}: is not PEM: it has no certificate"),
        ("--tls-cert {cert} --tls-key {cert}", "--tls-key {cert}: is not PEM: it has no private key"),
        (
            "--tls-cert {cert} --tls-key {other_key}",
            "--tls-key {other_key}: is not the key of the certificate in --tls-cert {cert}",
        ),
        ("--tls-cert {torn} --tls-key {key}", "--tls-cert {torn}, --tls-key {key}: cannot be used"),
        ("--tls-cert {cert} --tls-key {locked}", "--tls-key {locked}: is protected by a password"),
        ("--tls-cert {cert} --tls-key {key} --tls-client-ca {torn}", "--tls-client-ca {torn}: cannot be used"),
        (
            "--milvus-ca-cert {ca}",
            "--milvus-ca-cert is {ca}: it needs an https:// address, but --milvus-uri is 'milvus.db'",
        ),
        ("--milvus-uri https://m --milvus-ca-cert {key}", "--milvus-ca-cert {key}: is not PEM"),
        (
            "--milvus-uri https://m --milvus-client-cert {cert} --milvus-client-key {key}",
            "--milvus-client-cert is {cert}, but --milvus-ca-cert is not given",
        ),
        (
            "--milvus-uri https://m --milvus-ca-cert {ca} --milvus-client-cert {cert} --milvus-client-key {other_key}",
            "--milvus-client-key {other_key}: is not the key of the certificate in --milvus-client-cert {cert}",
        ),
        ("--token-file {no}", "--token-file {no}: cannot be read: No such file or directory"),
        ("--token-file {empty}", "--token-file {empty}: has no token"),
        ("--admin-token-file {short}", "--admin-token-file {short}: the token in line 2 has 6 characters"),
        ("--token-file {odd}", "--token-file {odd}: the token in line 1 is not made of printable ASCII alone"),
        ("--milvus-token-file {empty}", "--milvus-token-file {empty}: has no token"),
        ("--milvus-token=abc", "--milvus-token: a flag shows in the process list; give --milvus-token-file"),
        ("--milvus-uri ftp://me:pass@host", "--milvus-uri is 'ftp://host': expected"),
        ("--max-users 2147483648", "--max-users: Input should be less than or equal to 2147483647"),
    ],
)
def test_options_that_cannot_work_say_what_is_wrong(
    files: Files, others: Files, tmp_path: Path, options: str, says: str
) -> None:
    contents = {
        "empty": "\n \n",
        "short": f"{FIRST}\nsecret",
        "odd": "schlüssel-schlüssel",
        "torn": "-----BEGIN CERTIFICATE-----\nAAAA?\n-----END CERTIFICATE-----\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    key = load_pem_private_key(files.key.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "locked").write_bytes(locked)
    names = {"cert": files.cert, "key": files.key, "ca": files.ca, "other_key": others.key, "no": tmp_path / "no"}
    names |= {name: tmp_path / name for name in (*contents, "locked")}
    with pytest.raises(ConfigError) as caught:
        load_settings(options.format(**names).split())
    message = str(caught.value)
    assert says.format(**names) in message
    assert "secret" not in message and "pass@" not in message and "abc" not in message


def test_an_option_is_called_what_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("max_users: 0\nmilvus_token: [s3cret]\n")
    monkeypatch.setenv("RECALL_MAX_TOP_K", "-1")
    with pytest.raises(ConfigError) as caught:
        load_settings(["--config", str(file), "--max-exclude", "-1"])
    assert str(caught.value).splitlines() == [
        f"milvus_token in {file}: Input should be a valid string",
        f"max_users in {file}: Input should be greater than 0 (value: 0)",
        "RECALL_MAX_TOP_K: Input should be greater than 0 (value: '-1')",
        "--max-exclude: Input should be greater than or equal to 0 (value: '-1')",
    ]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:19530", "http://host:19530"),
        ("https://root:p@ss/word@host:19530/db", "https://host:19530/db"),
        ("https:/root:pass@host", "https:/host"),
        ("root:pass@host", "host"),
        ("milvus.db", "milvus.db"),
    ],
)
def test_an_address_is_shown_without_credentials(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


@contextlib.asynccontextmanager
async def tls_in_front(uri: str, files: Files) -> AsyncIterator[str]:
    """An address of the same database for callers with a certificate of the authority; passes on what they say."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    milvus = urlsplit(uri)
    writers: list[asyncio.StreamWriter] = []
    copies: list[asyncio.Task[None]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(65_536):
                writer.write(content)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        milvus_reader, milvus_writer = await asyncio.open_connection(milvus.hostname, milvus.port)
        writers.extend((writer, milvus_writer))
        for ends in ((reader, milvus_writer), (milvus_reader, writer)):
            copies.append(asyncio.create_task(copy(*ends)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}{milvus.path}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*copies, *(writer.wait_closed() for writer in writers), return_exceptions=True)


def pair(mine: tuple[Path, Path] | None) -> dict[str, Path]:
    """A certificate and its key, by their names in `Connection`."""
    return dict(zip(("client_cert", "client_key"), mine, strict=True)) if mine else {}


async def test_mutual_tls_towards_milvus(milvus_server_uri: str, files: Files, others: Files, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    artifact = make_artifact(tmp_path / "artifacts")
    await asyncio.to_thread(publish_here, milvus_server_uri, tmp_path / "artifacts")
    files.write(files.authority.issue_cert("milvus.internal"))
    async with tls_in_front(milvus_server_uri, files) as uri:
        store = item_store(uri, timeout_s=10, ca_cert=files.ca, server_name="milvus.internal", **pair(files.mine))
        name = await store.released_collection()
        assert name is not None
        await store.load(name)
        vectors = load_artifact(artifact).weights.item_embedding[1:3]
        found = await store.search(name, vectors, 5, {"ef": 100}, 10)
        assert found.lengths.tolist() == [5, 5]
        await store.close()
    for wrong in (files.mine, ""), (None, "milvus.internal"), (others.mine, "milvus.internal"):
        async with tls_in_front(milvus_server_uri, files) as uri:  # pymilvus shares the connections to an address
            client_cert, server_name = wrong
            refused = item_store(uri, timeout_s=1, ca_cert=files.ca, server_name=server_name, **pair(client_cert))
            with pytest.raises(StoreUnavailableError, match=f"Milvus answers at {uri}"):
                await refused.released_collection()


@pytest.fixture
def secrets(tmp_path: Path, token_file: Path, files: Files) -> dict[str, str]:
    """Every way to give a server a secret, as its environment."""
    (tmp_path / "admin").write_text(ADMIN)
    (tmp_path / "milvus-token").write_text("milvus-file-secret")
    return {
        "RECALL_TOKEN_FILE": str(token_file),
        "RECALL_ADMIN_TOKEN_FILE": str(tmp_path / "admin"),
        "RECALL_MILVUS_TOKEN_FILE": str(tmp_path / "milvus-token"),
        "RECALL_TLS_CERT": str(files.cert),
        "RECALL_TLS_KEY": str(files.key),
        "RECALL_LOG_LEVEL": "DEBUG",
    }  # fmt: skip


@pytest.mark.parametrize("answers", [False, True])
def test_no_log_shows_a_secret(
    secrets: dict[str, str], answers: bool, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    milvus = "http://127.0.0.1:9"
    if answers:
        milvus = request.getfixturevalue("milvus_server_uri")
        remove_item_collections(milvus)
        make_artifact(tmp_path / "artifacts")
        publish_here(milvus, tmp_path / "artifacts")
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    uri = milvus.replace("http://", "http://root:uri-password@")
    options = ("--search-timeout-ms", "500") if not answers else ()
    with running("--milvus-uri", uri, "--artifacts", str(tmp_path / "artifacts"), *options) as server:
        server.wait_for("serving model" if answers else "no Milvus answers at http://127.0.0.1:9")
        target = server.address.replace("127.0.0.1", "localhost")
        for token in (FIRST, "a-wrong-token-of-somebody"):
            with RecallClient(target, tls=files.ca, token=token, timeout_s=10) as client:
                with contextlib.suppress(RecallError):
                    client.recall([[1000]], top_k=5)
                with contextlib.suppress(RecallError):
                    client.drop_items("items_000000000000_00000000")
        assert server.stop() == 0
        log = "".join(server.log)
    assert "DEBUG" in log
    key = files.key.read_text().splitlines()[1]
    for secret in (FIRST, ADMIN, "a-wrong-token", "milvus-file-secret", "uri-password", key):
        assert secret not in log

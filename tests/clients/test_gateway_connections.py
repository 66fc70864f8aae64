"""What a client cannot do to the others of the gateway: hold connections, send slowly, send half a request."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from uvicorn.server import ServerState

from clients.gateway.connections import MAX_HEADER_BYTES, MAX_PIPELINED, BoundedProtocol, config_of
from clients.gateway.options import load_settings
from tests.canned_recall import CannedRecall, running
from tests.gateway import serving
from tests.waiting import until

HALF = b"POST /v1/recall HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le"
WITHOUT_BODY = b"POST /v1/recall HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def gateway(*options: str) -> Iterator[str]:
    with running(CannedRecall()) as target, serving("--server", target, *options) as url:
        yield url


def connected(url: str, sends: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """A connection from one of the addresses of this machine, on which something was sent."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60, source_address=(source, 0))
    connection.sendall(sends)
    return connection


def read(connection: socket.socket) -> str:
    """What the gateway sends until it closes the connection."""
    with connection, connection.makefile("rb") as answer:
        return answer.read().decode()


def test_a_thousand_half_requests_from_one_address_leave_room_for_the_others() -> None:
    with gateway("--max-connections-per-address", "300") as url, ExitStack() as stack:
        held = [stack.enter_context(connected(url, HALF, "127.0.0.2")) for _ in range(300)]
        refused = [read(connected(url, source="127.0.0.2")) for _ in range(700)]
        assert all(answer.startswith("HTTP/1.1 429 Too Many Requests\r\n") for answer in refused)
        assert httpx.get(f"{url}/v1/count", timeout=60).json()["count"] == "3706"
        held[0].close()
        last = HEALTHZ.replace(b"Host:", b"Connection: close\r\nHost:")
        while "429" in (answer := read(connected(url, last, "127.0.0.2"))):
            pass  # until the gateway has noticed
        assert answer.startswith("HTTP/1.1 200 OK")


def test_connections_are_limited_in_all() -> None:
    with gateway("--max-connections", "2") as url, connected(url), connected(url, source="127.0.0.2"):
        refused = read(connected(url, source="127.0.0.3"))
        assert refused.startswith("HTTP/1.1 503 Service Unavailable\r\n") and "Retry-After: 1" in refused


@pytest.mark.parametrize(("sends", "answer"), [(b"", ""), (HALF, "HTTP/1.1 408 Request Timeout")])
def test_headers_that_do_not_come_end_the_connection(sends: bytes, answer: str) -> None:
    with gateway("--header-timeout-s", "0.3") as url:
        assert read(connected(url, sends)).partition("\r\n")[0] == answer


def test_headers_of_a_later_request_that_do_not_come_end_the_connection() -> None:
    with gateway("--header-timeout-s", "0.3") as url:
        answers = read(connected(url, HEALTHZ + HEALTHZ + HALF))
        assert answers.count("HTTP/1.1 200 OK") == 2 and answers.count("HTTP/1.1 408 Request Timeout") == 1


def test_a_body_that_does_not_come_is_a_problem() -> None:
    with gateway("--body-timeout-s", "0.3") as url:
        head, _, body = read(connected(url, WITHOUT_BODY)).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(body)["reason"] == "BODY_TOO_SLOW" and "--body-timeout-s" in body


def test_a_call_that_takes_longer_than_headers_may_is_answered() -> None:
    servicer = CannedRecall()
    servicer.delay_s = 0.5
    with running(servicer) as target, serving("--server", target, "--header-timeout-s", "0.1") as url:
        assert httpx.post(f"{url}/v1/recall", json={"users": [{}], "top_k": 1}, timeout=60).status_code == 200


def test_as_many_files_may_be_open_as_the_system_permits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with gateway():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Transport(asyncio.Transport):
    """What a connection writes, and whether it hung up."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def silent(scope: object, receive: object, send: object) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def fed(*options: str) -> AsyncIterator[tuple[BoundedProtocol, Transport]]:
    """A connection of a gateway that never answers, and what it writes."""
    config = config_of(silent, load_settings(options))
    make: Any = config.http
    state = ServerState()
    protocol = make(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
    protocol.connection_made(transport := Transport())
    yield protocol, transport
    for task in state.tasks:
        task.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)
    protocol.connection_lost(None)


BEGIN = b"POST /v1/recall HTTP/1.1\r\nHost: 127.0.0.1\r\n"
CHUNKED = BEGIN + b"Transfer-Encoding: chunked\r\n\r\n"
LONGEST = MAX_HEADER_BYTES + 2 * 1000


@pytest.mark.parametrize(
    ("begins", "goes_on", "most", "answer"),
    [
        (b"GET /", b"x", MAX_HEADER_BYTES, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (BEGIN + b"X: ", b"x", MAX_HEADER_BYTES, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (BEGIN, b"a: bcd\r\n", MAX_HEADER_BYTES, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (CHUNKED + b"0\r\nX: ", b"x", LONGEST, b"HTTP/1.1 413 Content Too Large\r\n"),
        (CHUNKED + b"1;", b"x", LONGEST, b"HTTP/1.1 413 Content Too Large\r\n"),
    ],
)
async def test_a_request_without_end_ends_the_connection(
    begins: bytes, goes_on: bytes, most: int, answer: bytes
) -> None:
    async with fed("--max-body-bytes", "1000") as (protocol, transport):
        protocol.data_received(begins)
        protocol.data_received(goes_on * (most // len(goes_on)))
        assert not transport.written
        protocol.data_received(goes_on)
        assert transport.written.startswith(answer) and transport.closed


async def test_trailers_are_left_out() -> None:
    async with fed() as (protocol, _):
        protocol.data_received(CHUNKED + b"0\r\nX-Late: 1\r\n\r\n")
        assert [name for name, _ in protocol.headers] == [b"host", b"transfer-encoding"]


async def test_requests_that_wait_for_the_one_before_are_limited() -> None:
    async with fed() as (protocol, transport):
        protocol.data_received(HEALTHZ * (1 + MAX_PIPELINED))
        assert not transport.written
        protocol.data_received(HEALTHZ)
        assert transport.written.startswith(b"HTTP/1.1 400 Bad Request\r\n") and transport.closed


async def test_an_answer_must_be_read_in_time() -> None:
    async with fed("--answer-timeout-s", "0.05") as (protocol, transport):
        protocol.pause_writing()
        protocol.resume_writing()
        protocol.pause_writing()
        assert not transport.aborted
        await until(lambda: transport.aborted)

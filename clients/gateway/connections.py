"""Bounds the gateway's connections: how many there are, in total and from one address, and what one may cost.

A client that sends half a request and waits, or does not read an answer, would otherwise hold a connection forever; a
thousand such clients hold all connections. A client that sends headers without end would take all memory.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clients.gateway.settings import Settings

logger = logging.getLogger(__name__)

SPARE_FILES = 64
"""Open files that are kept for everything but connections: the recall servers, the page's files, the log."""
MAX_HEADER_BYTES = 64 * 1024
"""Maximum size of the first line and the headers of a request in bytes."""
MAX_PIPELINED = 16
"""Maximum number of requests that a client may send before it has the answer to the first."""


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    """The configuration of uvicorn. There is no access log, because it would contain what people search for."""
    most = _admit(settings.max_connections)
    limits = Limits(
        most,
        settings.max_connections_per_address,
        settings.header_timeout_s,
        settings.answer_timeout_s,
        # Chunks have a size each, and trailers may follow the body.
        MAX_HEADER_BYTES + 2 * settings.max_body_bytes,
    )
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, limits)),
        ws="none",
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        lifespan="on",
    )


def _admit(connections: int) -> int:
    """Allow as many open files as the system permits; how many of the connections that leaves room for."""
    try:
        import resource
    except ImportError:  # Windows
        return connections
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    room = connections if files == resource.RLIM_INFINITY else max(1, files - SPARE_FILES)
    if room < connections:
        logger.warning("this process may open %d files: %d connections instead of %d", files, room, connections)
    return min(connections, room)


@dataclass
class Limits:
    """The connections that are open, how many may be, and what one may cost."""

    most: int
    """Maximum number of connections."""
    most_of_one: int
    """Maximum number of connections from one address."""
    header_timeout_s: float
    """Seconds within which the headers of a request must come."""
    answer_timeout_s: float
    """Seconds within which an answer must be read."""
    max_request_bytes: int
    """Maximum size of a request as it is sent."""

    def __post_init__(self) -> None:
        """Count from zero."""
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> str:
        """Count a connection from an address; or give the status of its refusal, and do not."""
        if self._open[address] >= self.most_of_one:
            return "429 Too Many Requests"
        if self._open.total() >= self.most:
            return "503 Service Unavailable"
        self._open[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """A connection that was counted is closed."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class BoundedProtocol(HttpToolsProtocol):
    """HTTP on one connection, within the limits."""

    def __init__(self, limits: Limits, **arguments: Any) -> None:
        """The other arguments are uvicorn's."""
        super().__init__(**arguments)
        self._limits = limits
        self._address = ""
        self._counted = False
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._begun = False
        """Whether headers are being received."""
        self._whole = True
        """Whether no request is being received."""
        self._received = 0
        """Bytes of the request that is being received."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer that there are too many and close it."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # tells at once that the client does not read
        self._address = self.client[0] if self.client else ""
        status = self._limits.enter(self._address)
        if status:
            self._end(status)
        else:
            self._counted = True
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._counted:
            self._limits.leave(self._address)
        self._stop_waiting()
        self._all_is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what the client sends, unless the connection is being closed."""
        if self.transport.is_closing():
            return
        self._received += len(data)
        super().data_received(data)
        if self._begun and self._received > MAX_HEADER_BYTES:
            self._end("431 Request Header Fields Too Large")
        elif not self._whole and self._received > self._limits.max_request_bytes:
            self._end("413 Content Too Large")

    def pause_writing(self) -> None:
        """The client does not read."""
        self._all_is_read()
        self._unread = self.loop.call_later(self._limits.answer_timeout_s, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read all that was sent."""
        self._all_is_read()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """The first line of a request came."""
        self._begun, self._whole, self._received = True, False, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came, or a trailer after the body, which nobody needs."""
        if self._begun:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers came in time."""
        self._begun = False
        self._stop_waiting()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError(f"{len(self.pipeline)} requests wait, the limit is {MAX_PIPELINED}")  # it is answered 400
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of a request came."""
        self._whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The client may send another request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # a pipelined request has its headers
            self._expect_headers()

    def _expect_headers(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(self._limits.header_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting.cancel()

    def _all_is_read(self) -> None:
        if self._unread:
            self._unread.cancel()

    def _give_up(self) -> None:
        if self._begun:
            self._end("408 Request Timeout")
        else:  # an answer to nothing could be taken for that to the next request
            self.transport.close()

    def _end(self, status: str) -> None:
        headers = "Connection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
        self.transport.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        self.transport.close()

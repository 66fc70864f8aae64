"""Bounds the gateway's connections: how many there are, in all and from one address, and how long headers may take.

A client that sends half a request and waits would otherwise hold a connection for ever; a thousand of them hold all.
"""

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clients.gateway.settings import Settings

logger = logging.getLogger(__name__)

SPARE_FILES = 64
"""Open files that are kept for everything but connections: the recall servers, the page's files, the log."""


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    """The configuration of uvicorn. There is no access log, because it would contain what people search for."""
    most = _admit(settings.max_connections)
    limits = Limits(most, settings.max_connections_per_address, settings.header_timeout_s)
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


class Limits:
    """The connections that are open, and how many may be."""

    def __init__(self, most: int, most_of_one: int, header_timeout_s: float) -> None:
        """The arguments are the options `max_connections`, `max_connections_per_address` and `header_timeout_s`."""
        self._most, self._most_of_one = most, most_of_one
        self.header_timeout_s = header_timeout_s
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> str:
        """Count a connection from an address; or give the status of its refusal, and do not."""
        if self._open[address] >= self._most_of_one:
            return "429 Too Many Requests"
        if self._open.total() >= self._most:
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
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer that there are too many and close it."""
        super().connection_made(transport)
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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what the client sends, unless the connection is being closed."""
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """The first line of a request came."""
        self._begun = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers came in time."""
        self._begun = False
        self._stop_waiting()
        super().on_headers_complete()

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

    def _give_up(self) -> None:
        if self._begun:
            self._end("408 Request Timeout")
        else:  # an answer to nothing could be taken for that to the next request
            self.transport.close()

    def _end(self, status: str) -> None:
        headers = "Connection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
        self.transport.write(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())
        self.transport.close()

"""Unary gRPC calls over plain HTTP/2 (RFC 9113), bytes in and out, at a fraction of what a generated client costs.

On two shared cores a generated client takes as much as the server does for an empty call. Left out is what a
measurement on the loopback does not need: TLS, compression, metadata, retries, streams.
"""

import asyncio
import struct
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, cycle, repeat
from typing import Any

import grpc
from hpack import Decoder, Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
"""Types of frames (RFC 9113, section 6)."""
ACK, END_STREAM, END_HEADERS = 0x1, 0x1, 0x4
"""Flags of frames; the first is a SETTINGS' or a PING's."""
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
"""Settings (section 6.5.2)."""
CANCEL = 8
"""Code of a RST_STREAM (section 7)."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1
LARGEST_BODY = 16_384 - 5
"""Bytes of a request: it must fit into a frame of the default size."""

_FRAME = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
_STATUS = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}


class CallError(Exception):
    """A call has no answer; the message is the name of its gRPC status."""


class Channel:
    """Calls one method of one or several servers in turn; connects when it must."""

    def __init__(self, addresses: list[tuple[str, int]], path: str, timeout_s: float) -> None:
        """`path`: /package.Service/Method. `timeout_s`: the deadline of every call."""
        self._turns = cycle(range(len(addresses)))
        self._addresses, self._path, self._timeout_s = addresses, path, timeout_s
        self._connections: dict[int, Connection] = {}
        self._connecting = asyncio.Lock()

    async def __call__(self, body: bytes) -> bytes:
        """The answer. Raises CallError; ValueError for more than LARGEST_BODY bytes."""
        turn = next(self._turns)
        connection = self._connections.get(turn)
        if not connection or connection.closed:
            connection = await self._connect(turn)
        return await connection.call(body)

    async def _connect(self, turn: int) -> "Connection":
        host, port = self._addresses[turn]
        async with self._connecting:
            connection = self._connections.get(turn)
            if not connection or connection.closed:
                connection = Connection(self._path, f"{host}:{port}", self._timeout_s)
                try:
                    await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
                except OSError as error:
                    raise CallError("UNAVAILABLE") from error
                self._connections[turn] = connection
        return connection

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections.values():
            connection.close()


@dataclass(slots=True, eq=False)
class _Call:
    message: bytes
    answer: asyncio.Future[bytes]
    stream: int = 0
    """0 until it is sent."""
    parts: list[bytes] = field(default_factory=list)
    """Of the answer, as far as it is here."""


class Connection(asyncio.Protocol):
    """One connection with as many calls at a time as the server allows."""

    def __init__(self, path: str, authority: str, timeout_s: float) -> None:
        """See `Channel`."""
        self.closed = False
        """Whether it takes no more calls."""
        self._timeout_s = timeout_s
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{max(1, int(timeout_s * 1000))}m"),
        ]
        encoder = Encoder()
        self._headers = chain([encoder.encode(fields)], repeat(encoder.encode(fields)))
        """Of the first call, which puts the fields into the server's table, and of those that name them there."""
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._waiting: deque[_Call] = deque()
        """Calls that the server's limits hold back."""
        self._most_calls, self._window = 0, DEFAULT_WINDOW
        """Nothing is sent before the server tells its limits: it refuses calls beyond them."""
        self._received = 0
        self._rest = b""

    def call(self, body: bytes) -> asyncio.Future[bytes]:
        """See `Channel.__call__`."""
        if len(body) > LARGEST_BODY:
            raise ValueError(f"a request of {len(body)} bytes, the limit is {LARGEST_BODY}")
        call = _Call(b"\0" + len(body).to_bytes(4) + body, self._loop.create_future())
        timer = self._loop.call_later(self._timeout_s, self._give_up, call)
        call.answer.add_done_callback(lambda _: timer.cancel())
        self._waiting.append(call)
        self._send_waiting()
        return call.answer

    def close(self) -> None:
        """Hang up; calls that have no answer fail."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce ourselves: answers may be as long as they like, and each block of headers stands for itself."""
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        self._unsent = [PREFACE]
        self._loop.call_soon(self._flush)
        settings = _SETTING.pack(HEADER_TABLE_SIZE, 0) + _SETTING.pack(INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        self._send(SETTINGS, 0, 0, settings)
        self._send(WINDOW_UPDATE, 0, 0, (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4))

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody will answer what is open."""
        self.closed = True
        for call in (*self._calls.values(), *self._waiting):
            _end(call, "UNAVAILABLE")

    def data_received(self, data: bytes) -> None:
        """Take what is whole, keep the rest."""
        data = self._rest + data if self._rest else data
        start, end = 0, len(data)
        while start + _FRAME.size <= end:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, start)
            payload = start + _FRAME.size
            after = payload + (high << 8 | low)
            if after > end:
                break
            self._take(kind, flags, stream, data[payload:after])
            start = after
        self._rest = data[start:]
        if self._waiting:
            self._send_waiting()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._acknowledge(len(payload))
            if call := self._calls.get(stream):
                call.parts.append(payload)
        elif kind == HEADERS:
            if flags & END_STREAM and (call := self._calls.pop(stream, None)):
                _end(call, _status(payload))
        elif kind == RST_STREAM:
            if call := self._calls.pop(stream, None):
                _end(call, "UNAVAILABLE")
        elif kind == SETTINGS and not flags & ACK:
            settings = dict(_SETTING.iter_unpack(payload))
            self._most_calls = settings.get(MAX_CONCURRENT_STREAMS, self._most_calls or LARGEST_WINDOW)
            self._send(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._send(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload)
        elif kind == GOAWAY:
            self.closed = True

    def _acknowledge(self, received: int) -> None:
        self._received += received
        if self._received > LARGEST_WINDOW // 2:
            self._send(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4))
            self._received = 0

    def _send_waiting(self) -> None:
        while self._waiting and len(self._calls) < self._most_calls and not self.closed:
            call = self._waiting[0]
            if len(call.message) > self._window:
                return
            self._waiting.popleft()
            if call.answer.done():
                continue  # it was given up
            call.stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._calls[call.stream] = call
            self._window -= len(call.message)
            self._send(HEADERS, END_HEADERS, call.stream, next(self._headers))
            self._send(DATA, END_STREAM, call.stream, call.message)

    def _send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        length = len(payload)
        if not self._unsent:
            self._loop.call_soon(self._flush)  # what is sent at the same time travels together
        self._unsent += _FRAME.pack(length >> 8, length & 0xFF, kind, flags, stream), payload

    def _flush(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _give_up(self, call: _Call) -> None:
        _end(call, "DEADLINE_EXCEEDED")
        if self._calls.pop(call.stream, None):
            self._send(RST_STREAM, 0, call.stream, CANCEL.to_bytes(4))


def _end(call: _Call, status: str) -> None:
    if call.answer.done():
        return  # its caller left
    if status == "OK":
        call.answer.set_result(b"".join(call.parts)[5:])
    else:
        call.answer.set_exception(CallError(status))


@lru_cache
def _status(trailers: bytes) -> str:
    fields = dict(Decoder().decode(trailers, raw=True))
    return _STATUS.get(fields.get(b"grpc-status", b""), "UNKNOWN")

"""Leaves requests half sent on one HTTP/2 connection, as no client of gRPC would, and prints what became of them.

python -m tests.faults.half_sent HOST:PORT /package.Service/Method NUMBER BYTES
"""

import json
import socket
import struct
import sys
import time
from collections import Counter

from hpack import Decoder, Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
"""Types of frames (RFC 9113, section 6)."""
ACK, END_STREAM, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE = 4
"""A setting (section 6.5.2)."""
FRAME, PART, WAIT_S, QUIET_S = 16_384, 262_144, 0.02, 5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CODES = {"4": "DEADLINE_EXCEEDED", "8": "RESOURCE_EXHAUSTED", "16": "UNAUTHENTICATED"}


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


class HalfSender:
    """A connection that keeps to the flow control of the server."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        self._rest = b""
        self._window = self._initial = 65_535
        self._windows: dict[int, int] = {}
        self._decoder, self._encoder = Decoder(), Encoder()
        self.ended: dict[int, str] = {}
        """Of each stream that the server ended, the status."""
        self.receive()

    def open(self, stream: int, path: str) -> None:
        """Begin a call."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "stranger")]
        fields += [("te", "trailers"), ("content-type", "application/grpc")]
        self._windows[stream] = self._initial
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, self._encoder.encode(fields)))

    def send(self, stream: int, body: bytes) -> int:
        """Send as much as the server admits; the number of bytes."""
        sent = 0
        while sent < len(body) and stream not in self.ended:
            size = min(FRAME, len(body) - sent, self._window, self._windows[stream])
            if size <= 0:
                break
            self._socket.sendall(frame(DATA, 0, stream, body[sent : sent + size]))
            sent += size
            self._window -= size
            self._windows[stream] -= size
        return sent

    def receive(self) -> None:
        """Read what the server sends until it pauses."""
        self._socket.settimeout(WAIT_S)
        try:
            while received := self._socket.recv(1 << 20):
                self._rest += received
                while len(self._rest) >= 9 and len(self._rest) >= (end := 9 + int.from_bytes(self._rest[:3])):
                    kind, flags, stream = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9])
                    body, self._rest = self._rest[9:end], self._rest[end:]
                    self._take(kind, flags, stream, body)
        except TimeoutError:
            pass
        finally:
            self._socket.settimeout(60)

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(body), 6):
                name, value = struct.unpack_from(">HI", body, at)
                if name == INITIAL_WINDOW_SIZE:
                    self._windows = {each: window + value - self._initial for each, window in self._windows.items()}
                    self._initial = value
            self._socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, body))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(body)
            if stream:
                self._windows[stream] = self._windows.get(stream, 0) + more
            else:
                self._window += more
        elif kind == HEADERS:
            status = dict(self._decoder.decode(body)).get("grpc-status")
            if flags & END_STREAM:
                self.ended[stream] = _CODES.get(str(status), f"status {status}")
        elif kind == RST_STREAM:
            self.ended.setdefault(stream, "reset")


def main(address: str, path: str, number: int, size: int) -> None:
    """Send all but the end of some requests, wait a little, and print what the server did with them."""
    host, _, port = address.rpartition(":")
    connection = HalfSender(host, int(port))
    request = b"\0" + (size + 1).to_bytes(4) + b"x" * size
    sent = {1 + 2 * each: 0 for each in range(number)}
    for stream in sent:
        connection.open(stream, path)
    moved_at = time.monotonic()
    while time.monotonic() - moved_at < QUIET_S:
        for stream, at in sent.items():
            sent[stream] += (moved := connection.send(stream, request[at : at + PART]))
            if moved:
                moved_at = time.monotonic()
        connection.receive()
    outcomes = Counter(connection.ended.get(stream, "held") for stream in sent)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

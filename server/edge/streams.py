"""Limits the streams that callers without a token may keep open: health and reflection."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import OverloadedError

MAX_STREAMS = 1_000
"""Maximum number of streams in total."""
MAX_STREAMS_PER_CONNECTION = 16
"""Maximum number of streams of one connection. A client needs one for each service that it watches."""
RETRY_AFTER_MS = 1_000
"""Time in milliseconds after which a refused caller should retry."""


class Streams:
    """Counts open streams."""

    def __init__(self) -> None:
        """Start with no streams."""
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, connection: str) -> Iterator[None]:
        """Count a stream of a connection (`context.peer()`) while it is open. Raises OverloadedError."""
        if self._open[connection] >= MAX_STREAMS_PER_CONNECTION:
            message = f"{MAX_STREAMS_PER_CONNECTION} streams of this connection are open, the limit"
            raise OverloadedError(message, RETRY_AFTER_MS)
        if self._open.total() >= MAX_STREAMS:
            raise OverloadedError(f"{MAX_STREAMS} streams are open, the limit", RETRY_AFTER_MS)
        self._open[connection] += 1
        try:
            yield
        finally:
            self._open[connection] -= 1
            if not self._open[connection]:
                del self._open[connection]

"""Receives requests: bounds how many are on their way at once, for how long, and how much is in memory.

gRPC by itself receives a whole request before a service sees the call. A caller without a token could so leave
thousands of half-sent requests of some megabytes in memory. Here a call is admitted first, then its request is
received.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from server.errors import DeadlineExceededError, InvalidRequestError, OverloadedError

MAX_ARRIVING_OF_STRANGERS = 64
"""Maximum number of requests that are on their way to health and reflection, which need no token."""
MAX_REQUEST_BYTES_OF_STRANGERS = 1_024
"""Maximum size of a request to health and reflection in bytes. An answer of reflection repeats the request."""
RECEIVE_TIMEOUT_S = 10.0
"""Seconds within which a request must be there once its call was admitted."""
GRACE_S = 1.0
"""Seconds for which a request that is on its way keeps its place although others want it."""
REQUESTS_IN_MEMORY = 16
"""Maximum size of all requests that are being answered, in requests of the maximum size."""
RETRY_AFTER_MS = 50
"""Milliseconds after which a caller that was turned away should come back."""

Context = grpc.aio.ServicerContext[Any, Any]


class Receiver:
    """Receives the requests of some services."""

    def __init__(self, max_arriving: int, max_request_bytes: int) -> None:
        """`max_arriving`: of requests on their way at once; `max_request_bytes`: the maximum size of one."""
        self._max_arriving = max_arriving
        self._max_request_bytes = max_request_bytes
        self._max_bytes = REQUESTS_IN_MEMORY * max_request_bytes
        self._arriving: dict[asyncio.Task[Any], float] = {}
        """Tasks whose requests are on their way, the oldest first, and since when."""
        self._given_up: dict[asyncio.Task[Any], Exception] = {}
        """Tasks that were cancelled because their requests did not come, and what their callers are told."""
        self._looking: asyncio.TimerHandle | None = None
        """One timer for all requests, for the oldest: a timer for each would cost 15 µs of 200 for an empty call."""
        self._bytes = 0

    async def receive(self, context: Context) -> bytes | None:
        """The next request of a call; None if the caller sends no more.

        Raises:
            OverloadedError: too many are on their way, this one or others.
            DeadlineExceededError: it was not there in time.
            InvalidRequestError: it is too large. gRPC admits what is small enough for the other services.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - gRPC calls every method in a task
        now = loop.time()
        if len(self._arriving) >= self._max_arriving:
            self._give_up_the_oldest(now)
        self._arriving[task] = now
        if self._looking is None:
            self._looking = loop.call_later(RECEIVE_TIMEOUT_S, self._look)
        try:
            request: Any = await context.read()
        except asyncio.CancelledError:
            error = self._given_up.get(task)
            if error is None or task.uncancel() > 0:  # the caller left
                raise
            raise error from None
        finally:
            self._arriving.pop(task, None)
            self._given_up.pop(task, None)
        if request is grpc.aio.EOF:
            return None
        if len(request) > self._max_request_bytes:
            why = f"has {len(request)} bytes, the limit is {self._max_request_bytes}"
            raise InvalidRequestError("request", why, "REQUEST_TOO_LONG")
        return bytes(request)

    @contextmanager
    def in_memory(self, size: int) -> Iterator[None]:
        """Count a request of some bytes while it is being answered. Raises OverloadedError."""
        if self._bytes + size > self._max_bytes:
            message = f"has {size} bytes, those in progress {self._bytes}, the limit is {self._max_bytes} in all"
            raise OverloadedError(f"request: {message}", RETRY_AFTER_MS)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def _look(self) -> None:
        """Give up requests that take too long, and look again when the next one would."""
        self._looking = None
        loop = asyncio.get_running_loop()
        while self._arriving:
            task, since = next(iter(self._arriving.items()))
            if (left_s := since + RECEIVE_TIMEOUT_S - loop.time()) > 0:
                self._looking = loop.call_later(left_s, self._look)
                break
            self._give_up(task, DeadlineExceededError(f"the request was not there after {RECEIVE_TIMEOUT_S:g} s"))

    def _give_up_the_oldest(self, now: float) -> None:
        task, since = next(iter(self._arriving.items()))
        if now - since < GRACE_S:
            raise self._too_many("")
        self._give_up(task, self._too_many("; this one took longest to come"))

    def _give_up(self, task: asyncio.Task[Any], error: Exception) -> None:
        del self._arriving[task]
        self._given_up[task] = error
        task.cancel()

    def _too_many(self, why: str) -> OverloadedError:
        return OverloadedError(f"{self._max_arriving} requests are on their way, the limit{why}", RETRY_AFTER_MS)


def only_request(received: bytes | None, kind: str) -> bytes:
    """The request of a call that has exactly one. Raises InvalidRequestError if there is none."""
    if received is None:
        raise InvalidRequestError("request", f"the call has none; it needs one {kind}", "MALFORMED")
    return received

"""Receives the requests of calls. Limits their number, their time to arrive, and their memory.

By itself, gRPC receives a whole request before a service sees the call. So a caller without a token could leave
thousands of half-sent requests of some megabytes in memory. Here a call is admitted first, and its request is received
afterwards.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from server.errors import DeadlineExceededError, InvalidRequestError, OverloadedError

MAX_ARRIVING_OF_STRANGERS = 64
"""Maximum number of requests to health and reflection that arrive at the same time. These services need no token."""
MAX_REQUEST_BYTES_OF_STRANGERS = 1_024
"""Maximum size of a request to health and reflection in bytes. An answer of reflection repeats the request."""
RECEIVE_TIMEOUT_S = 10.0
"""Maximum time in seconds for a request to arrive after its call was admitted."""
GRACE_S = 1.0
"""Minimum time in seconds for which an arriving request keeps its place when other calls need it."""
REQUESTS_IN_MEMORY = 16
"""Maximum total size of all requests that are being answered, as a multiple of the maximum size of one."""
RETRY_AFTER_MS = 50
"""Time in milliseconds after which a refused caller should retry."""

Context = grpc.aio.ServicerContext[Any, Any]


class Receiver:
    """Receives the requests of one or more services."""

    def __init__(self, max_arriving: int, max_request_bytes: int) -> None:
        """Start without requests.

        `max_arriving`: maximum number that arrive at a time; `max_request_bytes`: maximum size of one.
        """
        self._max_arriving = max_arriving
        self._max_request_bytes = max_request_bytes
        self._max_bytes = REQUESTS_IN_MEMORY * max_request_bytes
        self._arriving: dict[asyncio.Task[Any], float] = {}
        """The tasks whose requests are arriving, oldest first, with their start times."""
        self._given_up: dict[asyncio.Task[Any], Exception] = {}
        """The tasks that were cancelled because their requests did not arrive, with the errors for their callers."""
        self._looking: asyncio.TimerHandle | None = None
        """One timer for the oldest of all requests. A timer for each request would cost 15 of the 200 µs of an empty
        call.
        """
        self._bytes = 0

    async def receive(self, context: Context) -> bytes | None:
        """Return the next request of a call, or None if the caller sends no more.

        Raises:
            OverloadedError: too many requests are arriving, and this one was refused or gave up its place.
            DeadlineExceededError: the request did not arrive in time.
            InvalidRequestError: the request is too large. gRPC's own limit is higher, because other services share it.
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
        """Count the size of a request while it is being answered. Raises OverloadedError."""
        if self._bytes + size > self._max_bytes:
            message = f"has {size} bytes, those in progress {self._bytes}, the limit is {self._max_bytes} in all"
            raise OverloadedError(f"request: {message}", RETRY_AFTER_MS)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    def _look(self) -> None:
        """Cancel requests that take too long, and start the timer for the next one."""
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
    """Return the request of a call that must have exactly one. Raises InvalidRequestError if there is none."""
    if received is None:
        raise InvalidRequestError("request", f"the call has none; it needs one {kind}", "MALFORMED")
    return received

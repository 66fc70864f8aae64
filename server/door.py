"""The door: where callers are turned away, and the one place where our exceptions become gRPC statuses.

Callers are turned away when too much is in progress (grpc.aio's own maximum_concurrent_rpcs is unreliable), and while
the server stops: what gRPC has received and not yet handed over when it shuts down is answered with a bare CANCELLED.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from server.errors import (
    CollectionGoneError,
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RefusedError,
    ReleaseRefusedError,
    ServerError,
    StoppingError,
    StoreUnavailableError,
    UnauthenticatedError,
    UsersDisabledError,
    UserVectorsIncompleteError,
)

logger = logging.getLogger(__name__)

DOMAIN = "recall.v1"
"""google.rpc.ErrorInfo.domain."""
REASON_KEY = "error-reason"
"""Trailing metadata key that repeats ErrorInfo.reason for callers without google.rpc types."""
RETRY_AFTER_MS = 50
"""When a caller that was turned away should come back."""
CLOSING_S = 0.25
"""Shortest time that a stopping server still says so to callers."""

_CODES: dict[type[ServerError], int] = {
    InvalidRequestError: code_pb2.INVALID_ARGUMENT,
    OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    DeadlineExceededError: code_pb2.DEADLINE_EXCEEDED,
    UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    RefusedError: code_pb2.FAILED_PRECONDITION,
    ReleaseRefusedError: code_pb2.FAILED_PRECONDITION,
    CollectionGoneError: code_pb2.FAILED_PRECONDITION,
    UserVectorsIncompleteError: code_pb2.FAILED_PRECONDITION,
    UsersDisabledError: code_pb2.UNIMPLEMENTED,
    NotReadyError: code_pb2.UNAVAILABLE,
    StoppingError: code_pb2.UNAVAILABLE,
    StoreUnavailableError: code_pb2.UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]
Service = TypeVar("Service")


class Door:
    """Stands before every method of our own services."""

    def __init__(self, max_concurrent_requests: int) -> None:
        """`max_concurrent_requests`: counted calls in progress at once."""
        self._limit = max_concurrent_requests
        self._in_progress = 0
        self._closing = False

    def guard(self, service: Service, methods: ServiceDescriptor, counted: bool) -> Service:
        """The same servicer with its methods guarded; an interceptor would be asked anew at every call.

        Args:
            service: the servicer.
            methods: names them.
            counted: whether its calls count as in progress: they have a limit, and are waited for at the end.
        """
        for method in methods.methods:
            setattr(service, method.name, self._guard(getattr(service, method.name), method.full_name, counted))
        return service

    async def close(self, drain_s: float) -> None:
        """Turn new calls away, and wait for those in progress, `drain_s` seconds at most."""
        self._closing = True
        deadline = time.monotonic() + drain_s
        await asyncio.sleep(min(drain_s, CLOSING_S))  # callers that come now are told to go elsewhere
        while self._in_progress and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _guard(self, handle: Handler, method: str, counted: bool) -> Handler:
        async def guarded(request: Any, context: Context) -> Any:
            try:
                if self._closing:
                    raise StoppingError("the server is stopping; another one will answer")
                if counted and self._in_progress >= self._limit:
                    raise OverloadedError(f"{self._limit} requests are in progress, the limit", RETRY_AFTER_MS)
                self._in_progress += counted
                try:
                    return await handle(request, context)
                finally:
                    self._in_progress -= counted
            except ServerError as error:
                await abort(context, error)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception:
                logger.exception("%s failed", method)
                await abort(context, ServerError("internal error"))

        return guarded


async def abort(context: Context, error: ServerError) -> None:
    """End a call with the status of an exception. Always raises."""
    status = rpc_status.to_status(to_status(error))
    metadata = [*status.trailing_metadata, (REASON_KEY, error.reason)]
    if isinstance(error, OverloadedError):
        metadata.append(("grpc-retry-pushback-ms", str(error.retry_after_ms)))
    await context.abort(status.code, status.details, tuple(metadata))


def to_status(error: ServerError) -> status_pb2.Status:
    """google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they fit."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), code_pb2.INTERNAL)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=str(error), details=packed)

"""Admits or refuses calls, and turns our exceptions into gRPC statuses. No other module does that.

Calls are refused when too many are in progress (grpc.aio's own maximum_concurrent_rpcs is unreliable), and while the
server stops. Without this, calls that gRPC has received but not yet passed on would end as CANCELLED without a message.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mind.milvus.errors import FilterError
from server.edge.calls import Call, Calls, Metadata
from server.edge.receiving import RETRY_AFTER_MS, Receiver, only_request
from server.edge.tokens import Tokens
from server.edge.wire import decoder
from server.errors import (
    FAILURES,
    CollectionGoneError,
    DeadlineExceededError,
    DisabledError,
    Failure,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    RefusedError,
    ReleaseRefusedError,
    ServerError,
    StoppingError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnauthenticatedError,
    UserVectorsIncompleteError,
)
from server.serving.offload import computed
from server.settings import Settings

DOMAIN = "recall.v1"
"""The value of google.rpc.ErrorInfo.domain."""
REASON_KEY = "error-reason"
"""Trailing metadata key that repeats ErrorInfo.reason for callers without google.rpc types."""
MAX_MESSAGE_BYTES = 1_200
"""Maximum size of the message of a status. It is sent three times, encoded, and clients accept 8 KB of metadata."""
CLOSING_S = 0.1
"""Time in seconds for which a stopping server still answers that it stops. Our client's third attempt comes later."""

_CODES: dict[type[Failure], int] = {
    InvalidRequestError: code_pb2.INVALID_ARGUMENT,
    OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    DeadlineExceededError: code_pb2.DEADLINE_EXCEEDED,
    UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    DisabledError: code_pb2.UNIMPLEMENTED,
    RefusedError: code_pb2.FAILED_PRECONDITION,
    ReleaseRefusedError: code_pb2.FAILED_PRECONDITION,
    CollectionGoneError: code_pb2.FAILED_PRECONDITION,
    UserVectorsIncompleteError: code_pb2.FAILED_PRECONDITION,
    NotReadyError: code_pb2.UNAVAILABLE,
    StoppingError: code_pb2.UNAVAILABLE,
    StoreUnavailableError: code_pb2.UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]
Service = TypeVar("Service")


class Door:
    """Guards every method of our own services."""

    def __init__(self, limits: Settings, calls: Calls) -> None:
        """Prepare the door. `calls` follows every call."""
        self._limit = limits.max_concurrent_requests
        self._max_users = limits.max_users
        self._receiver = Receiver(limits.max_concurrent_requests, limits.max_request_bytes)
        self._calls = calls
        self._in_progress = 0
        self._closing = False

    @property
    def in_progress(self) -> int:
        """Return the number of counted calls in progress."""
        return self._in_progress

    def guard(
        self, service: Service, methods: ServiceDescriptor, counted: bool, tokens: Tokens | None = None
    ) -> Service:
        """Return the servicer with guarded methods, which return bytes (`server.edge.wire.register`).

        This is not an interceptor, because gRPC would run an interceptor again for every call.

        Args:
            service: the servicer to guard.
            methods: the descriptors of its methods.
            counted: whether its calls count as in progress. Counted calls have a limit.
            tokens: the tokens, of which callers must send one; None admits every caller.
        """
        for method in methods.methods:
            setattr(service, method.name, self._guard(getattr(service, method.name), method, counted, tokens))
        return service

    async def close(self) -> None:
        """Refuse new calls from now on. Return after `CLOSING_S`."""
        self._closing = True
        await asyncio.sleep(CLOSING_S)

    def _end(self, context: Any) -> None:
        self._in_progress -= 1

    def _check_room(self, counted: bool) -> None:
        if counted and self._in_progress >= self._limit:
            raise OverloadedError(f"{self._limit} requests are in progress, the limit", RETRY_AFTER_MS)

    def _guard(self, handle: Handler, method: MethodDescriptor, counted: bool, tokens: Tokens | None) -> Handler:
        answer = self._answering(handle, method, counted, tokens)

        async def guarded(_: object, context: Context) -> bytes:
            call = self._calls.begin(method.full_name, context)
            try:
                return await answer(call, context)
            except FAILURES as error:
                failure, also = _failed(call, error)
            except FilterError as error:
                failure, also = _failed(call, InvalidRequestError("filter", str(error), error.reason))
            except (grpc.aio.AbortError, asyncio.CancelledError):
                call.cancelled()
                raise
            except Exception as cause:
                failure, also = _failed(call, ServerError("internal error"), cause)
            return await abort(context, failure, also)

        return guarded

    def _answering(
        self, handle: Handler, method: MethodDescriptor, counted: bool, tokens: Tokens | None
    ) -> Callable[[Call, Context], Awaitable[bytes]]:
        decode = decoder(method, self._max_users)

        async def answering(call: Call, context: Context) -> bytes:
            if tokens:
                tokens.check(context.invocation_metadata() or ())
            if self._closing:
                raise StoppingError("the server is stopping; another one will answer")
            self._check_room(counted)
            received = only_request(await self._receiver.receive(context), method.input_type.full_name)
            self._check_room(counted)  # others may have come in the meantime
            if counted:
                self._in_progress += 1
                context.add_done_callback(self._end)  # type: ignore[arg-type]
            with self._receiver.in_memory(len(received)):
                request = await computed(len(received), decode, received)
                call.received(request)
                answer = await handle(request, context)
            call.done(answer)
            # Bytes, because an answer for a slow caller would otherwise be in memory twice, as message and as bytes.
            return bytes(answer.SerializeToString())

        return answering


def _failed(call: Call, failure: Failure, cause: Exception | None = None) -> tuple[Failure, Metadata]:
    also = call.failed(failure, code_of(failure), cause)
    return without_history(failure), also


def without_history(failure: Failure) -> Failure:
    """Return a failure without traceback and causes, whose frames would keep the request in memory."""
    failure.__context__ = failure.__cause__ = None
    return failure.with_traceback(None)


async def abort(context: Context, error: Failure, also: tuple[tuple[str, str], ...]) -> NoReturn:
    """End a call with the status of an exception, and with `also` as metadata. This function always raises."""
    status = rpc_status.to_status(to_status(error))
    metadata = [*status.trailing_metadata, (REASON_KEY, error.reason), *also]
    if isinstance(error, OverloadedError):
        metadata.append(("grpc-retry-pushback-ms", str(error.retry_after_ms)))
    if isinstance(error, StoreTimeoutError):
        metadata.append(("grpc-retry-pushback-ms", "-1"))  # tells gRPC clients not to retry
    await context.abort(status.code, status.details, tuple(metadata))


def code_of(error: Failure) -> str:
    """Return gRPC's name of the status for an exception."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), code_pb2.INTERNAL)
    return str(code_pb2.Code.Name(code))


def to_status(error: Failure) -> status_pb2.Status:
    """Make a google.rpc.Status with ErrorInfo, and with BadRequest or RetryInfo if they apply."""
    code, message = code_pb2.Code.Value(code_of(error)), _shortened(str(error))
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def _shortened(message: str) -> str:
    """Shorten a message, which may quote what the caller sent."""
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[:MAX_MESSAGE_BYTES].decode(errors="ignore") + "..."

"""What a call can come back with instead of an answer. The only place that reads a gRPC error.

RecallError                   anything else; `code` tells
├── InvalidRequestError       the request breaks a limit or does not parse; the same request fails again
├── UnauthenticatedError      token missing, wrong or not allowed to do this
├── PreconditionError         the server, the release or the stored users are in the wrong state; somebody must act
├── DeadlineExceededError     `timeout_s` passed before the answer came
└── UnavailableError          no server reached; try again later
    └── OverloadedError       the server refused work; try again after `retry_after_s`
"""

from typing import Any

import grpc


class RecallError(Exception):
    """A failed call.

    `reason` is the server's stable word for programs, empty when the call never reached a server.
    `retry_after_s` is the pause that the server asked for, None when it asked for none.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(code, message, reason, retry_after_s)
        self.code = code
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} [{self.reason or self.code.name}]"


class InvalidRequestError(RecallError):
    """The request breaks a limit or does not parse."""


class UnauthenticatedError(RecallError):
    """Token missing, wrong or not allowed to do this."""


class PreconditionError(RecallError):
    """The server, the release or the stored users are in the wrong state for the call; somebody must act."""


class DeadlineExceededError(RecallError):
    """`timeout_s` passed before the answer came."""


class UnavailableError(RecallError):
    """No server reached, or none that can answer now: try again."""


class OverloadedError(UnavailableError):
    """The server refused work it could not do in time."""


_ERROR_OF_CODE: dict[grpc.StatusCode, type[RecallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: UnauthenticatedError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
}


def from_rpc_error(error: grpc.RpcError) -> RecallError:
    """Our exception for a `grpc.RpcError` of either API; `grpc.aio.AioRpcError` is one too."""
    trailing: Any = error.trailing_metadata() or ()
    metadata = dict(iter(trailing))  # grpc.aio's Metadata looks like a mapping, but dict() of it fails on grpcio 1.75
    kind = _ERROR_OF_CODE.get(error.code(), RecallError)
    details = error.details() or ""
    if kind is OverloadedError and "larger than max" in details:
        kind = InvalidRequestError  # gRPC's own word for a message over the size limit: no retry will help
    return kind(
        error.code(),
        details,
        metadata.get("error-reason", ""),
        _pushback_s(metadata.get("grpc-retry-pushback-ms", "")),
    )


def _pushback_s(pushback_ms: str) -> float | None:
    """Seconds of a gRPC pushback; None when there is none or, being negative, it forbids a retry."""
    return int(pushback_ms) / 1000 if pushback_ms.isdecimal() else None

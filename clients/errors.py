"""What a call can come back with instead of an answer. The only place that reads a gRPC error.

RecallError                   anything else; `code` tells
├── InvalidRequestError       the request breaks a limit or does not parse; the same request fails again
├── UnauthenticatedError      token missing, wrong or not allowed to do this
├── PreconditionError         the server, the release or the stored users are in the wrong state; somebody must act
├── DeadlineExceededError     `timeout_s` passed before the answer came
└── UnavailableError          no server reached; try again later
    └── OverloadedError       the server refused work; try again after `retry_after_s`
"""

import re
from typing import Any

import grpc


class RecallError(Exception):
    """A call failed.

    `code` is the gRPC status and `message` says what is wrong. `reason` is a stable word of the server for programs; it
    is empty if the call reached no server. `retry_after_s` is the pause in seconds that the server asks for, or None.
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
    """The request breaks a limit or cannot be parsed. The same request fails again."""


class UnauthenticatedError(RecallError):
    """The token is missing, is wrong, or does not allow this call."""


class PreconditionError(RecallError):
    """The server, the release or the stored users are in the wrong state for this call. An operator must act."""


class DeadlineExceededError(RecallError):
    """The answer did not come within `timeout_s`."""


class UnavailableError(RecallError):
    """No server was reached, or none can answer now. Try again later."""


class OverloadedError(UnavailableError):
    """The server refused the call because it could not answer in time. Try again after `retry_after_s`."""


_ERROR_OF_CODE: dict[grpc.StatusCode, type[RecallError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: UnauthenticatedError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
}


_CAUSES = (
    r"connection refused|no route to host|network is unreachable|connection timed out|name or service not known",
    r"dns resolution failed|domain name not found|http proxy returned response code \d+",
    r"failed to connect to (all addresses|remote host)",
)
"""What gRPC says of a server that it cannot connect to, the most exact words first."""


def from_rpc_error(error: grpc.RpcError, target: str = "", proxy: str = "") -> RecallError:
    """Our exception for a `grpc.RpcError` of either API; `grpc.aio.AioRpcError` is one too.

    Args:
        error: what the call raised.
        target: where the call went; empty if that is not known.
        proxy: the variable of the environment with the proxy it went through, as `clients.proxies.proxy_of` gives it.
    """
    trailing: Any = error.trailing_metadata() or ()
    metadata = dict(iter(trailing))  # grpc.aio's Metadata looks like a mapping, but dict() of it fails on grpcio 1.75
    kind = _ERROR_OF_CODE.get(error.code(), RecallError)
    reason, details = metadata.get("error-reason", ""), error.details() or ""
    if kind is OverloadedError and "larger than max" in details:
        kind = InvalidRequestError  # gRPC's own word for a message over the size limit: no retry will help
    causes = (re.search(words, details, re.IGNORECASE) for words in _CAUSES)
    cause = next((found[0].lower() for found in causes if found), "")
    if kind is UnavailableError and not reason and target and cause:
        details = _unreached(target, cause, proxy)
    elif kind in (UnavailableError, DeadlineExceededError) and not reason and proxy:
        details = f"{details}; the call went through the proxy of {proxy}"
    return kind(error.code(), details, reason, _pushback_s(metadata.get("grpc-retry-pushback-ms", "")))


def _unreached(target: str, cause: str, proxy: str) -> str:
    """That no server was reached, why, and what to do."""
    if proxy:
        through = f"no server was reached at {target} through the proxy of {proxy} ({cause})"
        return f"{through}; no_proxy spares the hosts that it lists"
    return f"no server answers at {target} ({cause}); `python -m server --listen HOST:PORT` starts one"


def _pushback_s(pushback_ms: str) -> float | None:
    """Seconds of a gRPC pushback; None when there is none or, being negative, it forbids a retry."""
    return int(pushback_ms) / 1000 if pushback_ms.isdecimal() else None

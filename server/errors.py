"""The errors of serving. Only `server.edge.door` knows the gRPC status of each.

ServerError
├── InvalidRequestError        the request breaks a limit or its filter cannot be used
├── OverloadedError            too much is in progress; retry later
├── DeadlineExceededError      the caller's deadline passed
├── UnauthenticatedError       the call has no valid token
├── DisabledError              the method is turned off
├── RefusedError               an admin call would drop the released collection
├── UserVectorsIncompleteError not all remembered users are encoded with this model yet
├── NotReadyError              no release has been loaded yet
├── StoppingError              the server is stopping
└── ReleaseRefusedError        a release fails a check; the previous release stays in use

Failures of Milvus are a `StoreError` (`mind.milvus.errors`).
"""

from mind.milvus.errors import CollectionGoneError, StoreError, StoreTimeoutError, StoreUnavailableError

__all__ = ["CollectionGoneError", "StoreError", "StoreTimeoutError", "StoreUnavailableError"]


class ServerError(Exception):
    """An error of serving. `str()` is for people, `reason` is stable and for programs (google.rpc.ErrorInfo)."""

    reason = "INTERNAL"


class InvalidRequestError(ServerError):
    """The request breaks a limit or its filter cannot be used."""

    def __init__(self, field: str, message: str, reason: str) -> None:
        """Make the error.

        `field` is the path in the request, such as `users[3].hist_item`; the message has value and limit.
        """
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = reason


class OverloadedError(ServerError):
    """Too much is in progress. The caller should retry later."""

    reason = "OVERLOADED"

    def __init__(self, message: str, retry_after_ms: int) -> None:
        """Make the error. `retry_after_ms` is the time after which a retry will probably be accepted."""
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class DeadlineExceededError(ServerError):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class UnauthenticatedError(ServerError):
    """The call has no valid token."""

    def __init__(self, message: str, reason: str) -> None:
        """Make the error. `reason` tells which token is missing: TOKEN or ADMIN_TOKEN."""
        super().__init__(message)
        self.reason = reason


class DisabledError(ServerError):
    """The method is turned off."""

    def __init__(self, message: str, reason: str) -> None:
        """Make the error. `reason` tells what is turned off: EXPLAIN_OFF, USERS_DISABLED or FEEDBACK_DISABLED."""
        super().__init__(message)
        self.reason = reason


class RefusedError(ServerError):
    """An admin call would drop the released collection."""

    reason = "COLLECTION_IS_LIVE"


class UserVectorsIncompleteError(ServerError):
    """Not all remembered users are encoded with this model yet."""

    reason = "USER_VECTORS_INCOMPLETE"


class NotReadyError(ServerError):
    """No release has been loaded yet."""

    reason = "NOT_READY"


class StoppingError(ServerError):
    """The server is stopping."""

    reason = "STOPPING"


class ReleaseRefusedError(ServerError):
    """A release fails a check. The previous release stays in use."""

    reason = "RELEASE_REFUSED"


FAILURES = (ServerError, StoreError)
"""The exceptions to catch where a call may fail for a reason of ours or of Milvus."""
Failure = ServerError | StoreError
"""The type of these exceptions."""

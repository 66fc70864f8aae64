"""Python clients of the recall service. Needs grpcio and protobuf, nothing else.

The command line in this package needs the extra `cli`; importing the package does not.
"""

from clients.aio_client import AsyncRecallClient
from clients.attributes import attributes_of
from clients.core import RecallResult, channel_options
from clients.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    PreconditionError,
    RecallError,
    UnauthenticatedError,
    UnavailableError,
)
from clients.ids import ids_of
from clients.similar import SimilarItemsResult
from clients.statuses import ItemStatus, UserStatus
from clients.sync_client import RecallClient

__all__ = [
    "AsyncRecallClient",
    "DeadlineExceededError",
    "InvalidRequestError",
    "ItemStatus",
    "OverloadedError",
    "PreconditionError",
    "RecallClient",
    "RecallError",
    "RecallResult",
    "SimilarItemsResult",
    "UnauthenticatedError",
    "UnavailableError",
    "UserStatus",
    "attributes_of",
    "channel_options",
    "ids_of",
]

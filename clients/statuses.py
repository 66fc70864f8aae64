"""The statuses of users, and of queries for similar items, as names."""

from enum import IntEnum
from typing import Self

from protos.recall.v1 import recall_pb2


class _Status(IntEnum):
    """A status that prints as its name; a number that this client does not know prints as the number."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = str(value), value
        return member

    def __str__(self) -> str:
        return self.name


class UserStatus(_Status):
    """The status of a user, as a name: `UserStatus(result.status)` prints OK or UNKNOWN_USER.

    It equals the number in the contract and the constants of `recall_pb2`. A number that this client does not know
    prints as the number.
    """

    UNSPECIFIED = recall_pb2.USER_STATUS_UNSPECIFIED
    OK = recall_pb2.USER_STATUS_OK
    EMPTY_HISTORY = recall_pb2.USER_STATUS_EMPTY_HISTORY
    ALL_UNKNOWN = recall_pb2.USER_STATUS_ALL_UNKNOWN
    INVALID = recall_pb2.USER_STATUS_INVALID
    DEGRADED = recall_pb2.USER_STATUS_DEGRADED
    UNKNOWN_USER = recall_pb2.USER_STATUS_UNKNOWN_USER


class ItemStatus(_Status):
    """The status of a query for similar items, as a name, like `UserStatus`."""

    UNSPECIFIED = recall_pb2.ITEM_STATUS_UNSPECIFIED
    OK = recall_pb2.ITEM_STATUS_OK
    UNKNOWN = recall_pb2.ITEM_STATUS_UNKNOWN
    INVALID = recall_pb2.ITEM_STATUS_INVALID
    DEGRADED = recall_pb2.ITEM_STATUS_DEGRADED

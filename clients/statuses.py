"""The statuses of users as names."""

from enum import IntEnum
from typing import Self

from protos.recall.v1 import recall_pb2


class UserStatus(IntEnum):
    """A status of the contract that prints as its name: `UserStatus(result.status)` prints as OK or UNKNOWN_USER.

    It equals its number, and so the constants of `recall_pb2`. A number that only newer servers know prints as itself.
    """

    UNSPECIFIED = recall_pb2.USER_STATUS_UNSPECIFIED
    OK = recall_pb2.USER_STATUS_OK
    EMPTY_HISTORY = recall_pb2.USER_STATUS_EMPTY_HISTORY
    ALL_UNKNOWN = recall_pb2.USER_STATUS_ALL_UNKNOWN
    INVALID = recall_pb2.USER_STATUS_INVALID
    DEGRADED = recall_pb2.USER_STATUS_DEGRADED
    UNKNOWN_USER = recall_pb2.USER_STATUS_UNKNOWN_USER

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = str(value), value
        return member

    def __str__(self) -> str:
        return self.name

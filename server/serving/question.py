"""What a caller asks for, as plain values that have been checked. Knows nothing of protobuf."""

from dataclasses import dataclass
from enum import IntEnum

from mind.sequences import Int64


class Strategy(IntEnum):
    """How places are given; the numbers are those of recall.v1.MergeStrategy."""

    BEST_SCORE = 1
    ROUND_ROBIN = 2


@dataclass(frozen=True)
class UserQuery:
    """One user of a batch."""

    hist_item: Int64
    """[n] int64 external ids, oldest first."""
    exclude: Int64
    """[m] int64 external ids."""
    invalid: str = ""
    """Which limit this user's data breaks; such a user is left alone."""
    user_id: str = ""
    """Of a remembered user whose stored history is wanted; empty if hist_item was given."""
    unknown: bool = False
    """Whether nobody of this user_id is remembered."""
    unread: str = ""
    """Why the stored history could not be read, of a user who gets the popular list instead."""


@dataclass(frozen=True)
class Query:
    """A valid request."""

    users: list[UserQuery]
    top_k: int
    filter: str
    """Canonical (`server.serving.filter`); empty without one."""
    exclude_history: bool
    strategy: Strategy

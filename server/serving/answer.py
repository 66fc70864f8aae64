"""What a caller gets: the candidates of each user, how they came about and how long it took, as plain values."""

from dataclasses import dataclass
from enum import IntEnum

from mind.artifact import Float32
from mind.hits import Hits
from mind.sequences import Int64


class Status(IntEnum):
    """What became of a user; the numbers are those of recall.v1.UserStatus."""

    OK = 1
    EMPTY_HISTORY = 2
    ALL_UNKNOWN = 3
    INVALID = 4
    DEGRADED = 5
    UNKNOWN_USER = 6


FALLBACK = (Status.EMPTY_HISTORY, Status.ALL_UNKNOWN, Status.DEGRADED, Status.UNKNOWN_USER)
"""Of users whose candidates are the popular list."""


@dataclass(frozen=True)
class UserResult:
    """One user's candidates, best first; the three arrays are parallel."""

    item_ids: Int64
    scores: Float32
    interest: Int64
    status: Status
    unknown: Int64
    """History entries that the model does not know, repeats included."""
    detail: str = ""

    @property
    def fallback(self) -> bool:
        """Whether the candidates are the popular list."""
        return self.status in FALLBACK


@dataclass(frozen=True)
class Trace:
    """The steps behind a batch of one user, for Explain."""

    used_hist_item: Int64
    """What the model looked at, oldest first."""
    interest_vectors: Float32
    """[Q, D], those that were searched."""
    interest: Int64
    """[Q], their numbers."""
    hits: Hits
    fate: Int64
    """[H], the `Fate` of each hit."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds."""

    queue_ms: float
    encode_ms: float
    search_ms: float
    merge_ms: float

    @property
    def total_ms(self) -> float:
        """All of it."""
        return self.queue_ms + self.encode_ms + self.search_ms + self.merge_ms


@dataclass(frozen=True)
class Outcome:
    """The answer to a query."""

    results: list[UserResult]
    timings: Timings
    trace: Trace | None
    """Of a query that was to be explained."""

"""What a caller gets, as plain values: the candidates of each user, how they were found and how long it took."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from mind.artifact import Float32
from mind.hits import Hits
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.serving.merge import NearHits
from server.serving.question import Boost


class Status(IntEnum):
    """How a user was answered; the numbers are those of recall.v1.UserStatus."""

    OK = 1
    EMPTY_HISTORY = 2
    ALL_UNKNOWN = 3
    INVALID = 4
    DEGRADED = 5
    UNKNOWN_USER = 6


FALLBACK = (Status.EMPTY_HISTORY, Status.ALL_UNKNOWN, Status.DEGRADED, Status.UNKNOWN_USER)
"""Statuses of users who get the popular list, unless the candidates are their own."""


@dataclass(frozen=True)
class UserResult:
    """One user's candidates, best first; the three arrays are parallel."""

    item_ids: Int64
    """[n] int64 external ids."""
    scores: Float32
    """[n] float32, inner products, or shares of interactions in the popular list."""
    interest: Int64
    """[n] int64, the interest that found the item; -1 in the popular list."""
    status: Status
    unknown: Int64
    """History entries that the model does not know, repeats included."""
    detail: str = ""
    """What a person may want to know about the status, or about a short list; may be empty."""
    cut_short: bool = False
    """Whether so many hits were excluded that a deeper search may find more."""
    source: Int64 | None = None
    """[n] int64, the `server.serving.merge.Source` of each; None where no neighbours were asked for."""
    added: Float32 | None = None
    """[n] float32, what boosts added to each score for its place; None without boosts."""
    interests: Float32 | None = None
    """[K, D] float32, the user's interests, where places are filled; None otherwise."""
    own: bool = False
    """Whether a user with the status DEGRADED has candidates that were found by the user's interests."""

    @property
    def fallback(self) -> bool:
        """Whether the candidates are the popular list."""
        return self.status in FALLBACK and not self.own


@dataclass(frozen=True)
class Trace:
    """The steps to the answer of a batch of one user, for Explain."""

    used_hist_item: Int64
    """[n] int64, the history entries that the model looked at, oldest first."""
    interest_vectors: Float32
    """[Q, D] float32, the interests that were searched."""
    click_weights: Float32
    """[Q, n] float32, how much each of these history entries made each of these interests: shares of 1."""
    interest: Int64
    """[Q] int64, the numbers of these interests."""
    hits: Hits
    """The hits of each of them."""
    near: NearHits
    """The neighbours of the newest clicks; none where they were not asked for."""
    fate: Int64
    """[H + P] int64, the `server.serving.merge.Fate` of each hit, those of the search first."""
    capped_by: Mapping[str, Mask]
    """For each attribute of at_most, [H + P] bool, the hits that it dropped."""
    added: Float32 | None
    """[H + P] float32, what boosts add to each hit; None without boosts."""
    search: str
    """What searched, one of `server.watching.metrics.SEARCHES`."""


@dataclass(frozen=True)
class Timings:
    """How long each stage took, in milliseconds."""

    queue_ms: float
    encode_ms: float
    search_ms: float
    merge_ms: float

    def __add__(self, more: "Timings") -> "Timings":
        """The timings of two steps to one answer."""
        return Timings(
            self.queue_ms + more.queue_ms,
            self.encode_ms + more.encode_ms,
            self.search_ms + more.search_ms,
            self.merge_ms + more.merge_ms,
        )

    @property
    def total_ms(self) -> float:
        """The sum of all stages."""
        return self.queue_ms + self.encode_ms + self.search_ms + self.merge_ms


@dataclass(frozen=True)
class Outcome:
    """The answer to a query."""

    results: list[UserResult]
    timings: Timings
    trace: Trace | None
    """The steps; None unless they were asked for."""
    missing: str = ""
    """Which boosts are not applied, and why; often empty."""
    applied: Callable[[Int64], Sequence[tuple[Boost, Float32]]] = lambda _: ()
    """For Explain: gives the boosts that are applied, and what each adds to some items, [n] float32."""
    listed: bool = True
    """Whether users without a usable history have the popular list already."""

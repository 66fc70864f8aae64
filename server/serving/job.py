"""What waits for a batch: users of one query that are searched together."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from server.errors import StoreUnavailableError
from server.release import Release
from server.serving.depth import Depth
from server.serving.matching import Matches
from server.serving.question import Query
from server.serving.rules.lift import Lift


@dataclass(frozen=True)
class Job:
    """A query, or those of its users that one search finds candidates for, and what to answer it with."""

    release: Release
    query: Query
    explain: bool
    span: Any
    """Span of the call; None if it is not traced."""
    depths: Sequence[Depth] = ()
    """How deep to search for each user, all on one step."""
    matches: Matches | None = None
    """The items that match the filter; None without a filter."""
    lift: Lift | None = None
    """What boosts add to items; None without boosts."""
    missing: str = ""
    """Which boosts are not applied, and why; often empty."""
    failure: StoreUnavailableError | None = None
    """Why it is not known which items match, or which are boosted."""
    away: bool = False
    """Whether Milvus does not answer, so that the last known items are searched in memory."""
    matching_ms: float = 0.0
    """How long it took to find the items that match."""

    @property
    def search(self) -> str:
        """What searches for its users, one of `server.watching.metrics.SEARCHES`."""
        if self.away:
            return "local"
        return "milvus" if self.matches is None else "matches"

    @property
    def group(self) -> Hashable:
        """Jobs of one group are answered together: those of one search of Milvus, or those searched in memory."""
        if self.explain or self.failure or self.depths[0].deep:
            return id(self)
        lifted = self.lift is not None
        if self.away:
            return id(self.release), lifted, self.depths[0].whole
        return id(self.release), self.matches is None, lifted, *self.depths[0].kind

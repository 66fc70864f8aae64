"""What a caller asks for, as plain values that have been checked. This module knows nothing of protobuf."""

from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil

import numpy as np

from mind.sequences import Int64

_NOTHING = np.zeros(0, np.int64)


class Strategy(IntEnum):
    """How the candidates of a user's interests become one list; the numbers are those of recall.v1.MergeStrategy."""

    BEST_SCORE = 1
    ROUND_ROBIN = 2


@dataclass(frozen=True)
class UserQuery:
    """One user of a batch."""

    hist_item: Int64
    """[n] int64 external ids, oldest first."""
    exclude: Int64
    """[m] int64 external ids that must not be among the candidates."""
    invalid: str = ""
    """Which limit this user's data break; empty if none. An invalid user gets no candidates."""
    user_id: str = ""
    """A remembered user, whose stored history is wanted; empty if hist_item was given."""
    unknown: bool = False
    """Whether no user with this user_id is remembered."""
    unread: str = ""
    """Why the stored history could not be read; empty if it could. The user then gets the popular list."""
    shown_to: str = ""
    """The remembered user who must not get what was shown before; empty where that does not matter."""
    shown: Int64 = field(default_factory=lambda: _NOTHING)
    """[s] int64 external ids that count as shown to this user. They must not be among the candidates."""


POOL = 1.5
"""With diversity, candidates are chosen among so many times `top_k` of the best items of a user."""


@dataclass(frozen=True)
class Variety:
    """Rules that candidates of a user follow."""

    at_most: tuple[tuple[str, int], ...] = ()
    """Attributes, and how many candidates may share a value of each."""
    per_interest_min: int = 0
    """Candidates that each interest gets, if it has so many; 0 for no rule."""
    diversity: float = 0.0
    """How much candidates must differ (`server.serving.rules.diversity`), 0 to 1; 0 for no rule."""


ANY = Variety()
"""The request has no rules."""


@dataclass(frozen=True)
class Query:
    """A valid request."""

    users: list[UserQuery]
    top_k: int
    filter: str
    """The filter in canonical spelling (`server.serving.filter`); empty for no filter."""
    exclude_history: bool
    strategy: Strategy
    neighbours: bool = False
    """Whether neighbours of the newest clicks are candidates, as far as the release has any."""
    attributes: tuple[str, ...] = ()
    """Attributes that are wanted with the candidates."""
    variety: Variety = ANY

    @property
    def ranked(self) -> int:
        """The number of items of each user that must be ranked to find the candidates."""
        return ceil(self.top_k * POOL) if self.variety.diversity else self.top_k

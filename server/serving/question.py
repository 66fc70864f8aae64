"""What a caller asks for, as plain values that have been checked. This module knows nothing of protobuf."""

from dataclasses import dataclass, field
from enum import IntEnum
from math import ceil, floor

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
    draw: int = 0
    """Where the drawing of explored items begins for this user, 64 bits; without a meaning if none are explored."""


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
class Boost:
    """What is added to the scores of some items: those that match a filter, or newer ones more than older ones."""

    filter: str = ""
    """In canonical spelling; empty for a boost by an attribute."""
    add: float = 0.0
    """Added to the scores of items that match the filter."""
    attribute: str = ""
    """A time in seconds since 1970."""
    half_life_days: float = 0.0
    """Days after which half of `weight` is left."""
    weight: float = 0.0
    """Added to the score of an item of age 0."""
    of_release: bool = False
    """Whether it is a rule of the release."""


@dataclass(frozen=True)
class Explore:
    """The places for items that are drawn."""

    share: float
    """Of `top_k`, more than 0 and up to 1."""
    filter: str
    """What they match besides the filter of the query, in canonical spelling; empty for any item."""

    def places(self, top_k: int) -> int:
        """How many of `top_k` places: rounded down, and 1 at least."""
        return max(1, floor(self.share * top_k + ROUNDING))


ROUNDING = 1e-6
"""So that 0.1 in single precision times 50 is 5."""


@dataclass(frozen=True)
class Query:
    """A valid request."""

    users: list[UserQuery]
    top_k: int
    filter: str
    """In canonical spelling (`mind.milvus.filter`); empty for no filter."""
    exclude_history: bool
    strategy: Strategy
    neighbours: bool = False
    """Whether neighbours of the newest clicks are candidates, as far as the release has any."""
    attributes: tuple[str, ...] = ()
    """Attributes that are wanted with the candidates."""
    variety: Variety = ANY
    boosts: tuple[Boost, ...] = ()
    """What is added to scores, in the order in which it is added."""
    now_s: int = 0
    """The time for boosts by age, in seconds since 1970."""
    pins: Int64 = field(default_factory=lambda: _NOTHING)
    """[p] int64 external ids that come first in the lists of all users, without repeats."""
    explore: Explore | None = None
    channel: str = ""
    """The channel whose release answers, for what watches; empty where that does not matter."""

    @property
    def placed(self) -> bool:
        """Whether some places do not go by rank."""
        return len(self.pins) > 0 or self.explore is not None

    @property
    def ranked(self) -> int:
        """The number of items of each user that must be ranked to find the candidates."""
        return ceil(self.top_k * POOL) if self.variety.diversity else self.top_k

"""The answers of two channels to one request, and how they differ."""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.vocabulary import Mask
from server.watching.comparison import Differences, Lists, compare, medians

CHANNELS_OF_USERS = ("both", "live", "shadow", "neither")
"""The channels in which a user's interests may have found candidates."""


@dataclass(frozen=True)
class Answered:
    """The answer of one channel to the users of a request."""

    lists: Lists
    """The candidates of all users."""
    own: Mask
    """[B] bool, whether a user's interests found the candidates."""
    work_ms: float
    """Time to encode, search and merge, without the wait for a batch."""

    def short(self, top_k: int) -> tuple[int, int]:
        """The number of lists with fewer than `top_k` candidates, and how many of these are empty."""
        return int((self.lists.lengths < top_k).sum()), int((self.lists.lengths == 0).sum())


@dataclass(frozen=True)
class Compared:
    """How two answers to one request differ. Lists are compared for users whose interests found them in both."""

    live: Answered
    shadow: Answered
    top_k: int
    """Candidates that were asked for, for each user."""
    new: int
    """Candidates of the shadow channel that the model of the live channel does not know."""
    differences: Differences
    """Of the lists that are compared, b of them."""
    live_scores: Float32
    """[b] float32, the median score of each list; nan for an empty one."""
    shadow_scores: Float32
    """[b] float32, the same in the shadow channel."""

    @property
    def latency_ratio(self) -> float:
        """The time of the shadow channel, as a multiple of that of the live channel."""
        return self.shadow.work_ms / max(self.live.work_ms, 1e-6)

    @property
    def score_ratios(self) -> Float32:
        """The median scores of the shadow channel as multiples of the live channel's, where both are positive."""
        positive = (self.live_scores > 0) & (self.shadow_scores > 0)
        return self.shadow_scores[positive] / self.live_scores[positive]

    @property
    def users(self) -> dict[str, int]:
        """The number of users for each of `CHANNELS_OF_USERS`."""
        live, shadow = self.live.own, self.shadow.own
        where = live & shadow, live & ~shadow, shadow & ~live, ~live & ~shadow
        return {name: int(users.sum()) for name, users in zip(CHANNELS_OF_USERS, where, strict=True)}


def compared(live: Answered, shadow: Answered, top_k: int, known: Mask) -> Compared:
    """Compare two answers to one request.

    `known`: [n] bool, whether the model of the live channel knows each candidate of the shadow channel.
    """
    filled = np.maximum(live.lists.lengths, shadow.lists.lengths) > 0
    both = live.own & shadow.own & filled
    one, other = live.lists.of(both), shadow.lists.of(both)
    new = int((~known).sum())
    return Compared(live, shadow, top_k, new, compare(one, other), medians(one), medians(other))

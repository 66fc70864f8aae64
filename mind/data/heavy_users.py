"""Finds users with a large share of all interactions, such as a robot or an account that many people use."""

from dataclasses import dataclass

import numpy as np

from mind.data.interactions import Interactions


@dataclass(frozen=True)
class HeavyUser:
    """A user, and the user's share of all interactions."""

    user_id: int
    interactions: int
    share: float


def heavy_users(interactions: Interactions, share: float) -> list[HeavyUser]:
    """Return the users with more than a share of all interactions, the greatest share first.

    Needs rows sorted by user.
    """
    users = interactions.sequences()
    user_id, counts = users.user_id, users.lengths
    heavy = np.flatnonzero(counts > share * len(interactions))
    order = heavy[np.argsort(-counts[heavy], kind="stable")]
    return [HeavyUser(int(user_id[at]), int(counts[at]), float(counts[at] / len(interactions))) for at in order]

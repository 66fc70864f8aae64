"""Takes old interactions, heavy users and users with few interactions out of the data before the split.

Each function adds what it takes out to a dictionary of interactions by cause.
"""

from collections.abc import Sequence

import numpy as np

from mind.data.interactions import Interactions
from mind.data.time_units import TimeUnit, start_of

FEW = "fewer than"


def without_old(
    interactions: Interactions, since: str, newest: float, unit: TimeUnit | None, left_out: dict[str, Interactions]
) -> Interactions:
    """Return the interactions from a moment on.

    Args:
        interactions: the interactions.
        since: the length of a window that ends at the newest time, such as 90d; or its first date.
        newest: the last time of the data.
        unit: the unit of the times.
        left_out: receives the older interactions.

    Raises:
        DataError: the text is neither, or the times have no unit.
    """
    old = interactions.timestamp < start_of(since, newest, unit)
    left_out[f"before {since}" if since[:4].isdigit() else f"older than {since}"] = interactions.take(old)
    return interactions.take(~old)


def without_users(
    interactions: Interactions, users: Sequence[int], share: float, left_out: dict[str, Interactions]
) -> Interactions:
    """Return the interactions of all but some users, who have more than a share of all interactions."""
    if not users:
        return interactions
    among = np.isin(interactions.user_id, users)
    left_out[f"more than {share:.0%} of all"] = interactions.take(among)
    return interactions.take(~among)


def add_few(interactions: Interactions, least: int, left_out: dict[str, Interactions]) -> None:
    """Add the interactions of users who have fewer than the least number of interactions."""
    lengths = interactions.sequences().lengths
    left_out[f"{FEW} {least}"] = interactions.take(np.repeat(lengths < least, lengths))

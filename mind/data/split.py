"""Interactions to training and evaluation data, by the protocol of ComiRec (Cen et al., arXiv 2005.09347).

Users are held out, not interactions: the model meets the test users' histories for the first time when it is tested.
"""

from dataclasses import dataclass

import numpy as np

from mind.data.interactions import Interactions
from mind.errors import ConfigError, DataError
from mind.sequences import EvalCases, Int64, Sequences


@dataclass(frozen=True)
class Split:
    """Every user is in one part only, ascending within it. Items of held-out users need not occur in `train`."""

    train: Sequences
    valid: EvalCases
    test: EvalCases
    dropped_users: int
    """Users with too few interactions, left out of all parts."""


def split(interactions: Interactions, *, seed: int = 2024, min_interactions: int = 5) -> Split:
    """Shuffle the users and split them 8:1:1; the first 80 % of a held-out user's items are history, the rest targets.

    Args:
        interactions: sorted by user and time. Repeated clicks stay.
        seed: of the shuffle; the same seed and users give the same split.
        min_interactions: users with fewer are dropped.

    Raises:
        ConfigError: `min_interactions` is below 2, too few for a history and a target.
        DataError: fewer than three users are left, one for each part.
    """
    if min_interactions < 2:
        raise ConfigError(f"min_interactions is {min_interactions}, a history and a target need at least 2")
    sequences = interactions.sequences()
    users = np.flatnonzero(sequences.lengths >= min_interactions)
    if len(users) < 3:
        raise DataError(
            f"{len(users)} of {len(sequences)} users have {min_interactions} interactions or more (the most is "
            f"{sequences.lengths.max(initial=0)}); train, valid and test need at least 3 users"
        )
    test_start = len(users) * 9 // 10
    valid_start = min(len(users) * 8 // 10, test_start - 1)
    shuffled = np.random.default_rng(seed).permutation(users)
    train, valid, test = (np.sort(part) for part in np.split(shuffled, [valid_start, test_start]))
    return Split(
        train=sequences.take(train),
        valid=hold_out(sequences, valid),
        test=hold_out(sequences, test),
        dropped_users=len(sequences) - len(users),
    )


def hold_out(sequences: Sequences, users: Int64) -> EvalCases:
    """The first 80 % of each user's items as history, the rest as targets. users: [V] int64 positions."""
    start, end = sequences.offsets[users], sequences.offsets[users + 1]
    middle = start + (end - start) * 4 // 5
    return EvalCases(sequences.take(users, end=middle), sequences.take(users, start=middle))

"""Interactions to training and evaluation data.

By users (the protocol of ComiRec, Cen et al., arXiv 2005.09347): the model meets the histories of test users for the
first time when it is tested. By time: nothing that anybody did after a moment is trained on. By users' last clicks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from mind.data.interactions import Interactions
from mind.errors import ConfigError, DataError
from mind.sequences import EvalCases, Int64, Sequences


class SplitKind(StrEnum):
    """What is held out."""

    USERS = "users"
    """A tenth of the users for validation, a tenth for the test; their last 20 % are what is to be found."""
    TIME = "time"
    """What everybody did after a moment."""
    LAST_OUT = "last-out"
    """The last clicks of every user."""


@dataclass(frozen=True)
class Split:
    """Training users, and the cases to evaluate with, users ascending. Items of the cases need not occur in `train`."""

    train: Sequences
    valid: EvalCases
    test: EvalCases
    dropped_users: int
    """Users with too few interactions, left out of all parts."""
    how: dict[str, Any] = field(default_factory=dict)
    """How the data were split, as plain data; the kind is `split`."""

    @property
    def histories_are_trained(self) -> bool:
        """Whether the histories of the cases are those of training users too."""
        return self.how.get("split") in (SplitKind.TIME, SplitKind.LAST_OUT)


def in_words(how: Mapping[str, Any]) -> str:
    """What the test is, where it is not users who are held out; else empty. `how`: as `Split.how`."""
    if how.get("split") == SplitKind.TIME:
        return f"clicks from {how.get('test_from', 'a moment')} on"
    if how.get("split") == SplitKind.LAST_OUT:
        return f"last {how.get('clicks', 1)} clicks of every user"
    return ""


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
    sequences, users = _with_enough(interactions, min_interactions)
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
        how={"split": SplitKind.USERS, "seed": seed, "min_interactions": min_interactions},
    )


def split_by_time(
    interactions: Interactions, valid_from: float, test_from: float, *, min_interactions: int = 5
) -> Split:
    """Train on what happened before `valid_from`, validate on what happened until `test_from`, test on the rest.

    A user is in several parts. The history of a case is all that the user did before, and may be empty.

    Args:
        interactions: sorted by user and time.
        valid_from: the first moment that is not trained on, in the unit of the timestamps.
        test_from: the first moment that is not validated on.
        min_interactions: users with fewer, in all, are dropped.

    Raises:
        ConfigError: `test_from` is not after `valid_from`, or `min_interactions` is below 2.
        DataError: nothing happened in one of the three times.
    """
    if not valid_from < test_from:
        raise ConfigError("test_from must be after valid_from")
    sequences, users = _with_enough(interactions, min_interactions)
    start = sequences.offsets[:-1]
    first, second = (
        start + np.add.reduceat(interactions.timestamp < moment, start, dtype=np.int64)
        for moment in (valid_from, test_from)
    )
    how = {"split": SplitKind.TIME, "min_interactions": min_interactions}
    return _cut(sequences, users, first, second, how, "; choose other moments")


def split_last_out(interactions: Interactions, clicks: int = 1, *, min_interactions: int = 5) -> Split:
    """Test on the last clicks of every user, validate on those before them, train on all earlier ones.

    Args:
        interactions: sorted by user and time.
        clicks: how many clicks of a user each of test and validation gets.
        min_interactions: users with fewer, or too few to leave one to train on, are dropped.

    Raises:
        ConfigError: `clicks` is below 1, or `min_interactions` below 2.
        DataError: no user has enough interactions.
    """
    if clicks < 1:
        raise ConfigError(f"{clicks} clicks are held out of every user, it must be at least 1")
    sequences, users = _with_enough(interactions, max(min_interactions, 2 * clicks + 1))
    end = sequences.offsets[1:]
    how = {"split": SplitKind.LAST_OUT, "clicks": clicks, "min_interactions": min_interactions}
    return _cut(sequences, users, end - 2 * clicks, end - clicks, how, "; hold out fewer clicks")


def _with_enough(interactions: Interactions, least: int) -> tuple[Sequences, Int64]:
    """All users, and the positions of those with at least so many interactions."""
    if least < 2:
        raise ConfigError(f"min_interactions is {least}, a history and a target need at least 2")
    sequences = interactions.sequences()
    return sequences, np.flatnonzero(sequences.lengths >= least)


def _cut(sequences: Sequences, users: Int64, first: Int64, second: Int64, how: dict[str, Any], advice: str) -> Split:
    """Cut each user's items in three. `first`, `second`: [U] int64, where validation and test begin."""
    start, end = sequences.offsets[:-1], sequences.offsets[1:]
    trained, validated, tested = (
        users[(before < after)[users]] for before, after in ((start, first), (first, second), (second, end))
    )
    for name, found in (("train", trained), ("valid", validated), ("test", tested)):
        if not len(found):
            raise DataError(f"{name} would have no user: of {len(users):,} users nobody has interactions then{advice}")

    def cases(chosen: Int64, middle: Int64, last: Int64) -> EvalCases:
        return EvalCases(
            sequences.take(chosen, end=middle[chosen]), sequences.take(chosen, middle[chosen], last[chosen])
        )

    return Split(
        train=sequences.take(trained, end=first[trained]),
        valid=cases(validated, first, second),
        test=cases(tested, second, end),
        dropped_users=len(sequences) - len(users),
        how=how,
    )


def hold_out(sequences: Sequences, users: Int64) -> EvalCases:
    """The first 80 % of each user's items as history, the rest as targets. users: [V] int64 positions."""
    start, end = sequences.offsets[users], sequences.offsets[users + 1]
    middle = start + (end - start) * 4 // 5
    return EvalCases(sequences.take(users, end=middle), sequences.take(users, start=middle))

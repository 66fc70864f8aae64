"""Interactions to training and evaluation data.

By users (the protocol of ComiRec, Cen et al., arXiv 2005.09347): the model meets the histories of test users for the
first time when it is tested. By time: nothing that anybody did after a moment is trained on. By users' last clicks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from mind.data.interactions import Interactions
from mind.errors import ConfigError, DataError
from mind.sequences import EvalCases, Int64, Mask, Sequences


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
    held_out: Sequences | None = None
    """All clicks of the users of whom not all are in `train`; None where clicks have no kinds, for cases have them."""
    aside: Interactions | None = None
    """Clicks of these users that are in no part: after the cut and no target, or before it and no history."""

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
    middle, end = _last_fifth(sequences), sequences.offsets[1:]
    able = _that_have_cases(sequences, users, middle, end)
    others, users = np.setdiff1d(users, able), able
    if len(users) < 3:
        least = f"{min_interactions} interactions or more (the most is {sequences.lengths.max(initial=0)})"
        also = " and a target after a history" if sequences.role is not None else ""
        raise DataError(
            f"{len(users)} of {len(sequences)} users have {least}{also}; train, valid and test need at least 3 users"
        )
    test_start = len(users) * 9 // 10
    valid_start = min(len(users) * 8 // 10, test_start - 1)
    shuffled = np.random.default_rng(seed).permutation(users)
    train, valid, test = (np.sort(part) for part in np.split(shuffled, [valid_start, test_start]))
    parts = Split(
        train=sequences.take(np.union1d(train, others)),
        valid=_cases(sequences, valid, middle, end),
        test=_cases(sequences, test, middle, end),
        dropped_users=len(sequences) - len(users) - len(others),
        how={"split": SplitKind.USERS, "seed": seed, "min_interactions": min_interactions},
    )
    return _with_held_out(parts, interactions, sequences, [(valid, middle, end), (test, middle, end)], None)


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
    return _cut(interactions, sequences, users, first, second, how, "; choose other moments")


def split_last_out(interactions: Interactions, clicks: int = 1, *, min_interactions: int = 5) -> Split:
    """Test on the last clicks of every user, validate on those before them, train on all earlier ones.

    Args:
        interactions: sorted by user and time.
        clicks: how many clicks of a user each of test and validation gets; of targets, where clicks have kinds. Users
            with fewer targets are trained on alone.
        min_interactions: users with fewer, or too few to leave one to train on, are dropped.

    Raises:
        ConfigError: `clicks` is below 1, or `min_interactions` below 2.
        DataError: no user has enough interactions.
    """
    if clicks < 1:
        raise ConfigError(f"{clicks} clicks are held out of every user, it must be at least 1")
    sequences, users = _with_enough(interactions, max(min_interactions, 2 * clicks + 1))
    how = {"split": SplitKind.LAST_OUT, "clicks": clicks, "min_interactions": min_interactions}
    first, second = (_last_targets(sequences, count, 2 * clicks) for count in (2 * clicks, clicks))
    return _cut(interactions, sequences, users, first, second, how, "; hold out fewer clicks")


def _with_enough(interactions: Interactions, least: int) -> tuple[Sequences, Int64]:
    """All users, and the positions of those with at least so many interactions."""
    if least < 2:
        raise ConfigError(f"min_interactions is {least}, a history and a target need at least 2")
    sequences = interactions.sequences()
    return sequences, np.flatnonzero(sequences.lengths >= least)


def hold_out(sequences: Sequences, users: Int64) -> EvalCases:
    """The first 80 % of each user's targets, and what is before them, as history, the rest as targets. users: [V] int64
    positions."""
    return _cases(sequences, users, _last_fifth(sequences), sequences.offsets[1:], keep_all=True)


def _last_fifth(sequences: Sequences) -> Int64:
    """Where the last fifth of each user's targets begins, as a position: [U] int64. Without kinds all are targets."""
    return _position_of_target(sequences, _targets(sequences) * 4 // 5)


def _last_targets(sequences: Sequences, count: int, least: int) -> Int64:
    """Where the last `count` targets of each user begin: [U] int64; the end of users with fewer than `least`."""
    targets = _targets(sequences)
    return _position_of_target(sequences, np.where(targets < least, targets, targets - count))


def _targets(sequences: Sequences) -> Int64:
    """The number of targets of each user, [U] int64."""
    weight = sequences.weight
    if weight is None:
        return sequences.lengths
    return np.diff(np.append(0, np.cumsum(weight > 0))[sequences.offsets])


def _position_of_target(sequences: Sequences, number: Int64) -> Int64:
    """The position of each user's target with a number from 0, [U] int64; the user's end if there are not so many."""
    weight = sequences.weight
    if weight is None:
        return sequences.offsets[:-1] + number
    before = np.append(0, np.cumsum(weight > 0))[sequences.offsets]  # targets of the users before
    positions = np.append(np.flatnonzero(weight > 0), len(weight))
    there = number < np.diff(before)
    return np.where(there, positions[np.where(there, before[:-1] + number, -1)], sequences.offsets[1:])


def _that_have_cases(sequences: Sequences, users: Int64, middle: Int64, end: Int64) -> Int64:
    """Those of some users who have history before the middle, and a target from it to the end."""
    cases = _cases(sequences, users, middle, end, keep_all=True)
    return users[(cases.history.lengths > 0) & (cases.target.lengths > 0)]


def _cases(sequences: Sequences, users: Int64, middle: Int64, end: Int64, keep_all: bool = False) -> EvalCases:
    """What users did before the middle, and what they did from there to the end.

    Args:
        sequences: all users.
        users: [V] int64, positions of some of them.
        middle, end: [U] int64, positions of clicks.
        keep_all: whether users without a target stay.
    """
    history = sequences.take(users, end=middle[users])
    target = sequences.take(users, middle[users], end[users])
    history = history.where(history.is_history)
    target = target if target.weight is None else target.where(target.weight > 0)
    cases = EvalCases(history, target)
    return cases if keep_all else cases.take(np.flatnonzero(target.lengths))


def _cut(
    interactions: Interactions,
    sequences: Sequences,
    users: Int64,
    first: Int64,
    second: Int64,
    how: dict[str, Any],
    advice: str,
) -> Split:
    """Cut each user's items in three. `first`, `second`: [U] int64, where validation and test begin."""
    start, end = sequences.offsets[:-1], sequences.offsets[1:]
    trained = users[(start < first)[users]]
    valid, test = _cases(sequences, users, first, second), _cases(sequences, users, second, end)
    for name, found in (("train", trained), ("valid", valid), ("test", test)):
        if not len(found):
            raise DataError(f"{name} would have no user: of {len(users):,} users nobody has interactions then{advice}")
    parts = Split(
        train=sequences.take(trained, end=first[trained]),
        valid=valid,
        test=test,
        dropped_users=len(sequences) - len(users),
        how=how,
    )
    return _with_held_out(parts, interactions, sequences, [(users, first, end)], first)


def _with_held_out(
    parts: Split,
    interactions: Interactions,
    sequences: Sequences,
    cuts: list[tuple[Int64, Int64, Int64]],
    trained_until: Int64 | None,
) -> Split:
    """The same with the clicks that the cases do not have, where clicks have kinds.

    Args:
        parts: the split.
        interactions, sequences: all clicks, and the same by users.
        cuts: positions of users, and where their targets begin and end: [U] int64 each.
        trained_until: where what is trained on ends, [U] int64; None if all before the targets is history of cases.
    """
    weight, is_history = sequences.weight, sequences.is_history
    if weight is None or is_history is None:
        return parts
    start = sequences.offsets[:-1]
    aside, owners = np.zeros(len(sequences.item_id), np.bool_), np.zeros(len(sequences), np.bool_)
    for users, middle, end in cuts:
        owners[users] |= middle[users] < end[users]
        aside |= _between(len(aside), middle[users], end[users]) & ~(weight > 0)
        if trained_until is None:
            aside |= _between(len(aside), start[users], middle[users]) & ~is_history
    held_out = sequences.take(np.flatnonzero(owners))
    return replace(parts, held_out=held_out, aside=interactions.take(aside))


def _between(size: int, start: Int64, end: Int64) -> Mask:
    """Which positions are in one of some ranges, none of which overlap: [size] bool."""
    change = np.zeros(size + 1, np.int64)
    np.add.at(change, start, 1)
    np.add.at(change, end, -1)
    inside: Mask = np.cumsum(change[:-1]) > 0
    return inside

"""Splits interactions into training and evaluation data.

There are three ways. By users (the protocol of ComiRec, Cen et al., arXiv 2005.09347): the model has not seen the
histories of test users before the test. By time: the model is trained only on clicks before a date. By last clicks: the
last clicks of every user are held out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from mind.data.interactions import Interactions
from mind.errors import ConfigError, DataError
from mind.events import Role
from mind.sequences import EvalCases, Int64, Mask, Sequences


class SplitKind(StrEnum):
    """The part of the data that is held out."""

    USERS = "users"
    """A tenth of the users for validation, and a tenth for the test; their last 20 % of clicks are the targets."""
    TIME = "time"
    """The clicks of all users after a date."""
    LAST_OUT = "last-out"
    """The last clicks of every user."""


@dataclass(frozen=True)
class Split:
    """Training users, and cases for evaluation, with users ascending. Items of the cases need not occur in `train`."""

    train: Sequences
    valid: EvalCases
    test: EvalCases
    dropped_users: int
    """Number of users with too few interactions, who are in no part."""
    how: dict[str, Any] = field(default_factory=dict)
    """How the data were split, as plain data. The key `split` has the kind."""
    held_out: Sequences | None = None
    """All clicks of the users of whom `train` has only a part. None if clicks have no kinds, because the cases have
    them then.
    """
    aside: Interactions | None = None
    """Clicks of these users that are in no part: after the cut without being a target, or before it without being
    history.
    """

    @property
    def histories_are_trained(self) -> bool:
        """Return whether the histories of the cases belong to training users."""
        return self.how.get("split") in (SplitKind.TIME, SplitKind.LAST_OUT)


def in_words(how: Mapping[str, Any]) -> str:
    """Return a description of the test in words; empty if users are held out. `how`: as in `Split.how`."""
    if how.get("split") == SplitKind.TIME:
        return f"clicks from {how.get('test_from', 'a moment')} on"
    if how.get("split") == SplitKind.LAST_OUT:
        return f"last {how.get('clicks', 1)} clicks of every user"
    return ""


def split(interactions: Interactions, *, seed: int = 2024, min_interactions: int = 5) -> Split:
    """Shuffle the users and split them 8:1:1.

    The first 80 % of a held-out user's items are history, the rest are targets.

    Args:
        interactions: the interactions, sorted by user and time. Repeated clicks are kept.
        seed: the seed of the shuffle. The same seed and users give the same split.
        min_interactions: users with fewer interactions are dropped.

    Raises:
        ConfigError: `min_interactions` is below 2, so that a user may have no history or no target.
        DataError: fewer than three users are left, so that a part has no user.
    """
    sequences, users = _with_enough(interactions, min_interactions)
    able = _that_have_cases(sequences, users, _last_fifth(sequences), sequences.offsets[1:])
    also = " and a target after a history" if sequences.role is not None else ""
    check_able(len(able), len(sequences), sequences.lengths.max(initial=0), min_interactions, also)
    return split_users(interactions, shuffled_parts(len(able), seed), seed=seed, min_interactions=min_interactions)


def able_users(interactions: Interactions, min_interactions: int) -> int:
    """Return the number of users whom `split` shuffles."""
    sequences, users = _with_enough(interactions, min_interactions)
    return len(_that_have_cases(sequences, users, _last_fifth(sequences), sequences.offsets[1:]))


def check_able(able: int, users: int, most: int, min_interactions: int, also: str = "") -> None:
    """Raise DataError if fewer than three users can be shuffled.

    Args:
        able: the number of users who can be shuffled.
        users: the number of all users.
        most: the most interactions of a user.
        min_interactions: the interactions that a user needs.
        also: what a user also needs, in words.
    """
    if able < 3:
        least = f"{min_interactions} interactions or more (the most is {most})"
        raise DataError(f"{able} of {users} users have {least}{also}; train, valid and test need at least 3 users")


def shuffled_parts(users: int, seed: int) -> Role:
    """Return the part of each user in ascending order, [users] uint8: 0 for train, 1 for valid and 2 for test."""
    test_start = users * 9 // 10
    valid_start = min(users * 8 // 10, test_start - 1)
    shuffled = np.random.default_rng(seed).permutation(users)
    part = np.zeros(users, np.uint8)
    part[shuffled[valid_start:]] = 1
    part[shuffled[test_start:]] = 2
    return part


def split_users(interactions: Interactions, part: Role, *, seed: int, min_interactions: int) -> Split:
    """Split users whose parts are known.

    Args:
        interactions: the interactions, sorted by user and time.
        part: [able_users] uint8, the part of each user as `shuffled_parts` gives it.
        seed: the seed of the shuffle, to record it.
        min_interactions: users with fewer interactions are dropped.
    """
    sequences, users = _with_enough(interactions, min_interactions)
    middle, end = _last_fifth(sequences), sequences.offsets[1:]
    able = _that_have_cases(sequences, users, middle, end)
    others, users = np.setdiff1d(users, able), able
    train, valid, test = (users[part == number] for number in range(3))
    parts = Split(
        train=sequences.take(np.union1d(train, others)),
        valid=_cases(sequences, valid, middle, end),
        test=_cases(sequences, test, middle, end),
        dropped_users=len(sequences) - len(users) - len(others),
        how={"split": SplitKind.USERS, "seed": seed, "min_interactions": min_interactions},
    )
    return _with_held_out(parts, interactions, sequences, [(valid, middle, end), (test, middle, end)], None)


def split_by_time(
    interactions: Interactions,
    valid_from: float,
    test_from: float,
    *,
    min_interactions: int = 5,
    may_be_empty: bool = False,
) -> Split:
    """Train on interactions before `valid_from`, validate on those from then until `test_from`, and test on the rest.

    A user is in several parts. The history of a case has all earlier interactions of the user, and may be empty.

    Args:
        interactions: the interactions, sorted by user and time.
        valid_from: the first time that is not trained on, in the unit of the timestamps.
        test_from: the first time that is not validated on, in the same unit.
        min_interactions: users with fewer interactions in all are dropped.
        may_be_empty: whether a period may have no interactions, as in some of the users.

    Raises:
        ConfigError: `test_from` is not after `valid_from`, or `min_interactions` is below 2.
        DataError: one of the three periods has no interactions.
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
    return _cut(interactions, sequences, users, first, second, how, may_be_empty)


def split_last_out(
    interactions: Interactions, clicks: int = 1, *, min_interactions: int = 5, may_be_empty: bool = False
) -> Split:
    """Test on the last clicks of every user, validate on the clicks before them, and train on all earlier clicks.

    Args:
        interactions: the interactions, sorted by user and time.
        clicks: the number of clicks of each user in the test, and in validation. Where clicks have kinds, only targets
            count. Users with fewer targets are only trained on.
        min_interactions: users with fewer interactions, or with too few to train on one, are dropped.
        may_be_empty: whether nobody may have enough interactions, as among some of the users.

    Raises:
        ConfigError: `clicks` is below 1, or `min_interactions` below 2.
        DataError: no user has enough interactions.
    """
    if clicks < 1:
        raise ConfigError(f"{clicks} clicks are held out of every user, it must be at least 1")
    sequences, users = _with_enough(interactions, max(min_interactions, 2 * clicks + 1))
    how = {"split": SplitKind.LAST_OUT, "clicks": clicks, "min_interactions": min_interactions}
    first, second = (_last_targets(sequences, count, 2 * clicks) for count in (2 * clicks, clicks))
    return _cut(interactions, sequences, users, first, second, how, may_be_empty)


def _with_enough(interactions: Interactions, least: int) -> tuple[Sequences, Int64]:
    """Return all users, and the positions of the users with at least `least` interactions."""
    if least < 2:
        raise ConfigError(f"min_interactions is {least}, a history and a target need at least 2")
    sequences = interactions.sequences()
    return sequences, np.flatnonzero(sequences.lengths >= least)


def hold_out(sequences: Sequences, users: Int64) -> EvalCases:
    """Split the targets of users: the first 80 %, and all before them, are history, the rest are targets.

    `users`: [V] int64 positions.
    """
    return _cases(sequences, users, _last_fifth(sequences), sequences.offsets[1:], keep_all=True)


def _last_fifth(sequences: Sequences) -> Int64:
    """Return the position at which the last fifth of each user's targets begins: [U] int64.

    Without kinds all are targets.
    """
    return _position_of_target(sequences, _targets(sequences) * 4 // 5)


def _last_targets(sequences: Sequences, count: int, least: int) -> Int64:
    """Return where the last `count` targets of each user begin, [U] int64; the end for fewer than `least`."""
    targets = _targets(sequences)
    return _position_of_target(sequences, np.where(targets < least, targets, targets - count))


def _targets(sequences: Sequences) -> Int64:
    """Return the number of targets of each user, [U] int64."""
    weight = sequences.weight
    if weight is None:
        return sequences.lengths
    return np.diff(np.append(0, np.cumsum(weight > 0))[sequences.offsets])


def _position_of_target(sequences: Sequences, number: Int64) -> Int64:
    """Return the position of each user's target with a number from 0, [U] int64; the user's end if there is none."""
    weight = sequences.weight
    if weight is None:
        return sequences.offsets[:-1] + number
    before = np.append(0, np.cumsum(weight > 0))[sequences.offsets]  # targets of the users before
    positions = np.append(np.flatnonzero(weight > 0), len(weight))
    there = number < np.diff(before)
    return np.where(there, positions[np.where(there, before[:-1] + number, -1)], sequences.offsets[1:])


def _that_have_cases(sequences: Sequences, users: Int64, middle: Int64, end: Int64) -> Int64:
    """Return those of some users who have history before `middle`, and a target from `middle` to `end`."""
    cases = _cases(sequences, users, middle, end, keep_all=True)
    return users[(cases.history.lengths > 0) & (cases.target.lengths > 0)]


def _cases(sequences: Sequences, users: Int64, middle: Int64, end: Int64, keep_all: bool = False) -> EvalCases:
    """Return the clicks of users before `middle` as history, and those from `middle` to `end` as targets.

    Args:
        sequences: the clicks of all users.
        users: [V] int64, the positions of some users.
        middle, end: [U] int64, positions of clicks.
        keep_all: whether users without a target are kept.
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
    may_be_empty: bool,
) -> Split:
    """Cut each user's items into three parts. `first`, `second`: [U] int64, where validation and test begin."""
    start, end = sequences.offsets[:-1], sequences.offsets[1:]
    trained = users[(start < first)[users]]
    valid, test = _cases(sequences, users, first, second), _cases(sequences, users, second, end)
    if not may_be_empty:
        check_no_part_is_empty(
            how["split"], len(users), {"train": len(trained), "valid": len(valid), "test": len(test)}
        )
    parts = Split(
        train=sequences.take(trained, end=first[trained]),
        valid=valid,
        test=test,
        dropped_users=len(sequences) - len(users),
        how=how,
    )
    return _with_held_out(parts, interactions, sequences, [(users, first, end)], first)


def check_no_part_is_empty(kind: SplitKind, users: int, parts: Mapping[str, int]) -> None:
    """Raise DataError if a part has no user.

    Args:
        kind: how the data were split.
        users: the number of users with enough interactions.
        parts: the number of users of each part, by its name.
    """
    advice = "choose other moments" if kind is SplitKind.TIME else "hold out fewer clicks"
    for name, count in parts.items():
        if not count:
            raise DataError(f"{name} would have no user: of {users:,} users nobody has interactions then; {advice}")


def _with_held_out(
    parts: Split,
    interactions: Interactions,
    sequences: Sequences,
    cuts: list[tuple[Int64, Int64, Int64]],
    trained_until: Int64 | None,
) -> Split:
    """Return the split with the clicks that the cases do not have, if clicks have kinds.

    Args:
        parts: the split.
        interactions, sequences: all clicks, and the same clicks by user.
        cuts: positions of users, and the positions at which their targets begin and end: [U] int64 each.
        trained_until: where the training data end, [U] int64; None if all clicks before the targets are in cases.
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
    """Return which positions are in one of several ranges that do not overlap: [size] bool."""
    change = np.zeros(size + 1, np.int64)
    np.add.at(change, start, 1)
    np.add.at(change, end, -1)
    inside: Mask = np.cumsum(change[:-1]) > 0
    return inside

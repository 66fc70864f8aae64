"""Counts the interactions that a model learns from, and those that it never sees, by cause."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mind.data.interactions import Interactions
from mind.data.split import Split
from mind.sequences import EvalCases, Int64, distinct

UNTRAINED = "not in train"


@dataclass(frozen=True)
class Part:
    """Some of the interactions that were read."""

    name: str
    users: int
    items: int
    """Number of different items."""
    unlearnt: int
    """Number of these items that no training user has, so that a model does not know them."""
    interactions: int


def parts_of(split: Split, left_out: Mapping[str, Interactions]) -> list[Part]:
    """Count every part of the data: train, valid and test, what was left out of them, and all that no model sees.

    Args:
        split: the parts train, valid and test.
        left_out: interactions that are in none of them, by cause.
    """
    trained = distinct(split.train.item_id)
    unlearnt = columns_of(split, left_out)
    del unlearnt["train"]
    users, items = (np.concatenate(columns) for columns in zip(*unlearnt.values(), strict=True))
    untrained = users[~np.isin(users, split.train.user_id)]
    return [
        Part("train", len(split.train), len(trained), 0, len(split.train.item_id)),
        *(_part(name, len(users), items, trained) for name, (users, items) in unlearnt.items()),
        _part(UNTRAINED, len(distinct(untrained)), items, trained),
    ]


def columns_of(split: Split, left_out: Mapping[str, Interactions]) -> dict[str, tuple[Int64, Int64]]:
    """Return the users and the items of the interactions of each part, and of those that are in no part, by cause.

    A user occurs once in a part.
    """
    ids_of = _targets if split.histories_are_trained else _item_ids
    return {
        "train": (split.train.user_id, split.train.item_id),
        "valid": (split.valid.history.user_id, ids_of(split.valid)),
        "test": (split.test.history.user_id, ids_of(split.test)),
    } | {cause: (distinct(lost.user_id), lost.item_id) for cause, lost in left_out.items()}


def _part(name: str, users: int, item_id: Int64, trained: Int64) -> Part:
    items = distinct(item_id)
    return Part(
        name, users, len(items), int(np.isin(items, trained, assume_unique=True, invert=True).sum()), len(item_id)
    )


def _item_ids(cases: EvalCases) -> Int64:
    return np.concatenate([cases.history.item_id, cases.target.item_id])


def _targets(cases: EvalCases) -> Int64:
    return cases.target.item_id

"""What of the data a model learns from, and what it never meets, by cause."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mind.data.interactions import Interactions
from mind.data.split import Split
from mind.sequences import EvalCases, Int64, distinct


@dataclass(frozen=True)
class Part:
    """Some of the interactions that were read."""

    name: str
    users: int
    items: int
    """Different items."""
    unlearnt: int
    """Those of the items that no training user has, so that a model does not know them."""
    interactions: int


def parts_of(split: Split, left_out: Mapping[str, Interactions]) -> list[Part]:
    """Count every part of the data: train, valid and test, what was left out of them, and all that no model meets.

    Args:
        split: train, valid and test.
        left_out: interactions that are in none of them, by cause.
    """
    trained = distinct(split.train.item_id)
    unlearnt = {
        "valid": (len(split.valid), _item_ids(split.valid)),
        "test": (len(split.test), _item_ids(split.test)),
    } | {cause: (len(distinct(lost.user_id)), lost.item_id) for cause, lost in left_out.items()}
    everything = (sum(users for users, _ in unlearnt.values()), np.concatenate([ids for _, ids in unlearnt.values()]))
    return [
        Part("train", len(split.train), len(trained), 0, len(split.train.item_id)),
        *(_part(name, *found, trained) for name, found in unlearnt.items()),
        _part("not in train", *everything, trained),
    ]


def _part(name: str, users: int, item_id: Int64, trained: Int64) -> Part:
    items = distinct(item_id)
    return Part(
        name, users, len(items), int(np.isin(items, trained, assume_unique=True, invert=True).sum()), len(item_id)
    )


def _item_ids(cases: EvalCases) -> Int64:
    return np.concatenate([cases.history.item_id, cases.target.item_id])

"""The rule that each interest of a user has at least so many candidates."""

import numpy as np

from mind.sequences import Int64
from mind.vocabulary import Mask


def with_each_interest(user: Int64, interest: Int64, least: Int64, top_k: Int64) -> Mask:
    """Which items become candidates, [n] bool: the best of each interest, as many as it must have, and then the best.

    Args:
        user: [n] int64, ascending; the items of a user are in their order.
        interest: [n] int64, of each item.
        least: [B] int64, candidates that each interest of a user has, if it has so many items.
        top_k: [B] int64, candidates of a user. Its interests together need no more.
    """
    if not least.any():
        few: Mask = _numbers(user) < top_k[user]
        return few
    own = user * (int(interest.max(initial=0)) + 1) + interest
    order = np.argsort(own, kind="stable")
    number = np.empty(len(own), np.int64)
    number[order] = _numbers(own[order])
    needed = number < least[user]
    order = np.argsort(user * 2 + ~needed, kind="stable")
    chosen = np.zeros(len(own), bool)
    chosen[order] = _numbers(user[order]) < top_k[user[order]]
    return chosen


def _numbers(groups: Int64) -> Int64:
    """The number of each entry in its group, from 0; `groups`: [n] int64, equal ones side by side."""
    new = np.ones(len(groups), bool)
    new[1:] = np.diff(groups) != 0
    at = np.arange(len(groups))
    return at - np.maximum.accumulate(np.where(new, at, 0))

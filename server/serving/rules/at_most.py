"""The rule that at most so many candidates of a user share a value of an attribute. Knows nothing of attributes.

Read a user's items from the best to the worst, and take each item whose values have room. That is done for all users at
once: an item is taken for sure if its values have room even if all items before it are taken, and left out for sure if
they have none even if only those before it that are taken for sure count. What is left out makes others sure, so a few
rounds decide all: one, where no user has two such rules and no item two values.
"""

import numpy as np

from mind.sequences import Int64
from mind.vocabulary import Mask


def allowed(items: int, place: Int64, group: Int64, most: Int64) -> Mask:
    """Which items the rule takes, [items] bool.

    Args:
        items: the number of items, those of a user in their order.
        place: [E] int64, the item of each entry: an item has one for each of its values that is limited.
        group: [E] int64, equal for entries of one user and value.
        most: [E] int64, how many items of the group may be taken.
    """
    of_group = np.zeros(int(group.max(initial=0)) + 1, np.int64)
    of_group[group] = most
    group, place = np.divmod(np.sort(group * max(items, 1) + place), max(items, 1))  # faster than to sort places
    most = of_group[group]
    start = _starts(group)
    taken = np.ones(items, bool)
    while True:
        possible = taken[place]
        full = possible & (_before(possible, start) >= most)
        if not full.any():
            return taken
        sure = taken.copy()
        sure[place[full]] = False
        taken[place[possible & (_before(sure[place], start) >= most)]] = False


def without_room(taken: Mask, place: Int64, group: Int64, most: Int64) -> Mask:
    """Which items were left out because a value of theirs had no room, [items] bool.

    `taken`: [items] bool, what `allowed` took; the other arguments are those of `allowed`, or of one attribute alone.
    """
    order = np.lexsort((place, group))
    place, group, most = place[order], group[order], most[order]
    full = _before(taken[place], _starts(group)) >= most
    found = np.zeros(len(taken), bool)
    found[place[full]] = True
    return found & ~taken


def _starts(group: Int64) -> Int64:
    """The place where the group of each entry begins; `group`: [E] int64, equal ones side by side."""
    new = np.ones(len(group), bool)
    new[1:] = group[1:] != group[:-1]
    return np.maximum.accumulate(np.where(new, np.arange(len(group)), 0))


def _before(counted: Mask, start: Int64) -> Int64:
    """The number of entries that count before each entry of its group; `start`: [E] int64, where the group begins."""
    before: Int64 = np.cumsum(counted) - counted
    return before - before[start]

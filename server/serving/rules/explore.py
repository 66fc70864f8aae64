"""Draws items that nobody has seen enough, each with the same chance, and again the same for the same start.

The numbers are those of SplitMix64 (Steele, Lea and Flood 2014), which no version of NumPy changes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.sequences import Int64
from server.release import Release
from server.serving.matching import Matches

ROUNDS = 8
"""How often numbers are drawn before all items that are left are put in order instead."""
SPARE = 16
"""Numbers that are drawn besides twice as many as are wanted."""

_GAMMA, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
UInt64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Pool:
    """The items that may be drawn."""

    release: Release
    items: Matches

    def at(self, places: Int64) -> Int64:
        """The ids of the items at some places, [n] int64: those that the model knows come first, each by id."""
        known = places < len(self.items.rows)
        item_ids = np.empty(len(places), np.int64)
        item_ids[known] = self.release.vocabulary.item_id[self.items.rows[places[known]] - 1]
        item_ids[~known] = self.items.fresh_ids[places[~known] - len(self.items.rows)]
        return item_ids


def drawn(start: int, pool: Pool, left_out: Int64, wanted: int) -> Int64:
    """The ids of the items that were drawn, in their order: as many as are wanted, or all that are left.

    Args:
        start: where the numbers begin, 64 bits.
        pool: what they are drawn from.
        left_out: [m] int64, ids that must not be drawn.
        wanted: how many.
    """
    size, found = len(pool.items), dict[int, None]()
    step = 2 * wanted + SPARE
    for first in range(0, ROUNDS * step if size and wanted else 0, step):
        numbers = numbers_from(start, first, step)
        item_ids = pool.at((numbers % np.uint64(size)).astype(np.int64))
        found |= dict.fromkeys(item_ids[~np.isin(item_ids, left_out)].tolist())
        if len(found) >= wanted:
            return np.array(list(found)[:wanted], np.int64)
    every = pool.at(np.arange(size))
    every = every[~np.isin(every, left_out)]
    return every[np.argsort(numbers_from(start, 0, len(every)), kind="stable")][:wanted]


def spread(items: int, places: int) -> Int64:
    """The places of so many items among all, from 0: as far from one another as they can be."""
    return (2 * np.arange(items) + 1) * places // (2 * max(items, 1))


def numbers_from(start: int, first: int, count: int) -> UInt64:
    """Numbers of a sequence, [count] uint64, from the number `first` on."""
    state = np.uint64(start) + (np.arange(first + 1, first + count + 1).astype(np.uint64)) * _GAMMA
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: UInt64 = state ^ (state >> np.uint64(31))
    return mixed

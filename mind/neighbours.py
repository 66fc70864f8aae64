"""The second source of candidates: the items that users clicked soon after the newest click of a history.

An inner product of some dozens of numbers cannot remember which item follows which. So the model stores, for every
item, the few items that follow it most. If a user's newest clicks have such neighbours, these are candidates, and rank
by their inner product with the user's interests plus a bonus. This module knows nothing of training, files or serving.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.sequences import Float32, Int64

MAX_NEIGHBOURS = 50
"""Maximum number of neighbours of an item."""
CLICKS = 5
"""Number of newest known clicks of a user whose neighbours are candidates: all neighbours of the newest click, half as
many of the click before, and so on. All neighbours of all five clicks cost twice as much and find little more.
"""
FADING = 0.8
"""Factor for the weight of neighbours, for each click that came after the click that they follow."""
WINDOW = 20
"""Maximum number of clicks from an item to one that follows it."""
APART_FADING = 0.8
"""Factor for the weight of an item that follows another one, for each further click between the two."""
UNSEEN = 1
"""Clicks that are added to those of each item, so that what followed a rare item once is not believed."""


@dataclass(frozen=True)
class Near:
    """The neighbours of the newest clicks of U users, in columns: those of user 0 by ascending row, then user 1, ..."""

    user: Int64
    """[P] int64: the position of the user."""
    row: Int64
    """[P] int64: the row of the neighbour in the item table."""
    bonus: Float32
    """[P] float32: the number that is added to the inner product for the rank."""

    def part(self, start: int, end: int) -> "Near":
        """Return the neighbours of the users at positions `start` to `end` - 1."""
        own = slice(*np.searchsorted(self.user, (start, end)))
        return Near(self.user[own] - start, self.row[own], self.bonus[own])

    def add(self, scores: Float32, start: int = 0) -> None:
        """Add the bonuses to scores, [B, N] for rows 1 to N, of the users from position `start` on."""
        own = self.part(start, start + len(scores))
        scores[own.user, own.row - 1] += own.bonus


@dataclass(frozen=True)
class AddedNeighbours:
    """Items that the model of N items does not know and that follow items of it: they have rows from N + 1 on."""

    item: Int64
    """[E] int64, ascending: the row of the item that is followed."""
    row: Int64
    """[E] int64: the rows of the neighbours, above N. Those of one item are sorted by descending weight, at most
    `MAX_NEIGHBOURS`.
    """
    weight: npt.NDArray[np.float16]
    """[E] float16: as in `ItemNeighbours`."""


@dataclass(frozen=True)
class ItemNeighbours:
    """The neighbours of all N items of a model."""

    offsets: Int64
    """[N + 2] int64: the neighbours of row r of the item table are those from offsets[r] up to offsets[r + 1]."""
    row: npt.NDArray[np.int32]
    """[E] int32: the rows of the neighbours. Those of one item are sorted by descending weight, at most
    `MAX_NEIGHBOURS`.
    """
    weight: npt.NDArray[np.float16]
    """[E] float16, above 0: the square root of the share of clicks on the item that the neighbour followed."""
    bonus: float
    """The number that a weight of 1 adds to an inner product; 0 if validation users gained nothing by neighbours."""

    def near(
        self, hist_index: Int64, seq_len: Int64, bonus: float | None = None, added: AddedNeighbours | None = None
    ) -> Near:
        """Return the neighbours of the newest `CLICKS` clicks of each user.

        The weights of a neighbour of several clicks add up.

        Args:
            hist_index: [U, L] int64 rows, oldest first, 0-padded on the right.
            seq_len: [U] int64, the number of clicks of each history.
            bonus: a bonus to use instead of `self.bonus`.
            added: further neighbours of items.
        """
        users, length = hist_index.shape
        age = np.arange(min(CLICKS, length))
        place = seq_len[:, None] - 1 - age  # [U, C]
        clicked = np.where(place >= 0, np.take_along_axis(hist_index, np.maximum(place, 0), axis=1), 0).ravel()
        user, most, fading = np.repeat(np.arange(users), len(age)), MAX_NEIGHBOURS >> age, FADING**age
        factor = self.bonus if bonus is None else bonus
        return self._near(user, clicked, np.tile(most, users), np.tile(fading, users), factor, added)

    def following(self, query: Int64, row: Int64, added: AddedNeighbours | None = None) -> Near:
        """Return the neighbours of the items of each query, with the mean of their weights over these items as bonus.

        Args:
            query, row: parallel, [n] int64, the rows of queries 0, 1, ...; 0 for an item that has no neighbours.
            added: further neighbours of items.
        """
        each = 1 / np.bincount(query)[query]
        return self._near(query, row, np.full(len(row), MAX_NEIGHBOURS), each, 1.0, added)

    def _near(
        self,
        user: Int64,
        item: Int64,
        most: Int64,
        factor: npt.NDArray[np.float64],
        of_all: float,
        added: AddedNeighbours | None,
    ) -> Near:
        """Return the neighbours of items, grouped by user.

        Args:
            user: [C] int64, the user that has each item.
            item: [C] int64, the row of each item.
            most: [C] int64, the maximum number of neighbours of each item.
            factor: [C] float64, the factor of the weights of each item's neighbours.
            of_all: the factor of all weights.
            added: further neighbours of items.
        """
        start = self.offsets[item]
        lengths = np.minimum(self.offsets[item + 1] - start, most)
        entry, rows = entries(start, lengths), len(self.offsets)
        near, weight, lists = self.row[entry].astype(np.int64), self.weight[entry], lengths
        if added is not None and len(added.row):
            near, weight, lists = _with_added(added, item, most, (near, weight, lengths))
            rows += int(added.row.max())
        own = np.repeat(user, lists) * rows + near
        own, which = np.unique(own, return_inverse=True)
        user, row = np.divmod(own, rows)
        weights = np.bincount(which, weight * np.repeat(factor, lists), minlength=len(own))
        return Near(user, row, (of_all * weights).astype(np.float32))

    def problem(self, items: int) -> str:
        """Return what is wrong with the arrays for a model of `items` items; empty if nothing is wrong."""
        lengths = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.row) or lengths.min() < 0:
            return f"neighbour_offsets must ascend from 0 to the {len(self.row)} neighbours"
        if lengths.max() > MAX_NEIGHBOURS:
            return f"an item has {lengths.max()} neighbours, the limit is {MAX_NEIGHBOURS}"
        if len(self.row) and not 1 <= self.row.min() <= self.row.max() <= items:
            return f"neighbour_row names rows outside 1 to {items}"
        if not (self.weight >= 0).all() or not np.isfinite(self.weight).all() or not 0 <= self.bonus < np.inf:
            return "neighbour_weight and neighbour_bonus must be 0 or more, and finite"
        return ""


def entries(start: Int64, lengths: Int64) -> Int64:
    """Return the positions of lists in the array that holds them all, one list after the other.

    `start`, `lengths`: [n] int64, where each list starts and how many of its entries are wanted.
    """
    return np.repeat(start - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())


Lists = tuple[Int64, npt.NDArray[np.float16], Int64]
"""The neighbours of items, list after list: their rows, their weights, and the length of each list."""


def _with_added(added: AddedNeighbours, item: Int64, most: Int64, lists: Lists) -> Lists:
    """Merge added neighbours into the lists of items by weight. Equal weights: those of the model come first.

    `item`, `most`: [C] int64, the row of the item of each list, and the maximum length of the list.
    """
    start = np.searchsorted(added.item, item)
    lengths = np.minimum(np.searchsorted(added.item, item, side="right") - start, most)
    if not lengths.any():
        return lists
    entry = entries(start, lengths)
    number = np.concatenate([np.repeat(np.arange(len(item)), each) for each in (lists[2], lengths)])
    row = np.concatenate([lists[0], added.row[entry]])
    weight = np.concatenate([lists[1], added.weight[entry]])
    order = np.lexsort((-weight, number))
    number, row, weight = number[order], row[order], weight[order]
    whole = lists[2] + lengths
    kept = np.arange(len(number)) - np.repeat(np.cumsum(whole) - whole, whole) < most[number]
    return row[kept], weight[kept], np.minimum(whole, most)

"""What boosts add to the scores of items. Knows nothing of filters and attributes.

Items without a number here get nothing. Sums are made in single precision and in the order of the boosts, so that an
answer can be computed again from what is told of each boost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mind.artifact import Float32
from mind.nearest import Rows
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.added import is_among
from server.serving.matching import Matches
from server.serving.question import Boost


@dataclass(frozen=True)
class Part:
    """What one boost adds."""

    boost: Boost
    items: Matches
    """The items that get something."""
    added: Float32
    """[M] float32, what each of those gets that the model knows; [1] if all get the same."""
    fresh_added: Float32
    """[F] float32, the same for those that were added since; [1] if all get the same."""

    def of(self, release: Release, item_ids: Int64) -> Float32:
        """What items get, [n] float32."""
        row = release.vocabulary.item_index(item_ids)
        known = _at(self.items.rows, self.added, row)
        return np.where(row > 0, known, _at(self.items.fresh_ids, self.fresh_added, item_ids))


@dataclass(frozen=True)
class Lift:
    """What all boosts of a query add together."""

    items: Matches
    """The items that get something, or all items that there are (`whole`)."""
    added: Float32
    """[M] float32, for each of those that the model knows."""
    fresh_added: Float32
    """[F] float32, for each of those that were added since."""
    parts: Sequence[Part]
    """What each boost adds, also to items that do not match the filter of the query."""
    whole: bool = False
    """Whether `items` are all items that a candidate can come from."""

    @cached_property
    def lowers(self) -> bool:
        """Whether some items lose by it, so that items beyond the nearest may come before them."""
        return self.lowered > 0

    @cached_property
    def lowered(self) -> int:
        """How many items lose by it."""
        return int(np.count_nonzero(self.added < 0)) + int(np.count_nonzero(self.fresh_added < 0))

    @property
    def nbytes(self) -> int:
        """The memory that it takes, besides what its parts share with others."""
        return self.items.nbytes + self.added.nbytes + self.fresh_added.nbytes

    def reaching(self, least: Float32) -> Int64:
        """How many of the items that the model knows get at least so much, for each of [Q] numbers, and some others.

        Beside all of them, only powers of two come up, so that `top` keeps few parts.
        """
        falling, _ = self._falling
        count = len(falling) - np.searchsorted(falling[::-1], least, side="left")
        power: Int64 = 1 << np.ceil(np.log2(np.maximum(count, 1))).astype(np.int64)
        return np.where(count > 0, np.minimum(power, len(falling)), 0)

    def top(self, count: int) -> tuple[Rows, Float32]:
        """The rows that get most, so many of them, ascending, and what each gets."""
        if count == len(self.items.rows):
            return self.items.rows, self.added
        if count not in self._tops:
            place = np.sort(self._falling[1][:count])
            self._tops[count] = self.items.rows[place], self.added[place]
        return self._tops[count]

    @cached_property
    def _falling(self) -> tuple[Float32, Int64]:
        """What items get, the most first, and their places."""
        order = np.argsort(-self.added, kind="stable")
        return self.added[order], order

    @cached_property
    def _tops(self) -> dict[int, tuple[Rows, Float32]]:
        return {}

    def of(self, release: Release, item_ids: Int64) -> Float32:
        """What items get, [n] float32."""
        return Part(Boost(), self.items, self.added, self.fresh_added).of(release, item_ids)

    def over(self, items: Matches) -> "Lift":
        """The same for all items that a candidate can come from."""
        added, fresh_added = np.zeros(len(items.rows), np.float32), np.zeros(len(items.fresh_ids), np.float32)
        own = is_among(self.items.rows, items.rows)
        added[np.searchsorted(items.rows, self.items.rows[own])] = self.added[own]
        own = is_among(self.items.fresh_ids, items.fresh_ids)
        fresh_added[np.searchsorted(items.fresh_ids, self.items.fresh_ids[own])] = self.fresh_added[own]
        return Lift(items, added, fresh_added, self.parts, whole=True)


def lift_of(parts: Sequence[Part], rows: int, matches: Matches | None) -> Lift:
    """What boosts add together.

    Args:
        parts: what each of them adds.
        rows: of the item table.
        matches: the items that match the filter of the query; None without a filter.
    """
    total = np.zeros(rows, np.float32)
    fresh_ids = np.unique(np.concatenate([part.items.fresh_ids for part in parts]))
    fresh_added = np.zeros(len(fresh_ids), np.float32)
    vectors = np.zeros((len(fresh_ids), parts[0].items.fresh_vectors.shape[1]), np.float32)
    for part in parts:
        total[part.items.rows] += part.added
        place = np.searchsorted(fresh_ids, part.items.fresh_ids)
        fresh_added[place] += part.fresh_added
        vectors[place] = part.items.fresh_vectors
    own: Rows = np.flatnonzero(total).astype(np.int32)
    fresh = fresh_added != 0
    if matches is not None:
        own = own[is_among(own, matches.rows)]
        fresh &= is_among(fresh_ids, matches.fresh_ids)
    return Lift(Matches(own, fresh_ids[fresh], vectors[fresh]), total[own], fresh_added[fresh], parts)


def _at(items: Rows | Int64, added: Float32, wanted: Int64) -> Float32:
    """What some items get, 0 for those that are not among `items`, which ascend."""
    found = np.zeros(len(wanted), np.float32)
    there: Mask = is_among(wanted, items)
    if there.any():
        found[there] = np.broadcast_to(added, len(items))[np.searchsorted(items, wanted[there])]
    return found

"""Items that were added to a collection since its build, as neighbours of items that the model knows.

The journal says which items users clicked soon before them (`mind.fresh_items`). The item table has no rows for added
items, so here they have rows after its last one, in the order of their ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.milvus.journal import Clicked, Weights
from mind.nearest import inverse_norms
from mind.neighbours import MAX_NEIGHBOURS, AddedNeighbours
from mind.sequences import Int64
from mind.vocabulary import Mask, Vocabulary
from server.release import Release
from server.serving.matching import Matches

MAX_LINKS = 1_000_000
"""Most pairs of an added item and an item before it that are kept: 32 MB. Of more, the weakest are left out."""
LINK_ITEMS = 50
"""To read what the journal says of an item takes as long as to work through so many items."""


@dataclass(frozen=True)
class Links:
    """Which items users clicked soon before items that were added: parallel arrays, a pair each."""

    added: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    """[E] int64, the id of the added item."""
    before: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    """[E] int32, the row of the item before it."""
    weight: npt.NDArray[np.float16] = field(default_factory=lambda: np.zeros(0, np.float16))
    """[E] float16, the weight of the added item as its neighbour, above 0."""

    def updated(self, read: Int64, told: Mapping[int, str], vocabulary: Vocabulary) -> "Links":
        """The links after some items were read again.

        Args:
            read: [F] int64, the items that were read.
            told: what the journal says of those that are there, as `Clicked`.
            vocabulary: the items of the model.
        """
        pairs = [(item_id, *pair) for item_id, text in sorted(told.items()) for pair in _before(text)]
        added = np.array([item_id for item_id, _, _ in pairs], np.int64)
        row = vocabulary.item_index(np.array([before for _, before, _ in pairs], np.int64)).astype(np.int32)
        weight = np.array([weight for _, _, weight in pairs], np.float16)
        new = Links(added, row, weight)._where((row > 0) & (weight > 0) & np.isfinite(weight))
        was = np.isin(self.added, read)
        old = self._where(was)
        if len(new.added) == len(old.added) and old._where(old.added.argsort(kind="stable"))._same(new):
            return self
        others = self._where(~was)
        links = Links(
            np.concatenate([others.added, new.added]),
            np.concatenate([others.before, new.before]),
            np.concatenate([others.weight, new.weight]),
        )
        if len(links.added) <= MAX_LINKS:
            return links
        return links._where(np.sort(np.argsort(-links.weight, kind="stable")[:MAX_LINKS]))

    def _where(self, kept: Mask | Int64) -> "Links":
        return Links(self.added[kept], self.before[kept], self.weight[kept])

    def _same(self, other: "Links") -> bool:
        columns = (self.added, other.added), (self.before, other.before), (self.weight, other.weight)
        return all(np.array_equal(own, its) for own, its in columns)

    def neighbours(self, fresh_ids: Int64, items: int) -> AddedNeighbours:
        """The added items as neighbours of the items before them.

        Args:
            fresh_ids: [F] int64, ascending, the ids of all added items.
            items: N, the number of items of the model.
        """
        order = np.lexsort((self.added, -self.weight, self.before))
        before, added = self.before[order].astype(np.int64), self.added[order]
        starts = np.flatnonzero(np.append(True, before[1:] != before[:-1])[: len(before)])
        rank = np.arange(len(before)) - np.repeat(starts, np.diff(np.append(starts, len(before))))
        kept = rank < MAX_NEIGHBOURS
        row = items + 1 + np.searchsorted(fresh_ids, added[kept])
        return AddedNeighbours(before[kept], row, self.weight[order][kept])


def _before(text: str) -> Weights:
    """The items before an added one; none if another version of this project wrote something else."""
    try:
        return [(int(item_id), float(weight)) for item_id, weight in Clicked.from_json(text).before]
    except (ValueError, TypeError, LookupError):
        return []


@dataclass(frozen=True)
class ItemRows:
    """The rows of a release's item table, and after them the items that were added to its collection."""

    release: Release
    items: Matches
    """The items of the collection."""

    def _is_added(self, row: Int64) -> Mask:
        return row > len(self.release.vocabulary)

    def _place(self, row: Int64) -> Int64:
        """The places of added items, by row."""
        return row - len(self.release.vocabulary) - 1

    def item_ids(self, row: Int64) -> Int64:
        """The ids of [P] rows."""
        if not len(self.items.fresh_ids):
            return self.release.vocabulary.item_id[row - 1]
        added = self._is_added(row)
        item_ids: Int64 = self.release.vocabulary.item_id[np.where(added, 1, row) - 1]
        item_ids[added] = self.items.fresh_ids[self._place(row[added])]
        return item_ids

    def of(self, item_ids: Int64) -> Int64:
        """The rows of [P] ids; 0 where neither the model nor the collection has the item."""
        row = self.release.vocabulary.item_index(item_ids)
        fresh_ids = self.items.fresh_ids
        if len(fresh_ids):
            place = np.minimum(np.searchsorted(fresh_ids, item_ids), len(fresh_ids) - 1)
            row = np.where(fresh_ids[place] == item_ids, len(self.release.vocabulary) + 1 + place, row)
        return row

    def embeddings(self, row: Int64) -> Float32:
        """The embeddings of [P] rows, [P, D] float32."""
        if not len(self.items.fresh_ids):
            return self.release.item_embedding[row]
        added = self._is_added(row)
        embeddings = self.release.item_embedding[np.where(added, 0, row)]
        embeddings[added] = self.items.fresh_vectors[self._place(row[added])]
        return embeddings

    def inverse_norms(self, row: Int64) -> Float32:
        """1 / length of the embeddings of [P] rows, [P] float32."""
        if not len(self.items.fresh_ids):
            return self.release.inverse_norms[row]
        added = self._is_added(row)
        norms = self.release.inverse_norms[np.where(added, 0, row)]
        norms[added] = inverse_norms(self.items.fresh_vectors[self._place(row[added])])
        return norms

    def among(self, row: Int64, matches: Matches) -> Mask:
        """Whether each of [P] rows is among some items."""
        found = is_among(row, matches.rows)
        if len(self.items.fresh_ids):
            added = self._is_added(row)
            found[added] = is_among(self.items.fresh_ids[self._place(row[added])], matches.fresh_ids)
        return found


def is_among(values: npt.NDArray[np.integer], ascending: npt.NDArray[np.integer]) -> Mask:
    """Whether each of [P] rows, or ids, is among others, which ascend."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    found: Mask = ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values
    return found

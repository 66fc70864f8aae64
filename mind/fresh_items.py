"""Derives vectors of items that are not in the training data, in the space of a trained model.

A vector comes from the items that users had together with the new item, or from items with the same attributes. Scores
are inner products, so an item with a longer vector is recommended more often. This module knows nothing of Milvus.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.artifact import Float32
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary

MAX_NEIGHBOURS = 20
"""Maximum number of items that a vector is derived from."""
STRETCH = 1 / 3
"""How far the mean of the neighbours is stretched to their mean length: 0 leaves it, 1 makes it as long as they are."""
_NEAREST = 50  # number of items with the nearest numbers that are averaged
_FITTED = 20_000  # maximum number of items on which the weights of the attributes are fitted


@dataclass(frozen=True)
class Neighbours:
    """The items that users had together with a new item."""

    item_id: Int64
    """[n] int64, the greatest weight first; n is 1 to `MAX_NEIGHBOURS`."""
    weight: Float32
    """[n] float32, positive: users with both / sqrt(users with the one x users with the other)."""


def count_neighbours(sequences: Sequences, vocabulary: Vocabulary) -> Iterator[tuple[int, Neighbours]]:
    """Yield the neighbours of every item that a model does not know, by ascending id.

    Items without neighbours are left out.

    Args:
        sequences: the items of each user, new and known. A repeated item counts once.
        vocabulary: the vocabulary of the model. Neighbours are items of it.
    """
    user = np.repeat(np.arange(len(sequences)), sequences.lengths)
    order = np.lexsort((sequences.item_id, user))
    user, item_id = user[order], sequences.item_id[order]
    first = np.append(True, (user[1:] != user[:-1]) | (item_id[1:] != item_id[:-1]))[: len(user)]
    user, item_id = user[first], item_id[first]
    item_index = vocabulary.item_index(item_id)
    users = np.bincount(item_index, minlength=len(vocabulary) + 1)  # [N + 1]
    known = item_index > 0
    offsets = np.searchsorted(user[known], np.arange(len(sequences) + 1))
    had = item_index[known]  # the known items of user u: had[offsets[u]:offsets[u + 1]]
    if known.all():
        return
    fresh = np.argsort(item_id[~known], kind="stable")
    ids, start = np.unique(item_id[~known][fresh], return_index=True)
    for new, own_users in zip(ids.tolist(), np.split(user[~known][fresh], start[1:]), strict=True):
        together = np.concatenate([had[offsets[u] : offsets[u + 1]] for u in own_users.tolist()])
        rows, both = np.unique(together, return_counts=True)
        if len(rows):
            weight = both / np.sqrt(users[rows] * float(len(own_users)))
            best = np.argsort(-weight, kind="stable")[:MAX_NEIGHBOURS]
            yield new, Neighbours(vocabulary.item_id[rows[best] - 1], weight[best].round(6).astype(np.float32))


def from_neighbours(
    neighbours: Neighbours, vocabulary: Vocabulary, item_embedding: Float32, stretch: float = STRETCH
) -> Float32 | None:
    """Return the stretched weighted mean of the neighbours' vectors, [D] float32; None if the model knows no neighbour.

    The less the neighbours agree, the shorter is their mean. With that length, a new item is rarely recommended. With
    the length of its neighbours, it takes the places of trained items. So its length is |mean|^(1 - stretch) * (mean of
    the neighbours' lengths)^stretch.
    """
    row = vocabulary.item_index(neighbours.item_id)
    weight = np.where(row > 0, neighbours.weight, 0)
    vectors = item_embedding[row]  # [n, D], zero where the model does not know the item
    mean: Float32 = (weight @ vectors / max(float(weight.sum()), 1e-30)).astype(np.float32)
    length, of_neighbours = np.linalg.norm(mean), weight @ np.linalg.norm(vectors, axis=1) / max(weight.sum(), 1e-30)
    if not length > 0:
        return None
    stretched: Float32 = mean * np.float32((of_neighbours / length) ** stretch)
    return stretched


class AttributeVectors:
    """Derives vectors from the attributes of items, as learnt from the items of a model.

    Every attribute proposes a vector: the mean of the items that have the same value (for several values, the mean of
    their means), or of the items with the nearest numbers. The weight of each attribute is fitted by least squares on
    trained items, each derived as if it were new, so a title or a stock flag gets no weight. The length of the sum is
    not changed: it is the expected vector of an item of which only the attributes are known.
    """

    def __init__(self, columns: Mapping[str, Any], vectors: Float32) -> None:
        """Learn the weights of the attributes.

        Args:
            columns: for each attribute name, a pyarrow array [N] of texts, numbers, booleans or lists of them, where
                null, "" and [] mean no value. At least one attribute is needed.
            vectors: [N, D] float32, the vectors of the same items.
        """
        self._mean = vectors.mean(axis=0)
        apart = vectors - self._mean
        self._attributes = {
            name: (_Nearest if _is_number(column.type) else _Shared)(column, apart) for name, column in columns.items()
        }
        sample = np.random.default_rng(0).permutation(len(vectors))[:_FITTED]
        proposals = [part.proposed(columns[name].take(sample), apart[sample]) for name, part in self._named()]
        gram = np.array([[float((a * b).sum()) for b in proposals] for a in proposals])
        target = np.array([float((a * apart[sample]).sum()) for a in proposals])
        self._weight = np.linalg.pinv(gram, hermitian=True) @ target  # [A]

    def _named(self) -> list[tuple[str, "_Shared | _Nearest"]]:
        return list(self._attributes.items())

    def of(self, columns: Mapping[str, Any]) -> tuple[Float32, Int64]:
        """Derive the vectors of Q new items.

        Args:
            columns: the attributes that the object learnt from, [Q] each.

        Returns:
            vectors: [Q, D] float32.
            told: [Q] int64, the number of attributes that contribute; 0 where the vector is only the mean of all items.
        """
        items = len(next(iter(columns.values())))
        vectors = np.tile(self._mean, (items, 1))
        told = np.zeros(items, np.int64)
        for (name, part), weight in zip(self._named(), self._weight, strict=True):
            proposed = part.proposed(columns[name])
            vectors += weight * proposed
            told += (np.any(proposed, axis=1)) & (weight != 0)
        return vectors.astype(np.float32), told


class _Shared:
    """Proposes the mean of the items that have a value, for texts, booleans and lists."""

    def __init__(self, column: Any, apart: Float32) -> None:
        owner, values = _flat(column)
        codes = values.dictionary_encode()
        count = np.bincount(codes.indices.to_numpy(), minlength=len(codes.dictionary))
        common = np.flatnonzero(count > 1)  # a value that only one item has says nothing about others
        row_of = np.full(len(count), -1)
        row_of[common] = np.arange(len(common))
        rows = row_of[codes.indices.to_numpy()]
        self._values = codes.dictionary.take(pa.array(common))
        self._count = count[common]
        self._sum = np.zeros((len(common), apart.shape[1]))
        np.add.at(self._sum, rows[rows >= 0], apart[owner[rows >= 0]])

    def proposed(self, column: Any, own: Float32 | None = None) -> Float32:
        """Return [Q, D], 0 where no value is shared.

        `own`: the vectors of these items, to leave out if they were learnt from.
        """
        owner, values = _flat(column)
        found = pc.index_in(values, self._values).fill_null(-1).to_numpy(zero_copy_only=False)
        owner, found = owner[found >= 0], found[found >= 0]
        total, count = self._sum[found], self._count[found]
        if own is not None:
            total, count = total - own[owner], count - 1
        sums = np.zeros((len(column), self._sum.shape[1]))
        np.add.at(sums, owner, total / np.maximum(count, 1)[:, None])
        values_of = np.bincount(owner, minlength=len(column))
        return (sums / np.maximum(values_of, 1)[:, None]).astype(np.float32)


class _Nearest:
    """Proposes the mean of the items with the nearest numbers: all with the same number, and at least `_NEAREST`."""

    def __init__(self, column: Any, apart: Float32) -> None:
        values = _numbers(column)
        order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]  # NaN comes last
        self._values = values[order]
        self._sums = np.concatenate([np.zeros((1, apart.shape[1])), np.cumsum(apart[order], axis=0, dtype=np.float64)])

    def proposed(self, column: Any, own: Float32 | None = None) -> Float32:
        """Return [Q, D], 0 where there is no number.

        `own`: the vectors of these items, to leave out if they were learnt from.
        """
        values = _numbers(column)
        first = np.searchsorted(self._values, values)
        last = np.searchsorted(self._values, values, "right")
        start = np.minimum(first, ((first + last - _NEAREST) // 2).clip(0, max(len(self._values) - _NEAREST, 0)))
        stop = np.maximum(last, np.minimum(start + _NEAREST, len(self._values)))
        total, count = self._sums[stop] - self._sums[start], stop - start
        if own is not None:
            total, count = total - own, count - 1
        proposed: Float32 = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
        proposed[np.isnan(values)] = 0
        return proposed


def _flat(column: Any) -> tuple[Int64, Any]:
    """Flatten a column. Return the item of each value, and the values, without nulls and empty texts."""
    if pa.types.is_list(column.type):
        owner, values = pc.list_parent_indices(column).to_numpy(), pc.list_flatten(column)
    else:
        owner, values = np.arange(len(column)), column
    is_text = pa.types.is_large_string(values.type) or pa.types.is_string(values.type)
    filled = pc.fill_null(pc.not_equal(values, ""), False) if is_text else values.is_valid()
    return owner[filled.to_numpy(zero_copy_only=False)], values.filter(filled)


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _numbers(column: Any) -> Any:
    """Return a column as numbers: [N] float64, NaN for null."""
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

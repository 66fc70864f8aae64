"""Reads categorical features of items, such as genres or brand, from CSV or Parquet, and numbers their values."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mind.data.columns import Mask
from mind.data.ids import IdKind, KeyTable, strict_ids
from mind.data.tables import read_columns
from mind.errors import DataError
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

SEPARATOR = "|"
"""The separator of several values in one cell of a CSV file. Parquet has lists instead."""
MAX_VALUES = 64
"""Maximum number of values that an item may have of one feature."""


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of the N items of a vocabulary."""

    name: str
    values: tuple[str, ...]
    """The different values of the feature, ascending; `values[i]` has the number `i + 1`."""
    value_index: npt.NDArray[np.int32]
    """[N + 1, V] int32: numbers of each row's values, 0-padded on the right."""


@dataclass(frozen=True)
class ItemFeatures:
    """The features of the N items of a vocabulary."""

    columns: tuple[FeatureColumn, ...]
    trained: Mask
    """[N + 1] bool: rows that occur in the training data."""


@dataclass(frozen=True)
class FeatureTable:
    """The features of items as a file has them, before a vocabulary assigns rows to the items."""

    item_id: Int64
    """[M] int64, ascending: the items of the file, each once."""
    columns: dict[str, pa.ChunkedArray]
    """The features by name: [M] lists of strings each."""
    keys: KeyTable | None = None
    """The text ids of the items; None where ids are integers."""

    def align(self, vocabulary: Vocabulary, trained: Mask) -> ItemFeatures:
        """Arrange the features in the rows of a vocabulary.

        Args:
            vocabulary: the N items. Items that the file lacks have no values.
            trained: [N + 1] bool, see `ItemFeatures`.
        """
        rows = vocabulary.item_index(self.item_id)
        columns = [_number(name, lists, rows, len(vocabulary)) for name, lists in self.columns.items()]
        return ItemFeatures(tuple(columns), trained)


def read_features(
    path: Path, names: Sequence[str], item: str = "item_id", kind: IdKind = IdKind.INTEGER
) -> FeatureTable:
    """Read features of items.

    Args:
        path: CSV (plain or compressed; several values of a cell are separated by `|`) or Parquet (lists allowed).
        names: the columns to read.
        item: the column of item ids.
        kind: whether ids are integers or text.

    Raises:
        DataError: the file or a column is missing, a line is malformed, an id is invalid or occurs twice, or an
            item has more than `MAX_VALUES` values.
    """
    found = read_columns(path, [item, *names])
    ids = strict_ids(path, found, item, unique=True, kind=kind)
    order = np.argsort(ids.values)
    lists = {name: _lists(path, name, found.table.column(name).take(order)) for name in names}
    return FeatureTable(ids.values[order], lists, ids.keys)


def _lists(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    lists = column if pa.types.is_list(column.type) else pc.split_pattern(column.cast(pa.string()), SEPARATOR)
    most = pc.max(pc.list_value_length(lists)).as_py() or 0
    if most > MAX_VALUES:
        raise DataError(f"{path}: {name}: an item has {most} values, the limit is {MAX_VALUES}")
    return lists


def _number(name: str, lists: pa.ChunkedArray, rows: Int64, items: int) -> FeatureColumn:
    lists = lists.combine_chunks()  # so that parents are counted over the whole column
    owner = rows[pc.list_parent_indices(lists).to_numpy()]
    texts = pc.list_flatten(lists)
    usable = pc.and_(pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False), pa.array(owner > 0))
    texts, owner = pc.utf8_trim_whitespace(texts.filter(usable)), owner[usable.to_numpy(zero_copy_only=False)]
    values = np.array(sorted(pc.unique(texts).to_pylist()), dtype=np.str_)
    number = pc.index_in(texts, pa.array(values.tolist(), pa.string())).to_numpy().astype(np.int64) + 1
    order = np.argsort(owner, kind="stable")
    owner, number = owner[order], number[order]
    count = np.bincount(owner, minlength=items + 1)
    place = np.arange(len(owner)) - (np.cumsum(count) - count)[owner]
    value_index = np.zeros((items + 1, max(1, count.max(initial=0))), np.int32)
    value_index[owner, place] = number
    return FeatureColumn(name, tuple(values.tolist()), value_index)

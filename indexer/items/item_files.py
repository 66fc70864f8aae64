"""Reads files of new vectors, changed attributes and deleted ids.

Vectors and attributes are read in batches, so their files may be larger than memory. Such a file is read twice: `check`
reads the whole file before anything is changed. Messages count rows from 1, without the header.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import AttributesError
from indexer.items.attributes import (
    LEAST_ID,
    SEPARATOR,
    check_distinct,
    check_names,
    converted,
    is_text,
    item_ids,
    refusing,
    split_values,
)
from mind.artifact import Float32
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.sources import Source, find_files
from mind.data.tables import column_names, count_rows, read_batches
from mind.errors import DataError
from mind.keys import MAX_KEY_BYTES, key_ids
from mind.milvus.collection import EMBEDDING, ITEM_ID
from mind.milvus.schemas import Column
from mind.sequences import Int64


@dataclass(frozen=True)
class ItemFile:
    """A CSV, JSON lines or Parquet file, a directory of such files, or a URL of one. It has one row for each item."""

    path: Source
    id_column: str
    """The column that holds the item id."""
    kinds: Mapping[str, Column]
    """The type and limits of each attribute in the collection. The file may have some or all of them."""
    dim: int = 0
    """The length of the vectors in column `embedding`; 0 for a file of attributes."""
    batch_rows: int = 5_000
    """The number of rows to read at once."""
    quote: Quote | None = None
    """What quotes mean in a CSV file; None for `Quote.AUTO` in a command that has no option for it."""
    has_text_ids: bool = False
    """Whether ids are text, as they are in a collection with text ids."""

    @cached_property
    def count(self) -> LineCount:
        """Return how the lines of the file add up. Raises AttributesError if a quote swallows some."""
        with refusing():
            return count_rows(self.path, self.id_column, self.quote)

    def check(self) -> Int64:
        """Read and check the whole file. Return its item ids in ascending order.

        Raises:
            AttributesError: the file cannot be used. The message names the column, row, value and limit.
        """
        names = self._names()
        check_names(self.path, names, [self.id_column, EMBEDDING] if self.dim else [self.id_column])
        taken = [self.id_column, EMBEDDING] if self.dim else [self.id_column, *self.kinds]
        for name in names:
            if name not in taken:
                known = ", ".join(taken[1:]) or "none"
                raise AttributesError(
                    f"{self.path}: the collection has no attribute {name!r}; its attributes are {known}"
                    if not self.dim
                    else f"{self.path}: column {name!r}: a file of vectors has the columns {self.id_column} and {known}"
                )
        expected = self.count.rows
        ids = np.concatenate([np.zeros(0, np.int64), *(item_id for item_id, *_ in self.batches())])
        if len(ids) != expected:
            raise AttributesError(
                f"{self.path}: its lines hold {expected:,} rows, {len(ids):,} were read; mend its quotes and line ends"
            )
        if not len(ids):
            raise AttributesError(f"{self.path}: the file has no rows after the header")
        return check_distinct(self.path, self.id_column, ids, self._id_text)

    def batches(self) -> Iterator[tuple[Int64, list[str], dict[str, list[Any]] | Float32]]:
        """Read the file in batches: item ids [n], their text ids, and vectors [n, D] or attribute values by name.

        Text ids are "" where ids are integers. A value is None where the cell is empty.
        """
        first = 1
        for batch in self._read():
            ids = item_ids(self.path, self.id_column, batch.column(self.id_column), first, self.has_text_ids)
            if self.dim:
                yield *ids, self._vectors(batch.column(EMBEDDING), first)
            else:
                names = [name for name in batch.schema.names if name != self.id_column]
                yield *ids, {name: self._values(name, batch.column(name), first) for name in names}
            first += len(batch)

    def _id_text(self, row: int) -> str:
        """Return the id in a row, from 0, as the file spells it."""
        for batch in self._read():
            if row < len(batch):
                return str(batch.column(self.id_column)[row].as_py())
            row -= len(batch)
        return ""

    def _names(self) -> list[str]:
        with refusing():
            return column_names(self.path, self.quote)

    def _read(self) -> Iterator[Any]:
        with refusing():
            yield from read_batches(self.path, self.batch_rows, self.id_column, self.quote)

    def _values(self, name: str, column: Any, first: int) -> list[Any]:
        kind = self.kinds[name]
        if kind.type.startswith("ARRAY<") and is_text(column.type):
            column = split_values(column)
        values: list[Any] = converted(self.path, name, column, kind.type, first).to_pylist()
        for row, value in enumerate(values, first):
            if isinstance(value, list) and len(value) > kind.max_capacity:
                raise self._too_large(row, name, f"{len(value):,} values", f"{kind.max_capacity:,}")
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and len(text.encode()) > kind.max_length:
                    raise self._too_large(row, name, f"{len(text.encode()):,} bytes", f"{kind.max_length:,}")
        return values

    def _too_large(self, row: int, name: str, found: str, limit: str) -> AttributesError:
        return AttributesError(
            f"{self.path}: row {row}: {name} has {found}; the limit of this collection is {limit}, about twice the "
            "largest value of its build; build again with this value to raise the limit"
        )

    def _vectors(self, column: Any, first: int) -> Float32:
        if is_text(column.type):
            column = split_values(column)
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            if not pa.types.is_fixed_size_list(column.type):
                raise AttributesError(
                    f"{self.path}: column {EMBEDDING} is {column.type}, but it must hold lists of numbers "
                    f"(in CSV, numbers separated by {SEPARATOR!r})"
                )
            column = column.cast(pa.list_(column.type.value_type))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        if (lengths != self.dim).any():
            row = int(np.argmax(lengths != self.dim))
            raise AttributesError(
                f"{self.path}: row {row + first}: {EMBEDDING} has {lengths[row]} numbers, but the vectors of the model "
                f"have {self.dim}"
            )
        try:
            flat = pc.list_flatten(column).cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise AttributesError(
                f"{self.path}: column {EMBEDDING} holds {column.type.value_type}, of which a value is no number; "
                "it must hold lists of numbers"
            ) from error
        with np.errstate(over="ignore"):
            vectors: Float32 = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, self.dim)
        wrong = ~np.isfinite(vectors).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise AttributesError(
                f"{self.path}: row {row + first}: {EMBEDDING} has NaN, empty or infinite values; all must be finite"
            )
        return vectors


def read_ids(path: Source) -> list[tuple[str, str]]:
    """Read a text file, or a URL of one, with one item id per line. A first line `item_id` is a header.

    Returns:
        The text of each id, and where it stands, for messages.

    Raises:
        AttributesError: the file cannot be read or has no ids.
    """
    ids = []
    try:
        file = find_files(path).files[0]
        with io.TextIOWrapper(file.open(), encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if (text := line.strip()) and not (number == 1 and text == ITEM_ID):
                    ids.append((text, f"{path}: line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AttributesError(f"{path}: cannot be read: {reason or error}") from error
    except DataError as error:
        raise AttributesError(str(error)) from error
    if not ids:
        raise AttributesError(f"{path}: the file has no item ids")
    return ids


def parse_ids(texts: list[tuple[str, str]], has_text_ids: bool) -> dict[int, str]:
    """Read item ids from text.

    Args:
        texts: the text of each id, and where it stands.
        has_text_ids: whether the ids of the collection are text.

    Returns:
        The ids in ascending order, each with its text.

    Raises:
        AttributesError: a text is no item id.
    """
    if not has_text_ids:
        return dict(sorted((_parse_id(text, where), text.strip()) for text, where in texts))
    for text, where in texts:
        if not 0 < len(text.strip().encode()) <= MAX_KEY_BYTES:
            raise AttributesError(
                f"{where}: {text[:60]!r} is not an item id; ids are texts of 1 to {MAX_KEY_BYTES} bytes"
            )
    keys = [text.strip() for text, _ in texts]
    return dict(sorted(zip(key_ids(keys).tolist(), keys, strict=True)))


def _parse_id(text: str, where: str) -> int:
    digits = text.strip().removeprefix("-")
    if len(digits) <= 19 and digits.isascii() and digits.isdigit() and LEAST_ID <= int(text) < 2**63:
        return int(text)
    raise AttributesError(f"{where}: {text[:60]!r} is not an item id; ids are integers from -2^63 + 1 to 2^63 - 1")

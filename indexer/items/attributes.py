"""Item attributes from a CSV or Parquet file: what filters can be written on.

Knows nothing of Milvus but its types and limits. Rows in messages are counted from 1, after the header.
"""

import hashlib
import json
import re
import reprlib
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import AttributesError
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.tables import read_table
from mind.errors import DataError
from mind.milvus.collection import EMBEDDING, ITEM_ID, VECTOR_SOURCE
from mind.milvus.journal import FIELDS
from mind.milvus.schemas import MAX_TEXT_BYTES, Column
from mind.sequences import Int64

SEPARATOR = "|"
"""Between the values of a multi-valued CSV column."""
MAX_ARRAY_LENGTH = 4096
"""Most values in an ARRAY."""
LEAST_ID = -(2**63) + 1
"""Least item id: Milvus cannot name -2^63 in a filter."""

ARROW = {
    "INT64": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOL": pa.bool_(),
    "VARCHAR": pa.large_string(),
    "ARRAY<INT64>": pa.list_(pa.int64()),
    "ARRAY<VARCHAR>": pa.list_(pa.large_string()),
}
"""What an attribute can be, as Arrow has it."""
TYPES = tuple(ARROW)
"""The names of these types."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "like", "exists", "true", "false"}
_RESERVED = {ITEM_ID, EMBEDDING, VECTOR_SOURCE, *FIELDS, "rowid", "timestamp"} | _KEYWORDS
_CODE = "^[+-]?0[0-9xX]"  # such as 007: leading zeros mean something
_CHUNK = 65_536


@dataclass(frozen=True)
class Attribute:
    """One attribute of all items of a model."""

    name: str
    type: str
    """One of `TYPES`."""
    column: Any
    """[N] pyarrow array in the order of the model's items; null where there is no value."""
    max_length: int
    """VARCHAR: bytes of the longest value, with headroom."""
    max_capacity: int
    """ARRAY: values in the longest one, with headroom."""
    max_bytes: int
    """Bytes of the largest value."""

    @property
    def capacity(self) -> Column:
        """What the collection must be able to hold."""
        return Column(self.type, self.max_length, self.max_capacity)

    @property
    def filled(self) -> int:
        """Items that have a value."""
        return len(self.column) - int(self.column.null_count)

    def values(self, start: int, stop: int) -> list[Any]:
        """Values of some items; Milvus 2.3 knows no null, so an absent one is "", 0, 0.0, false or []."""
        absent = absent_of(self.type)
        return [absent if value is None else value for value in self.column.slice(start, stop - start).to_pylist()]


@dataclass(frozen=True)
class Attributes:
    """The attributes of all items of a model."""

    columns: tuple[Attribute, ...] = ()
    missing: int = 0
    """Items of the model that the file does not have."""
    unknown: int = 0
    """Rows of the file whose item the model does not know; they are left out."""
    count: LineCount = field(default_factory=lambda: LineCount(0))
    """How the lines of the file add up."""

    @property
    def capacities(self) -> dict[str, Column]:
        """Attribute name to what the collection must be able to hold."""
        return {column.name: column.capacity for column in self.columns}

    @property
    def types(self) -> dict[str, str]:
        """Attribute name to type."""
        return {column.name: column.type for column in self.columns}

    @property
    def digest(self) -> str:
        """sha256 of names, types and values, whatever the order of rows and columns in the file; "" without any."""
        if not self.columns:
            return ""
        digest = hashlib.sha256()
        for column in sorted(self.columns, key=lambda column: column.name):
            digest.update(f"{column.name} {column.type}\n".encode())
            for start in range(0, len(column.column), _CHUNK):
                digest.update(json.dumps(column.values(start, start + _CHUNK)).encode())
        return digest.hexdigest()


def absent_of(kind: str) -> Any:
    """What stands for no value of a type."""
    return {"INT64": 0, "DOUBLE": 0.0, "BOOL": False, "VARCHAR": ""}.get(kind, [])


def read_attributes(
    path: Path,
    item_id: Int64,
    id_column: str = ITEM_ID,
    multi_valued: Collection[str] = (),
    types: Mapping[str, str] | None = None,
    quote: Quote | None = None,
) -> Attributes:
    """Read the attributes of the items that a model knows.

    Args:
        path: `.csv` with a header line, `.parquet`, or a directory of Parquet files.
        item_id: [N] int64, strictly ascending: the model's items.
        id_column: column that holds the item id.
        multi_valued: text columns to split at `SEPARATOR`.
        types: column to one of `TYPES`, for columns whose type must not be left to the data.
        quote: what quotes mean in a CSV file.

    Raises:
        AttributesError: the file cannot be used; with column, row, value and limit.
    """
    with refusing():
        table, count = read_table(path, id_column, quote)
    types = types or {}
    for name, kind in types.items():
        if kind not in TYPES:
            raise AttributesError(f"{path}: column {name} cannot be {kind!r}, only {', '.join(TYPES)}")
    _check_columns(path, table.column_names, id_column, [*multi_valued, *types])
    names = [name for name in table.column_names if name != id_column]
    found = item_ids(path, id_column, table.column(id_column).combine_chunks())
    check_distinct(path, id_column, found)
    if not len(found):
        raise AttributesError(f"{path}: a header and no rows")
    position = np.searchsorted(item_id, found).clip(max=len(item_id) - 1)
    known = item_id[position] == found
    if not known.any():
        raise AttributesError(f"{path}: none of its {len(found):,} item ids, such as {found[0]}, is one of the model's")
    row = np.zeros(len(item_id), np.int64)
    missing = np.ones(len(item_id), bool)
    row[position[known]] = np.flatnonzero(known)
    missing[position[known]] = False
    take = pa.array(row, mask=missing)
    columns = []
    for name in names:
        column = table.column(name).combine_chunks()
        if name in multi_valued and is_text(column.type):
            column = split_values(column)
        kind = types.get(name) or _type_of(path, name, column)
        columns.append(_measured(path, name, kind, converted(path, name, column, kind), take))
    return Attributes(tuple(columns), int(missing.sum()), int((~known).sum()), count)


@contextmanager
def refusing() -> Iterator[None]:
    """Raise AttributesError for a file that `mind.data.tables` cannot read."""
    try:
        yield
    except DataError as error:
        raise AttributesError(str(error)) from error


def _check_columns(path: Path, names: list[str], id_column: str, asked: list[str]) -> None:
    check_names(path, names, [id_column, *asked])
    if len(names) == 1:
        raise AttributesError(f"{path}: has no column but {id_column!r}")
    for name in names:
        if name == id_column:
            continue
        if not _NAME.fullmatch(name):
            raise AttributesError(
                f"{path}: column {name!r}: Milvus takes letters, digits and underscores, no digit in front, "
                "255 characters at most; rename the column"
            )
        if name.lower() in _RESERVED:
            raise AttributesError(f"{path}: column {name!r}: the name is reserved; rename the column")


def check_names(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a file that lacks a column, or has two of a name. Raises AttributesError."""
    for name in needed:
        if name not in names:
            raise AttributesError(f"{path}: has no column {name!r}; its columns are {', '.join(names)}")
    for name in names:
        if names.count(name) > 1:
            raise AttributesError(f"{path}: has {names.count(name)} columns {name!r}")


def item_ids(path: Path, name: str, column: Any, first: int = 1) -> Int64:
    """The ids in a column, the first of which is in row `first` of the file: [n] int64. Raises AttributesError."""
    if not pa.types.is_integer(column.type) and not (path.suffix == ".csv" and is_text(column.type)):
        raise AttributesError(f"{path}: column {name} is {column.type}, item ids are INT64")
    if column.null_count:
        raise AttributesError(f"{path}: row {pc.index(column.is_null(), True).as_py() + first}: {name} is empty")
    found: Int64 = np.asarray(converted(path, name, column, "INT64", first))
    low = np.flatnonzero(found < LEAST_ID)
    if len(low):
        raise AttributesError(f"{path}: row {low[0] + first}: {name} is {found[low[0]]}, ids begin at -2^63 + 1")
    return found


def check_distinct(path: Path, name: str, item_id: Int64) -> Int64:
    """All ids of a file, ascending. Raises AttributesError if one is there twice."""
    order = np.argsort(item_id, kind="stable")
    repeated = np.flatnonzero(np.diff(item_id[order]) == 0)
    if len(repeated):
        one, other = order[repeated[0]], order[repeated[0] + 1]
        raise AttributesError(f"{path}: row {other + 1}: {name} {item_id[other]} is in row {one + 1} already")
    return item_id[order]


def _type_of(path: Path, name: str, column: Any) -> str:
    """The type that a column declares (Parquet) or that all its values fit (CSV, where everything is text)."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if path.suffix == ".csv":
        is_list = pa.types.is_list(kind)
        if column.null_count == len(column) or (
            not is_list and pc.any(pc.match_substring_regex(column, _CODE)).as_py()
        ):
            return "ARRAY<VARCHAR>" if is_list else "VARCHAR"
        kinds = ("ARRAY<INT64>", "ARRAY<VARCHAR>") if is_list else ("INT64", "DOUBLE", "BOOL", "VARCHAR")
        return next(kind for kind in kinds if _cast(column, kind) is not None)
    if _is_list(kind):
        element = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
        if pa.types.is_integer(element) or is_text(element):
            return "ARRAY<INT64>" if pa.types.is_integer(element) else "ARRAY<VARCHAR>"
    elif pa.types.is_integer(kind):
        return "INT64"
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "DOUBLE"
    elif pa.types.is_boolean(kind):
        return "BOOL"
    elif is_text(kind):
        return "VARCHAR"
    raise AttributesError(
        f"{path}: column {name} is {kind}, an attribute is one of {', '.join(TYPES)}; convert or remove the column"
    )


def converted(path: Path, name: str, column: Any, kind: str, first: int = 1) -> Any:
    """A column, which begins in row `first` of the file, as one of `TYPES`. Raises AttributesError."""
    found = _cast(column, kind)
    if found is None:
        row = bisect_left(range(len(column)), True, key=lambda row: _cast(column.slice(0, row + 1), kind) is None)
        raise AttributesError(
            f"{path}: row {row + first}: {name} is {reprlib.repr(column[row].as_py())}, which is no {kind}"
        )
    return found


def _cast(column: Any, kind: str) -> Any | None:
    """The column as a type; None if a value does not fit, is not finite, or is an absent one inside an array."""
    try:
        converted = column.cast(ARROW[kind])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if kind == "DOUBLE" and pc.all(pc.is_finite(converted)).as_py() is False:
        return None
    if kind.startswith("ARRAY<") and pc.list_flatten(converted).null_count:
        return None
    return converted


def _measured(path: Path, name: str, kind: str, column: Any, take: Any) -> Attribute:
    values, row_of, most, longest = column, np.arange(len(column)), 0, 0
    if kind.startswith("ARRAY<"):
        values, row_of = pc.list_flatten(column), np.asarray(pc.list_parent_indices(column))
        lengths = pc.list_value_length(column)
        most = pc.max(lengths).as_py() or 0
        if most > MAX_ARRAY_LENGTH:
            row = pc.index(lengths, most).as_py() + 1
            raise AttributesError(f"{path}: row {row}: {name} has {most:,} values, the limit is {MAX_ARRAY_LENGTH:,}")
    if is_text(values.type):
        sizes = pc.binary_length(values)
        longest = pc.max(sizes).as_py() or 0
        if longest > MAX_TEXT_BYTES:
            row = row_of[pc.index(sizes, longest).as_py()] + 1
            raise AttributesError(f"{path}: row {row}: {name} has {longest:,} bytes, the limit is {MAX_TEXT_BYTES:,}")
    return Attribute(
        name=name,
        type=kind,
        column=column.take(take),
        max_length=min(MAX_TEXT_BYTES, max(64, 2 * longest)),
        max_capacity=min(MAX_ARRAY_LENGTH, max(16, 2 * most)),
        max_bytes=max(longest, 8) * max(most, 1),
    )


def split_values(column: Any) -> Any:
    """A column of texts as lists of texts, split at `SEPARATOR`."""
    return pa.array(
        [
            None if text is None else [part.strip() for part in text.split(SEPARATOR) if part.strip()]
            for text in column.to_pylist()
        ],
        pa.list_(pa.large_string()),
    )


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is one of the kinds of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

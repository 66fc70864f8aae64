"""Reads item attributes, which filters can use, from a CSV or Parquet file.

This module knows only the types and limits of Milvus. Messages count rows from 1, without the header.
"""

import hashlib
import json
import re
import reprlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from indexer.errors import AttributesError
from mind.data.line_count import LineCount
from mind.data.quotes import Quote
from mind.data.roles import find_column
from mind.data.sources import Source, cells_are_text
from mind.data.spellings import refuse_two_spellings
from mind.data.tables import column_names, read_table
from mind.errors import DataError
from mind.keys import MAX_KEY_BYTES, Keys, key_ids
from mind.milvus.collection import EMBEDDING, ITEM_ID, ITEM_KEY, VECTOR_SOURCE, is_presence, presence_of
from mind.milvus.journal import FIELDS
from mind.milvus.schemas import MAX_TEXT_BYTES, Column
from mind.sequences import Int64

SEPARATOR = "|"
"""The separator between the values of a multi-valued CSV column."""
MAX_ARRAY_LENGTH = 4096
"""Maximum number of values in an ARRAY."""
LEAST_ID = -(2**63) + 1
"""The smallest item id. Milvus cannot read -2^63 in a filter."""

ARROW = {
    "INT64": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOL": pa.bool_(),
    "VARCHAR": pa.large_string(),
    "ARRAY<INT64>": pa.list_(pa.int64()),
    "ARRAY<VARCHAR>": pa.list_(pa.large_string()),
}
"""The types that an attribute can have, and the Arrow type of each."""
TYPES = tuple(ARROW)
"""The names of the types that an attribute can have."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_KEYWORDS = {"and", "or", "not", "in", "is", "null", "like", "exists", "true", "false"}
_KEYWORDS |= {f"{kind}_contains{which}" for kind in ("array", "json") for which in ("", "_all", "_any")}
_KEYWORDS |= {"array_length", "text_match", "phrase_match", "random_sample"}  # Milvus 2.4 and 2.5 refuse these, too
_RESERVED = {ITEM_ID, ITEM_KEY, EMBEDDING, VECTOR_SOURCE, *FIELDS, "rowid", "timestamp"} | _KEYWORDS
_CODE = "^[+-]?0[0-9xX]"  # such as 007: leading zeros mean something
_CHUNK = 65_536


@dataclass(frozen=True)
class Attribute:
    """One attribute with its values for all items of a model."""

    name: str
    type: str
    """One of `TYPES`."""
    column: Any
    """[N] pyarrow array in the order of the model's items; null where there is no value."""
    max_length: int
    """For VARCHAR: the maximum bytes of a value that the collection takes, more than the longest value needs."""
    max_capacity: int
    """For ARRAY: the maximum number of values that the collection takes, more than the longest array needs."""
    max_bytes: int
    """Size of the largest value in bytes."""

    @property
    def capacity(self) -> Column:
        """Return the type and size that the field in the collection needs."""
        return Column(self.type, self.max_length, self.max_capacity)

    @property
    def filled(self) -> int:
        """Return the number of items that have a value."""
        return len(self.column) - int(self.column.null_count)

    @property
    def presence(self) -> "Attribute":
        """Return the attribute that tells which items have a value of this one (`mind.milvus.collection.PRESENCE`)."""
        return Attribute(presence_of(self.name), "BOOL", self.column.is_valid(), 0, 0, max_bytes=8)

    def values(self, start: int, stop: int) -> list[Any]:
        """Return the values of some items as they are stored: "", 0, 0.0, false or [] where there is no value."""
        absent = absent_of(self.type)
        return [absent if value is None else value for value in self.column.slice(start, stop - start).to_pylist()]


@dataclass(frozen=True)
class Attributes:
    """All attributes of the items of a model."""

    columns: tuple[Attribute, ...] = ()
    missing: int = 0
    """Number of items of the model that the file does not have."""
    unknown: int = 0
    """Rows of the file whose item the model does not know; they are left out."""
    count: LineCount = field(default_factory=lambda: LineCount(0))
    """How the lines of the file add up."""
    padded: int = 0
    """Ids of the file whose leading zeros were dropped."""

    @property
    def capacities(self) -> dict[str, Column]:
        """Return the type and size that each field in the collection needs, by attribute name."""
        return {column.name: column.capacity for column in self.columns}

    @property
    def types(self) -> dict[str, str]:
        """Return the type of each attribute, by name."""
        return {column.name: column.type for column in self.columns}

    @property
    def digest(self) -> str:
        """Return the sha256 of names, types and values; empty without attributes.

        The order in the file does not matter.
        """
        if not self.columns:
            return ""
        digest = hashlib.sha256()
        for column in sorted(self.columns, key=lambda column: column.name):
            digest.update(f"{column.name} {column.type}\n".encode())
            for start in range(0, len(column.column), _CHUNK):
                digest.update(json.dumps(column.column.slice(start, _CHUNK).to_pylist()).encode())
        return digest.hexdigest()


def absent_of(kind: str) -> Any:
    """Return what a field of a type holds where there is no value, as Milvus 2.3 has no null."""
    return {"INT64": 0, "DOUBLE": 0.0, "BOOL": False, "VARCHAR": ""}.get(kind, [])


def read_attributes(
    path: Source,
    item_id: Int64,
    id_column: str = ITEM_ID,
    multi_valued: Collection[str] = (),
    types: Mapping[str, str] | None = None,
    quote: Quote | None = None,
    keys: Keys | None = None,
) -> Attributes:
    """Read the attributes of the items that a model knows.

    Args:
        path: `.csv` with a header line, `.jsonl`, `.parquet`, a directory of such files, or such a URL.
        item_id: [N] int64, strictly ascending: the model's items.
        id_column: column that holds the item id.
        multi_valued: text columns to split at `SEPARATOR`.
        types: the type of a column, one of `TYPES`; the types of other columns are taken from the data.
        quote: what quotes mean in a CSV file.
        keys: the text ids of the model's items; None where ids are integers.

    Raises:
        AttributesError: the file cannot be used. The message names the column, row, value and limit.
    """
    with refusing():
        table, count = read_table(path, id_column, quote)
    types = types or {}
    for name, kind in types.items():
        if kind not in TYPES:
            raise AttributesError(
                f"{path}: column {name} cannot have the type {kind!r}; the types are {', '.join(TYPES)}"
            )
    _check_columns(path, table.column_names, id_column, [*multi_valued, *types])
    row, missing, padded = _rows_of(path, id_column, table.column(id_column), item_id, keys)
    take = pa.array(row, mask=missing)
    columns = []
    for name in table.column_names:
        if name == id_column:
            continue
        column = table.column(name).combine_chunks()
        if name in multi_valued and is_text(column.type):
            column = split_values(column)
        kind = types.get(name) or _type_of(path, name, column)
        columns.append(_measured(path, name, kind, converted(path, name, column, kind), take))
    absent = int(missing.sum())
    return Attributes(tuple(columns), absent, len(table) - (len(item_id) - absent), count, padded)


def _rows_of(
    path: Source, id_column: str, column: Any, item_id: Int64, keys: Keys | None
) -> tuple[Int64, npt.NDArray[np.bool_], int]:
    """Match the items of a model to the rows of a file.

    Args:
        path: the file, for messages.
        id_column: name of the column with the ids.
        column: its values.
        item_id: [N] int64, strictly ascending: the model's items.
        keys: their text ids; None where ids are integers.

    Returns:
        row: [N] int64, the row of each item, from 0.
        missing: [N] bool, the items that the file does not have; their rows mean nothing.
        padded: ids of the file whose leading zeros were dropped.
    """
    ids = column.combine_chunks()
    found, texts = item_ids(path, id_column, ids, is_text_id=keys is not None)
    check_distinct(path, id_column, found, lambda row: str(ids[row].as_py()))
    padded = 0 if keys else refuse_two_spellings(path, id_column, column, found, np.arange(1, len(found) + 1), "row")
    if not len(found):
        raise AttributesError(f"{path}: the file has no rows after the header")
    position = np.searchsorted(item_id, found).clip(max=len(item_id) - 1)
    known = np.flatnonzero(item_id[position] == found)
    if not len(known):
        raise AttributesError(
            f"{path}: the model knows none of the {len(found):,} item ids, such as {ids[0].as_py()}; "
            f"check that column {id_column} holds the ids that the model was trained with"
        )
    if keys:
        for at, key in zip(known.tolist(), keys.at(position[known]), strict=True):
            check_key(path, texts[at], key)
    row, missing = np.zeros(len(item_id), np.int64), np.ones(len(item_id), bool)
    row[position[known]], missing[position[known]] = known, False
    return row, missing, padded


def find_id_column(path: Source, quote: Quote | None = None) -> str:
    """Find the column of item ids by the names that such columns usually have, such as sku. Raises AttributesError."""
    with refusing():
        return find_column(path, column_names(path, quote), "item", "--id-column")


@contextmanager
def refusing() -> Iterator[None]:
    """Turn an error of `mind.data.tables`, which could not read a file, into an AttributesError."""
    try:
        yield
    except DataError as error:
        raise AttributesError(str(error)) from error


def _check_columns(path: Source, names: list[str], id_column: str, asked: list[str]) -> None:
    check_names(path, names, [id_column, *asked])
    if len(names) == 1:
        raise AttributesError(f"{path}: the only column is {id_column!r}; add a column for each attribute")
    for name in names:
        if name == id_column:
            continue
        if not _NAME.fullmatch(name):
            raise AttributesError(
                f"{path}: column {name!r}: a name in Milvus has letters, digits and underscores, does not begin with "
                "a digit, and has at most 255 characters; rename the column"
            )
        if name.lower() in _RESERVED or is_presence(name):
            raise AttributesError(f"{path}: column {name!r}: the name is reserved; rename the column")


def check_names(path: Source, names: Sequence[str], needed: Sequence[str]) -> None:
    """Check that a file has all needed columns and no two with the same name. Raises AttributesError."""
    for name in needed:
        if name not in names:
            raise AttributesError(f"{path}: has no column {name!r}; its columns are {', '.join(names)}")
    for name in names:
        if names.count(name) > 1:
            raise AttributesError(f"{path}: has {names.count(name)} columns {name!r}; remove or rename all but one")


def item_ids(path: Source, name: str, column: Any, first: int = 1, is_text_id: bool = False) -> tuple[Int64, list[str]]:
    """Read the ids in a column.

    Args:
        path: the file, for messages.
        name: the name of the column.
        column: the values of the column.
        first: the row of its first value in the file.
        is_text_id: whether ids are text.

    Returns:
        item_id: [n] int64.
        keys: [n], the text ids; "" where ids are integers.

    Raises:
        AttributesError: a value is no id.
    """
    if is_text_id:
        return _text_ids(path, name, column, first)
    if not pa.types.is_integer(column.type) and not (is_text(column.type) and cells_are_text(path)):
        raise AttributesError(f"{path}: column {name} is {column.type}, but item ids must be 64-bit integers")
    if column.null_count:
        raise AttributesError(f"{path}: row {pc.index(column.is_null(), True).as_py() + first}: {name} is empty")
    found: Int64 = np.asarray(converted(path, name, column, "INT64", first))
    low = np.flatnonzero(found < LEAST_ID)
    if len(low):
        raise AttributesError(
            f"{path}: row {low[0] + first}: {name} is {found[low[0]]}, but the smallest item id is -2^63 + 1"
        )
    return found, [""] * len(found)


def _text_ids(path: Source, name: str, column: Any, first: int) -> tuple[Int64, list[str]]:
    try:
        texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise AttributesError(f"{path}: column {name} is {column.type}, but item ids must be text") from error
    valid = pc.and_(pc.greater(texts, ""), pc.less_equal(pc.binary_length(texts), MAX_KEY_BYTES)).fill_null(False)
    if not pc.all(valid).as_py() and len(texts):
        row = pc.index(valid, False).as_py()
        found = texts[row].as_py() or ""
        told = f"has {len(found.encode()):,} bytes; the limit is {MAX_KEY_BYTES}" if found else "is empty"
        raise AttributesError(f"{path}: row {row + first}: {name} {told}")
    keys: list[str] = texts.to_pylist()
    return key_ids(keys), keys


def check_key(where: Source | str, key: str, there: str) -> None:
    """Raise AttributesError if an item and an item of the collection have the same hash, but different text ids."""
    if key != there:
        raise AttributesError(f"{where}: {key!r} has the same hash as {there!r}, another item; rename one of them")


def check_distinct(path: Source, name: str, item_id: Int64, text: Callable[[int], str]) -> Int64:
    """Sort the ids of a file in ascending order. Raises AttributesError if an id occurs twice.

    `text` gives the id in a row, from 0, as the file spells it.
    """
    order = np.argsort(item_id, kind="stable")
    repeated = np.flatnonzero(np.diff(item_id[order]) == 0)
    if len(repeated):
        one, other = order[repeated[0]], order[repeated[0] + 1]
        spelt, before = text(int(other)), text(int(one))
        note = f", spelt {before!r} there and {spelt!r} here; ids are integers" if spelt != before else ""
        if note and int(item_id[other]) == key_ids([spelt])[0]:
            check_key(f"{path}: row {other + 1}", spelt, before)
        shown = spelt if not note else item_id[other]
        raise AttributesError(
            f"{path}: row {other + 1}: {name} {shown} is in row {one + 1} already{note}; keep one row for each item"
        )
    return item_id[order]


def _type_of(path: Source, name: str, column: Any) -> str:
    """Return the type that a column declares (Parquet), or the first type that all its values fit (CSV is all text)."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if cells_are_text(path):
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
        f"{path}: column {name} is {kind}, but an attribute is one of {', '.join(TYPES)}; convert or remove the column"
    )


def converted(path: Source, name: str, column: Any, kind: str, first: int = 1) -> Any:
    """Convert a column to one of `TYPES`. `first` is the row of its first value in the file. Raises AttributesError."""
    found = _cast(column, kind)
    if found is None:
        row = bisect_left(range(len(column)), True, key=lambda row: _cast(column.slice(0, row + 1), kind) is None)
        raise AttributesError(
            f"{path}: row {row + first}: {name} is {reprlib.repr(column[row].as_py())}, which is not a valid {kind}"
        )
    return found


def _cast(column: Any, kind: str) -> Any | None:
    """Cast a column to a type. Return None if a value does not fit, is not finite, or is missing inside an array."""
    try:
        converted = column.cast(ARROW[kind])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if kind == "DOUBLE" and pc.all(pc.is_finite(converted)).as_py() is False:
        return None
    if kind.startswith("ARRAY<") and pc.list_flatten(converted).null_count:
        return None
    return converted


def _measured(path: Source, name: str, kind: str, column: Any, take: Any) -> Attribute:
    values, row_of, most, longest = column, np.arange(len(column)), 0, 0
    if kind.startswith("ARRAY<"):
        values, row_of = pc.list_flatten(column), np.asarray(pc.list_parent_indices(column))
        lengths = pc.list_value_length(column)
        most = pc.max(lengths).as_py() or 0
        if most > MAX_ARRAY_LENGTH:
            row = pc.index(lengths, most).as_py() + 1
            raise AttributesError(f"{path}: row {row}: {name} has {most:,} values; the limit is {MAX_ARRAY_LENGTH:,}")
    if is_text(values.type):
        sizes = pc.binary_length(values)
        longest = pc.max(sizes).as_py() or 0
        if longest > MAX_TEXT_BYTES:
            row = row_of[pc.index(sizes, longest).as_py()] + 1
            raise AttributesError(f"{path}: row {row}: {name} has {longest:,} bytes; the limit is {MAX_TEXT_BYTES:,}")
    return Attribute(
        name=name,
        type=kind,
        column=column.take(take),
        max_length=min(MAX_TEXT_BYTES, max(64, 2 * longest)),
        max_capacity=min(MAX_ARRAY_LENGTH, max(16, 2 * most)),
        max_bytes=max(longest, 8) * max(most, 1),
    )


def split_values(column: Any) -> Any:
    """Split each text of a column at `SEPARATOR` into a list of texts."""
    return pa.array(
        [
            None if text is None else [part.strip() for part in text.split(SEPARATOR) if part.strip()]
            for text in column.to_pylist()
        ],
        pa.list_(pa.large_string()),
    )


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is a text type."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

"""Columns of ids: integers of 64 bits as they are, or text ("keys"), whose ids `mind.keys` makes.

Works on whole columns: Python code runs for every different key, not for every row.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mind.data.columns import Mask, parse_ids
from mind.data.spellings import refuse_two_spellings
from mind.data.tables import Columns, shorten
from mind.errors import DataError
from mind.keys import MAX_KEY_BYTES, Keys, key_ids
from mind.sequences import Int64

_HASHED_AT_ONCE = 1 << 20
_ZEROS = "^-?0[0-9]"
_DECIMAL = r"^-?[0-9]+\.[0-9]*$"


class IdKind(StrEnum):
    """How a column of ids is read."""

    AUTO = "auto"
    """As text where more values than may be malformed are no integers, or where one begins with a zero."""
    INTEGER = "integer"
    TEXT = "text"


@dataclass(frozen=True)
class KeyTable:
    """The keys of ids, and so the ids of keys."""

    ids: Int64
    """[N] int64, strictly ascending."""
    keys: pa.LargeStringArray
    """[N], the key of each."""

    def of(self, ids: Int64) -> Keys:
        """The keys of some ids. Raises DataError if one has none."""
        position = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        missing = np.flatnonzero(self.ids[position] != ids)
        if len(missing):
            raise DataError(f"{len(missing):,} ids have no text, {ids[missing[0]]} for one; prepare the data again")
        return _as_keys(self.keys.take(pa.array(position)))

    def name(self, one: int) -> str:
        """The key of one id. Raises DataError if it has none."""
        return self.of(np.array([one])).at(np.array([0]))[0]

    def join(self, other: "KeyTable") -> "KeyTable":
        """All keys of two tables. Raises DataError if one id has two keys."""
        ids = np.concatenate([self.ids, other.ids])
        return _distinct("the data and the features of items", ids, pa.concat_arrays([self.keys, other.keys]))


@dataclass(frozen=True)
class Ids:
    """A column of N ids."""

    values: Int64
    """[N] int64; 0 where there is none."""
    valid: Mask
    """[N] bool, where there is one."""
    keys: KeyTable | None = None
    """The keys of the values; None where they are integers."""
    padded: int = 0
    """Integers whose leading zeros were dropped."""

    @property
    def expected(self) -> str:
        """What every value should be, in words."""
        return f"an id of at most {MAX_KEY_BYTES} bytes" if self.keys else "an integer of 64 bits"


def read_ids(path: Path, found: Columns, name: str, kind: IdKind, stray: float = 0) -> Ids:
    """Read a column of ids.

    Args:
        path: the file, for messages.
        found: its columns.
        name: which of them.
        kind: whether ids are integers or text.
        stray: share of values, 0 to 1, that may be no integers in a column that `AUTO` takes for integers.

    Raises:
        DataError: integers are spelt in two ways, or written as decimal numbers; or two keys have the same id.
    """
    column = found.table.column(name)
    if pa.types.is_list(column.type):
        return Ids(*parse_ids(column))
    if kind is IdKind.TEXT or (kind is IdKind.AUTO and _is_text(path, found, name, stray)):
        return _read_keys(path, name, column)
    values, valid = parse_ids(column)
    return Ids(values, valid, padded=refuse_two_spellings(path, name, column, values, found.lines, found.unit))


def strict_ids(path: Path, found: Columns, name: str, unique: bool = False, kind: IdKind = IdKind.INTEGER) -> Ids:
    """Read a column of ids, every one of which must be valid.

    Raises:
        DataError: a line has too many or too few columns, a value is no id, an integer is spelt in two ways (007 and
            7), or, where they must be `unique`, one occurs twice.
    """
    if found.misfits:
        line, fault = found.misfits[0]
        raise DataError(f"{path}: line {line}: {fault}")
    ids = read_ids(path, found, name, kind)
    column = found.table.column(name)
    if not ids.valid.all():
        row = int(ids.valid.argmin())
        text = shorten(str(column[row].as_py() or ""))
        raise DataError(f"{path}: {found.unit} {found.lines[row]}: {name} is {text}, not {ids.expected}")
    order = np.argsort(ids.values, kind="stable")
    repeated = order[1:][ids.values[order[1:]] == ids.values[order[:-1]]]
    if unique and len(repeated):
        raise DataError(f"{path}: {name} {column[int(repeated[0])].as_py()} occurs more than once")
    return ids


def write_keys(file: Path, table: KeyTable) -> None:
    """Write keys to a Parquet file with the columns id and key."""
    pq.write_table(pa.table({"id": table.ids, "key": table.keys}), file)


def read_keys(file: Path) -> KeyTable | None:
    """Read what `write_keys` wrote; None if there is no such file. Raises DataError."""
    try:
        table = pq.read_table(file, columns=["id", "key"])
        ids, keys = table.column("id").cast(pa.int64()), table.column("key").cast(pa.large_string())
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())}; prepare the data again") from error
    return KeyTable(ids.to_numpy(), keys.combine_chunks())


def _is_text(path: Path, found: Columns, name: str, stray: float) -> bool:
    column = found.table.column(name)
    if pa.types.is_integer(column.type):
        return False
    if pc.any(pc.match_substring_regex(column, _ZEROS)).as_py():
        return True
    others = ~parse_ids(column)[1] & column.is_valid().to_numpy()
    if others.sum() <= stray * len(column):
        return False
    decimal = pc.match_substring_regex(column.filter(pa.array(others)), _DECIMAL)
    if pc.all(decimal).as_py():
        row = int(others.argmax())
        raise DataError(
            f"{path}: {found.unit} {found.lines[row]}: {name} is {column[row].as_py()}, a decimal number; ids are "
            "integers or text. Write integers (pandas makes decimal numbers of them where a value is missing), or give "
            "--ids text to take them as they are"
        )
    return True


def _read_keys(path: Path, name: str, column: pa.ChunkedArray) -> Ids:
    texts = column.cast(pa.large_string())
    valid = pc.less_equal(pc.binary_length(texts), MAX_KEY_BYTES).fill_null(False)
    coded = pc.if_else(valid, texts, None).combine_chunks().dictionary_encode()
    keys = coded.dictionary
    found = [
        key_ids(keys[start : start + _HASHED_AT_ONCE].to_pylist()) for start in range(0, len(keys), _HASHED_AT_ONCE)
    ]
    of_key = np.concatenate([np.zeros(0, np.int64), *found])
    table = _distinct(f"{path}: {name}", of_key, keys)
    is_valid = valid.to_numpy()
    row = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    values = np.where(is_valid, of_key[row], 0) if len(of_key) else np.zeros(len(row), np.int64)
    return Ids(values, is_valid, table)


def _distinct(where: str, ids: Int64, keys: pa.LargeStringArray) -> KeyTable:
    """Sort keys by their ids. Raises DataError if two keys have the same id."""
    order = np.argsort(ids, kind="stable")
    ids, keys = ids[order], keys.take(pa.array(order))
    same = np.flatnonzero(ids[1:] == ids[:-1])
    other = same[pc.not_equal(keys.take(pa.array(same)), keys.take(pa.array(same + 1))).to_numpy(zero_copy_only=False)]
    if len(other):
        one, two = keys[int(other[0])].as_py(), keys[int(other[0]) + 1].as_py()
        raise DataError(f"{where}: {one!r} and {two!r} have the same hash, {ids[other[0]]}; rename one of them")
    once = np.append(True, ids[1:] != ids[:-1])[: len(ids)]
    return KeyTable(ids[once], keys.filter(pa.array(once)))


def _as_keys(keys: pa.LargeStringArray) -> Keys:
    _, offsets, text = keys.buffers()
    starts = np.frombuffer(offsets, np.int64)[keys.offset : keys.offset + len(keys) + 1]
    content = np.frombuffer(text or b"", np.uint8)[starts[0] : starts[-1]]
    return Keys(starts - starts[0], content)

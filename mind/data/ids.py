"""Columns of ids: integers of 64 bits, or text ("keys"), for which `mind.keys` makes integers.

The module works on whole columns: Python code runs for every different key, not for every row.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mind.data.columns import Mask, parse_ids
from mind.data.id_counts import IdCounts, count_ids
from mind.data.spellings import Spellings
from mind.data.tables import Columns
from mind.data.text_blocks import shorten
from mind.errors import DataError
from mind.keys import MAX_KEY_BYTES, Keys, key_ids
from mind.sequences import Int64

_HASHED_AT_ONCE = 1 << 20


class IdKind(StrEnum):
    """The type of a column of ids."""

    AUTO = "auto"
    """Text if more values than may be malformed are not integers, or if a value begins with a zero; otherwise integers.
    """
    INTEGER = "integer"
    TEXT = "text"


@dataclass(frozen=True)
class KeyTable:
    """The text ids (keys) of integer ids."""

    ids: Int64
    """[N] int64, strictly ascending."""
    keys: pa.LargeStringArray
    """[N], the key of each id."""

    def of(self, ids: Int64) -> Keys:
        """Return the keys of some ids. Raises DataError if an id has no key."""
        position = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        missing = np.flatnonzero(self.ids[position] != ids)
        if len(missing):
            raise DataError(f"{len(missing):,} ids have no text, such as {ids[missing[0]]}; prepare the data again")
        return _as_keys(self.keys.take(pa.array(position)))

    def name(self, one: int) -> str:
        """Return the key of one id. Raises DataError if it has no key."""
        return self.of(np.array([one])).at(np.array([0]))[0]

    def join(self, other: "KeyTable") -> "KeyTable":
        """Return the keys of two tables together. Raises DataError if an id has two keys."""
        ids = np.concatenate([self.ids, other.ids])
        return distinct_keys("the data and the features of items", ids, pa.concat_arrays([self.keys, other.keys]))


_NO_KEYS = KeyTable(np.zeros(0, np.int64), pa.array([], pa.large_string()))


@dataclass(frozen=True)
class Ids:
    """A column of N ids."""

    values: Int64
    """[N] int64; 0 where the row has no id."""
    valid: Mask
    """[N] bool, whether the row has an id."""
    keys: KeyTable | None = None
    """The keys of the values; None if ids are integers."""
    padded: int = 0
    """Number of integers whose leading zeros were dropped."""

    @property
    def expected(self) -> str:
        """Return the expected form of a value, in words, for messages."""
        return _expected(self.keys is not None)


class IdColumn:
    """A column of ids that is read piece by piece.

    Whether the column is text can depend on all its values. The type is guessed from the first piece, and `settle`
    tells at the end whether the column must be read again.
    """

    def __init__(self, name: str, kind: IdKind, stray: float = 0) -> None:
        """Begin with no values.

        Args:
            name: the name of the column.
            kind: whether ids are integers or text.
            stray: maximum share of values, 0 to 1, that are not integers in a column that `AUTO` takes for integers.
        """
        self.name = name
        self.is_text = kind is IdKind.TEXT
        self.example = ""
        """The first value."""
        self.counts = IdCounts()
        """The counts of the values while the type of the column is open."""
        self._is_open, self._stray, self._guessed = kind is IdKind.AUTO, stray, False
        self._spellings, self._pieces, self._knows_suspects = Spellings(), 0, False
        self._tables = [_NO_KEYS]

    @property
    def padded(self) -> int:
        """Return the number of integers whose leading zeros were dropped."""
        return self._spellings.padded

    @property
    def expected(self) -> str:
        """Return the expected form of a value, in words, for messages."""
        return _expected(self.is_text)

    def read(self, found: Columns) -> tuple[Int64, Mask]:
        """Read a piece. Return the ids, [N] int64, 0 if a row has none, and whether a row has an id, [N] bool.

        Raises:
            DataError: integers are spelt in two ways, or two keys have the same id.
        """
        column = found.table.column(self.name)
        self._pieces += 1
        if not self.example and len(column) and (texts := column.drop_null()[:1].to_pylist()):
            self.example = str(texts[0])
        if pa.types.is_list(column.type):
            return parse_ids(column)
        if self._is_open:
            self.counts += count_ids(found, self.name)
            if not self._guessed and self.counts.rows:
                self.is_text, self._guessed = self.counts.are_text(self._stray), True
        if self.is_text:
            values, valid, table = _read_keys(column)
            self._add(found.file, table)
            return values, valid
        values, valid = parse_ids(column)
        if not self.counts.has_zeros:  # otherwise all will be read again, as text
            self._spellings.read(found.file, self.name, column, values, found.lines, found.unit)
        return values, valid

    def settle(self) -> bool:
        """Return whether the guess was right. If not, call `begin_again` and read the column once more.

        Raises:
            DataError: ids are decimal numbers.
        """
        should = self.counts.are_text(self._stray, is_all=True) if self._is_open else self.is_text
        self._is_open = False
        compared = should or not self.padded or self._pieces == 1 or self._knows_suspects
        is_right = should == self.is_text and compared
        self._knows_suspects = not should and should == self.is_text
        self.is_text = should
        return is_right

    def guess(self, is_text: bool) -> None:
        """Read an open column as text or as integers, without a guess from its first piece."""
        if self._is_open:
            self.is_text, self._guessed = is_text, True

    def begin_again(self) -> None:
        """Forget the values that were read."""
        self._tables, self._pieces = [_NO_KEYS], 0
        self._spellings.begin_again()

    def keys(self, where: str) -> KeyTable | None:
        """Return the keys of all values; None if ids are integers. Raises DataError if two keys have the same id."""
        if not self.is_text:
            return None
        self._tables = [self._merged(where)]  # the parts are not needed any more
        return self._tables[0]

    def _add(self, file: str, table: KeyTable) -> None:
        """Store the keys that are new.

        The first table has most of them. It is merged with the others from time to time.
        """
        if len(self._tables[0].ids):
            table = _without(f"{file}: {self.name}", table, self._tables[0])
        self._tables.append(table)
        if sum(len(one.ids) for one in self._tables[1:]) > max(len(self._tables[0].ids) // 4, _HASHED_AT_ONCE):
            self._tables = [self._merged(file)]

    def _merged(self, where: str) -> KeyTable:
        ids = np.concatenate([table.ids for table in self._tables])
        keys = pa.concat_arrays([table.keys for table in self._tables])
        return distinct_keys(f"{where}: {self.name}", ids, keys)


def read_ids(path: Path, found: Columns, name: str, kind: IdKind, stray: float = 0) -> Ids:
    """Read a whole column of ids.

    Args:
        path: the file, for messages.
        found: the columns of the file.
        name: the name of the column.
        kind: whether ids are integers or text.
        stray: as in `IdColumn`.

    Raises:
        DataError: integers are spelt in two ways or written as decimal numbers, or two keys have the same id.
    """
    column = IdColumn(name, kind, stray)
    values, valid = column.read(found)
    column.settle()
    return Ids(values, valid, column.keys(str(path)), column.padded)


def strict_ids(path: Path, found: Columns, name: str, unique: bool = False, kind: IdKind = IdKind.INTEGER) -> Ids:
    """Read a column of ids. Every value must be valid.

    Raises:
        DataError: a line has too many or too few columns, a value is not an id, an integer is spelt in two ways (007
            and 7), or `unique` is set and an id occurs twice.
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
    """Read the keys that `write_keys` wrote; None if there is no such file. Raises DataError."""
    try:
        table = pq.read_table(file, columns=["id", "key"])
        ids, keys = table.column("id").cast(pa.int64()), table.column("key").cast(pa.large_string())
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())}; prepare the data again") from error
    return KeyTable(ids.to_numpy(), keys.combine_chunks())


def _expected(is_text: bool) -> str:
    return f"an id of at most {MAX_KEY_BYTES} bytes" if is_text else "an integer of 64 bits"


def _read_keys(column: pa.ChunkedArray) -> tuple[Int64, Mask, KeyTable]:
    """Return the ids of keys, whether a row has one, and the different keys in the order of their first rows."""
    texts = column.cast(pa.large_string())
    valid = pc.less_equal(pc.binary_length(texts), MAX_KEY_BYTES).fill_null(False)
    coded = pc.if_else(valid, texts, None).combine_chunks().dictionary_encode()
    keys = coded.dictionary
    found = [
        key_ids(keys[start : start + _HASHED_AT_ONCE].to_pylist()) for start in range(0, len(keys), _HASHED_AT_ONCE)
    ]
    of_key = np.concatenate([np.zeros(0, np.int64), *found])
    is_valid = valid.to_numpy()
    row = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    values = np.where(is_valid, of_key[row], 0) if len(of_key) else np.zeros(len(row), np.int64)
    return values, is_valid, KeyTable(of_key, keys)


def _without(where: str, table: KeyTable, known: KeyTable) -> KeyTable:
    """Return the keys of a table that `known`, with ascending ids, lacks. Raises DataError if an id has two keys."""
    order = np.argsort(table.ids, kind="stable")  # looked up in order, ids are found faster
    table = KeyTable(table.ids[order], table.keys.take(pa.array(order)))
    position = np.minimum(np.searchsorted(known.ids, table.ids), len(known.ids) - 1)
    there = known.ids[position] == table.ids
    keys, others = table.keys.filter(pa.array(there)), known.keys.take(pa.array(position[there]))
    if not pc.all(pc.equal(keys, others)).as_py():
        distinct_keys(where, np.repeat(table.ids[there], 2), _alternating(keys, others))
    return KeyTable(table.ids[~there], table.keys.filter(pa.array(~there)))


def _alternating(one: pa.LargeStringArray, other: pa.LargeStringArray) -> pa.LargeStringArray:
    order = np.arange(2 * len(one)).reshape(2, -1).T.ravel()
    return pa.concat_arrays([one, other]).take(pa.array(order))


def distinct_keys(where: str, ids: Int64, keys: pa.LargeStringArray) -> KeyTable:
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

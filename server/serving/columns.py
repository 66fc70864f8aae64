"""Stores the values of one attribute for all items that a model knows in little memory, as codes of different values.

A category takes a byte or two per item, for a million items. A title hardly repeats; it takes its text and 12 bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.keys import Keys
from mind.sequences import Int64
from mind.vocabulary import Mask

MOST_CODED = 2**16 - 1
"""Most different values that are stored once each. A column with more stores the value of each item."""
NOTHING: dict[str, Any] = {
    "INT64": 0,
    "DOUBLE": 0.0,
    "BOOL": False,
    "VARCHAR": "",
    "ARRAY<INT64>": (),
    "ARRAY<VARCHAR>": (),
}
"""The value that stands for no value, by the Milvus types of attributes."""
TEXT_BYTES = 80
"""Memory of a short text in Python."""
NUMBERS: dict[str, type] = {"INT64": np.int64, "DOUBLE": np.float64, "BOOL": np.bool_}
"""The NumPy types of values that are not text."""
Value = Any
"""A number, a text, true or false, or a tuple of integers or texts."""


@dataclass(frozen=True)
class Column:
    """The values of N items."""

    kind: str
    """The Milvus type of the attribute."""
    codes: npt.NDArray[np.unsignedinteger[Any]]
    """[N + 1] the place of each item's value in `values`; 0 for no value, also for row 0, the padding."""
    values: Sequence[Value] | npt.NDArray[Any] | Keys
    """The values; the first one stands for no value."""

    @property
    def nbytes(self) -> int:
        """The approximate memory of the column."""
        if isinstance(self.values, Keys):
            return self.codes.nbytes + self.values.offsets.nbytes + self.values.text.nbytes
        size = self.values.nbytes if isinstance(self.values, np.ndarray) else TEXT_BYTES * len(self.values)
        return self.codes.nbytes + size

    def at(self, rows: Int64) -> tuple[list[Value], Mask]:
        """Return the values of these rows of the item table, and [n] bool, which rows have one."""
        codes = self.codes[rows]
        if isinstance(self.values, Keys):
            texts = self.values.at(codes.astype(np.int64))
            return [tuple(json.loads(text)) for text in texts] if self.is_array else texts, codes > 0
        if isinstance(self.values, np.ndarray):
            return self.values[codes].tolist(), codes > 0
        values = self.values
        return [values[code] for code in codes.tolist()], codes > 0

    @cached_property
    def different(self) -> int | None:
        """Most different values, if every item has one; None for an array, or if some item has none."""
        return None if self.is_array or not self.codes[1:].all() else len(self.values) - 1

    @property
    def is_array(self) -> bool:
        """Whether each value is a tuple."""
        return self.kind.startswith("ARRAY")


@dataclass(frozen=True)
class Groups:
    """Which items have which values of an attribute: an entry per item and value, an item's entries together."""

    place: Int64
    """[E] int64, ascending, the item of each entry."""
    value: Int64
    """[E] int64, equal for equal values."""
    different: int | None = None
    """Most different values of all items of the collection; None if that is not known, or if some item has none."""


def groups(told: Sequence[Value | None], which: Int64) -> Groups:
    """Return the values of items as groups. An array has those of its elements, and None has none.

    Args:
        told: different values.
        which: [n] int64, the place of each item's value in `told`.
    """
    parts = [() if value is None else value if isinstance(value, tuple) else (value,) for value in told]
    coded: dict[Value, int] = {}
    codes = [[coded.setdefault(part, len(coded)) for part in dict.fromkeys(own)] for own in parts]
    lengths = np.array([len(own) for own in codes], np.int64)
    its = lengths[which]
    place = np.arange(len(which)).repeat(its)
    slot = np.arange(len(place)) - (np.cumsum(its) - its).repeat(its)
    flat = np.array([code for own in codes for code in own], np.int64)
    return Groups(place, flat[(np.cumsum(lengths) - lengths)[which][place] + slot])


class ColumnBuilder:
    """Builds a column from pages of values."""

    def __init__(self, kind: str, items: int) -> None:
        """Begin a column.

        Args:
            kind: the Milvus type of the attribute.
            items: the number of items of the model.
        """
        self._kind = kind
        self._codes = np.zeros(items + 1, np.uint32)
        self._coded: dict[Value, int] = {}
        self._pages: list[npt.NDArray[Any] | Keys] = []
        """The values, if there are too many different ones for codes. Slot 0 is no value."""
        self._count = 0

    def put(self, rows: Int64, values: Sequence[Value]) -> None:
        """Add the values of these rows of the item table. Each row may come once."""
        if not self._pages and len(self._coded) + len(values) > MOST_CODED:
            self._add([NOTHING[self._kind], *self._coded])
            self._coded.clear()
        if self._pages:
            self._codes[rows] = np.arange(self._count, self._count + len(values))
            self._add(values)
        else:
            coded = self._coded
            self._codes[rows] = [coded.setdefault(value, len(coded) + 1) for value in values]

    @property
    def nbytes(self) -> int:
        """The approximate memory of the column so far."""
        pages = sum(page.nbytes if isinstance(page, np.ndarray) else page.text.nbytes for page in self._pages)
        return self._codes.nbytes + pages + (8 * self._count if self._pages else TEXT_BYTES * len(self._coded))

    def done(self) -> Column:
        """Return the finished column."""
        if not self._pages:
            kind = np.uint8 if len(self._coded) < 2**8 else np.uint16
            return Column(self._kind, self._codes.astype(kind), [NOTHING[self._kind], *self._coded])
        if self._kind in NUMBERS:
            numbers = [page for page in self._pages if isinstance(page, np.ndarray)]
            return Column(self._kind, self._codes, np.concatenate(numbers))
        texts = [page for page in self._pages if isinstance(page, Keys)]
        lengths = np.concatenate([np.diff(page.offsets) for page in texts])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Column(self._kind, self._codes, Keys(offsets, np.concatenate([page.text for page in texts])))

    def _add(self, values: Sequence[Value]) -> None:
        self._count += len(values)
        if self._kind in NUMBERS:
            self._pages.append(np.array(values, NUMBERS[self._kind]))
        else:
            texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
            self._pages.append(Keys.of(texts))

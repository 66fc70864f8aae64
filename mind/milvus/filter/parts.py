"""The parts of a filter that have been read: the type of each, and its canonical text."""

from dataclasses import dataclass
from enum import Enum

from mind.milvus.filter.error import FilterError
from mind.milvus.filter.logic import Binds, Certain
from mind.milvus.filter.tokens import INT64_MAX

Constant = bool | int | float | str

_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LARGEST_DOUBLE = 1.7976931348623157e308


class Kind(Enum):
    """The type of a part; the values are what messages call it."""

    CONDITION = "a condition"
    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "a string"
    BOOLEAN = "true or false"
    INTEGERS = "an array of integers"
    TEXTS = "an array of strings"


KIND_OF_TYPE = {
    "INT64": Kind.INTEGER,
    "DOUBLE": Kind.NUMBER,
    "BOOL": Kind.BOOLEAN,
    "VARCHAR": Kind.TEXT,
    "ARRAY<INT64>": Kind.INTEGERS,
    "ARRAY<VARCHAR>": Kind.TEXTS,
}
"""The kinds of attributes, by their Milvus types."""
ELEMENT = {Kind.INTEGERS: Kind.INTEGER, Kind.TEXTS: Kind.TEXT}
"""The kinds of the elements of arrays."""
NUMERIC = (Kind.INTEGER, Kind.NUMBER)


@dataclass(frozen=True)
class Part:
    """A part of a filter that has been read, checked and written in canonical spelling."""

    text: str
    """Its canonical spelling."""
    kind: Kind
    at: int
    """Where it begins in the filter, from 0."""
    binds: int = Binds.ATOM
    """How tightly its outermost operator binds."""
    constant: Constant | None = None
    """Its value; None if it depends on an item."""
    element: bool = False
    """Whether it is an element or the length of an array."""
    needs: frozenset[str] = frozenset()
    """Conditions that say that all its attributes have a value. Without them it is neither true nor false."""
    operands: tuple[str, ...] = ()
    """Operands of the outermost operator of a condition, as in `Certain`."""
    fails: Certain | None = None
    """Where a condition is certainly false."""

    @property
    def holds(self) -> Certain:
        """Where a condition is certainly true."""
        return Certain(self.text, self.binds, self.needs, self.operands)

    def within(self, binds: int) -> str:
        """Its text as an operand of an operator: in parentheses if that binds more tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


def constant(value: Constant, at: int) -> Part:
    """A constant as a part. Raises FilterError for a number that Milvus cannot hold."""
    if isinstance(value, str):
        return Part(quoted(value), Kind.TEXT, at, constant=value)
    if isinstance(value, bool):
        return Part("true" if value else "false", Kind.BOOLEAN, at, constant=value)
    largest = INT64_MAX if isinstance(value, int) else _LARGEST_DOUBLE
    if not -largest <= value <= largest:
        holds = "64-bit integers" if isinstance(value, int) else "double precision"
        raise FilterError(at, f"a number beyond {holds}")
    kind = Kind.INTEGER if isinstance(value, int) else Kind.NUMBER
    text = repr(value)
    return Part(text, kind, at, Binds.SIGN if text.startswith("-") else Binds.ATOM, value)


def condition(holds: Certain, fails: Certain, at: int) -> Part:
    """A condition as a part, from where it is true and where it is false."""
    return Part(holds.text, Kind.CONDITION, at, holds.binds, needs=holds.needs, operands=holds.operands, fails=fails)


def quoted(text: str) -> str:
    """A string as a literal."""
    return f'"{text.translate(_ESCAPED)}"'

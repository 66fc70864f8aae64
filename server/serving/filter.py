"""Filters: a caller's expression becomes one of ours, or is refused; what the caller wrote never reaches Milvus.

The language is Milvus' own, as far as item attributes need it. Milvus 2.3.5 ends its process on some comparisons of
constants and on divisions by zero; neither passes. What Milvus versions understand differently is written out in a way
that all of them understand alike, and filters that differ only in spelling become equal. Knows nothing of pymilvus.

A Pratt parser (Pratt 1973, "Top down operator precedence") that checks and writes as it reads, without a tree.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple, NoReturn

from mind.milvus.collection import ITEM_ID
from server.errors import InvalidRequestError

MAX_VALUES = 10_000
"""Values in one list."""
MAX_CONDITIONS = 500
"""Conditions in one filter: Milvus goes a call deeper for each that `and` or `or` adds."""
MAX_SUBSCRIPT = 4095
"""The longest ARRAY of Milvus has 4,096 values."""
_INT64_MAX = 2**63 - 1
"""Also of the negative numbers: Milvus 2.3.5 does not read -2^63."""
_MAX_EXPONENT = 1_023

Constant = bool | int | float | str


class Kind(Enum):
    """What a part of a filter is; the values are how messages call it."""

    CONDITION = "a condition"
    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "a string"
    BOOLEAN = "true or false"
    INTEGERS = "an array of integers"
    TEXTS = "an array of strings"


_KIND_OF_TYPE = {
    "INT64": Kind.INTEGER,
    "DOUBLE": Kind.NUMBER,
    "BOOL": Kind.BOOLEAN,
    "VARCHAR": Kind.TEXT,
    "ARRAY<INT64>": Kind.INTEGERS,
    "ARRAY<VARCHAR>": Kind.TEXTS,
}
_ELEMENT = {Kind.INTEGERS: Kind.INTEGER, Kind.TEXTS: Kind.TEXT}
_NUMERIC = (Kind.INTEGER, Kind.NUMBER)

# How tightly operators bind.
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(1, 10)
_BINDS = (
    {"or": _OR, "||": _OR, "and": _AND, "&&": _AND, "in": _COMPARISON, "not": _COMPARISON, "like": _COMPARISON}
    | dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), _COMPARISON)
    | {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT, "**": _POWER}
)
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CHAINS = ({"<", "<="}, {">", ">="})
_FUNCTIONS = ("array_contains", "array_contains_all", "array_contains_any", "array_length")
_KEYWORDS = {"and", "or", "not", "in", "like"}

_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<float>(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<integer>[0-9]+)
    |(?P<string>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    |(?P<symbol>\*\*|&&|\|\||[=!<>]=|[!<>+\-*/%()\[\],])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def canonical(filter_: str, attributes: Mapping[str, str], max_depth: int) -> str:
    """The filter in our own words; empty if it is blank.

    Args:
        filter_: what the caller wrote.
        attributes: name to Milvus type, as in `Fingerprint.attributes`; `item_id` is known besides.
        max_depth: parentheses, `not` and signs within one another.

    Raises:
        InvalidRequestError: it is no expression, or one that could harm; the message names the column, from 1.
    """
    return _canonical(filter_, tuple(attributes.items()), max_depth)


@lru_cache(256)
def _canonical(filter_: str, attributes: tuple[tuple[str, str], ...], max_depth: int) -> str:
    return _Parser(filter_, {ITEM_ID: "INT64"} | dict(attributes), max_depth).parse() if filter_.strip() else ""


class _Token(NamedTuple):
    kind: str
    """Name of a group of `_TOKEN`, or `keyword`."""
    text: str
    at: int


@dataclass(frozen=True)
class _Part:
    """A part of the filter that has been read, checked and written anew."""

    text: str
    kind: Kind
    at: int
    binds: int = _ATOM
    constant: Constant | None = None
    """Its value, if it has no field."""
    element: bool = False
    """Whether it is an element of an array."""

    def within(self, binds: int) -> str:
        """Its text, in parentheses where an operator beside it would tear it apart."""
        return self.text if self.binds >= binds else f"({self.text})"


class _Parser:
    """Reads one filter."""

    def __init__(self, filter_: str, attributes: dict[str, str], max_depth: int) -> None:
        self._filter = filter_
        self._attributes = attributes
        self._max_depth = max_depth
        self._depth = self._conditions = 0
        self._token = self._read(0)

    def parse(self) -> str:
        condition = self._condition(self._expression(0))
        if self._token.kind != "end":
            self._expected("`and`, `or` or the end", self._token)
        return condition.text

    def _expression(self, binds: int) -> _Part:
        """A part of the filter with all operators that bind more tightly than `binds`."""
        part = self._operand()
        while _BINDS.get(self._token.text, 0) > binds:
            part = self._operator(part, self._next())
        return part

    def _operand(self) -> _Part:
        token = self._next()
        if token.kind in ("integer", "float", "string"):
            return self._constant(self._value(token), token.at)
        if token.kind == "word":
            return self._word(token)
        if token.text == "(":
            part = self._nested(token, 0)
            self._skip(")")
            return part
        if token.text in ("not", "!"):
            condition = self._condition(self._nested(token, _NOT))
            return _Part(f"not ({condition.text})", Kind.CONDITION, token.at, _NOT)
        if token.text in ("-", "+"):
            return self._signed(token)
        return self._expected("a field, a value or `(`", token)

    def _nested(self, token: _Token, binds: int) -> _Part:
        self._depth += 1
        if self._depth > self._max_depth:
            self._fail(token.at, f"nested more than {self._max_depth} deep, the limit", "FILTER_TOO_DEEP")
        part = self._expression(binds)
        self._depth -= 1
        return part

    def _word(self, token: _Token) -> _Part:
        if token.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return self._constant(token.text[0] in "tT", token.at)
        if self._token.text == "(":
            return self._function(token)
        part = self._field(token)
        if self._token.text == "[":
            return self._element(part)
        return part

    def _field(self, token: _Token) -> _Part:
        name = token.text
        if token.kind != "word" or name not in self._attributes:
            self._fail(token.at, f"{name!r} is no attribute of the items; known are {', '.join(self._attributes)}")
        kind = _KIND_OF_TYPE.get(self._attributes[name])
        if kind is None:
            self._fail(token.at, f"{name} is {self._attributes[name]}, which filters cannot use")
        return _Part(name, kind, token.at)

    def _element(self, array: _Part) -> _Part:
        self._skip("[")
        if array.kind not in _ELEMENT:
            self._fail(array.at, f"{array.text} is {array.kind.value}, and has no elements")
        token = self._next()
        position = self._value(token) if token.kind == "integer" else -1
        if not isinstance(position, int) or not 0 <= position <= MAX_SUBSCRIPT:
            self._fail(token.at, f"expected a position from 0 to {MAX_SUBSCRIPT}, found {_shown(token)}")
        self._skip("]")
        return _Part(f"{array.text}[{position}]", _ELEMENT[array.kind], array.at, element=True)

    def _function(self, token: _Token) -> _Part:
        name = token.text.lower()
        if name not in _FUNCTIONS:
            self._fail(token.at, f"{token.text!r} is no function; known are {', '.join(_FUNCTIONS)}")
        self._skip("(")
        array = self._field(self._next())
        if array.kind not in _ELEMENT:
            self._fail(array.at, f"{array.text} is {array.kind.value}; {name} needs an array")
        if name == "array_length":
            self._skip(")")
            return _Part(f"array_length({array.text})", Kind.INTEGER, token.at, element=True)
        self._skip(",")
        if name == "array_contains":
            value = self._expression(_COMPARISON)
            self._check_value(array, _ELEMENT[array.kind], value)
            # Milvus Lite reads a sign in lists alone.
            text = f"_any({array.text}, [{value.text}])" if value.binds == _SIGN else f"({array.text}, {value.text})"
        else:
            values = self._values(array, _ELEMENT[array.kind])
            if not values:
                self._fail(token.at, f"{name} needs a list of one value or more")
            text = f"{name.removeprefix('array_contains')}({array.text}, [{', '.join(values)}])"
        self._skip(")")
        return self._counted(_Part(f"array_contains{text}", Kind.CONDITION, token.at, _COMPARISON))

    def _operator(self, left: _Part, token: _Token) -> _Part:
        operator = {"&&": "and", "||": "or"}.get(token.text, token.text)
        if operator in ("and", "or"):
            return self._joined(left, operator)
        if operator == "like":
            return self._like(left)
        if operator in ("in", "not"):
            return self._membership(left, token)
        if operator in _MIRRORED:
            return self._comparison(left, token)
        return self._arithmetic(left, token)

    def _joined(self, left: _Part, operator: str) -> _Part:
        binds = _BINDS[operator]
        conditions = (self._condition(left), self._condition(self._expression(binds)))
        text = f" {operator} ".join(condition.within(binds) for condition in conditions)
        return _Part(text, Kind.CONDITION, left.at, binds)

    def _condition(self, part: _Part) -> _Part:
        """The part as a condition; a field that is true or false is one, which Milvus wants spelled out."""
        if part.kind is Kind.CONDITION:
            return part
        if part.kind is Kind.BOOLEAN and part.constant is None:
            return self._counted(_Part(f"{part.text} == true", Kind.CONDITION, part.at, _COMPARISON))
        return self._fail(part.at, f"expected a condition, such as {ITEM_ID} > 0, found {part.text}")

    def _counted(self, condition: _Part) -> _Part:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            self._fail(condition.at, f"more than {MAX_CONDITIONS} conditions, the limit")
        return condition

    def _like(self, left: _Part) -> _Part:
        if left.kind is not Kind.TEXT or left.constant is not None:
            self._fail(left.at, f"`like` needs a string field, found {left.text}")
        token = self._next()
        if token.kind != "string":
            self._expected("a pattern in quotes", token)
        pattern = str(self._value(token))
        # Milvus 2.3.5 takes an empty pattern for one that fits everything.
        operator = "like" if re.search(r"[%_\\]", pattern) else "=="
        return self._counted(_Part(f"{left.text} {operator} {_quoted(pattern)}", Kind.CONDITION, left.at, _COMPARISON))

    def _membership(self, left: _Part, token: _Token) -> _Part:
        if token.text == "not":
            self._skip("in")
        if left.constant is not None or left.binds < _ATOM or left.kind in (Kind.CONDITION, *_ELEMENT):
            self._fail(left.at, f"`in` needs a field on its left, found {left.text}")
        values = self._values(left, left.kind)
        operator = "not in" if token.text == "not" else "in"
        text = f"{left.text} {operator} [{', '.join(values)}]"
        return self._counted(_Part(text, Kind.CONDITION, left.at, _COMPARISON))

    def _values(self, left: _Part, kind: Kind) -> list[str]:
        """A list of constants, each fit to be compared with `left`, whose values are of the given kind."""
        self._skip("[")
        values: list[str] = []
        while self._token.text != "]":
            value = self._expression(_COMPARISON)
            self._check_value(left, kind, value)
            values.append(value.text)
            if len(values) > MAX_VALUES:
                self._fail(value.at, f"more than {MAX_VALUES} values in a list, the limit")
            if self._token.text != "]":
                self._skip(",")
        self._skip("]")
        return values

    def _check_value(self, left: _Part, kind: Kind, value: _Part) -> None:
        if value.constant is None:
            self._fail(value.at, f"expected a constant, found {value.text}")
        if value.kind is not kind and (kind, value.kind) != (Kind.NUMBER, Kind.INTEGER):
            self._fail(value.at, f"{value.text} is {value.kind.value}; {left.text} needs {kind.value}")

    def _comparison(self, left: _Part, token: _Token) -> _Part:
        right = self._expression(_COMPARISON)
        compared = self._compared(left, token, right)
        further = self._token
        if further.text not in _MIRRORED:
            return compared
        if not any({token.text, further.text} <= chain for chain in _CHAINS):
            self._fail(further.at, f"`{token.text}` and then `{further.text}` is no range; use parentheses and `and`")
        self._next()
        # Milvus Lite knows no ranges.
        both = compared.text, self._compared(right, further, self._expression(_COMPARISON)).text
        if self._token.text in _MIRRORED:
            self._expected("`and`, `or` or the end", self._token)
        return _Part(" and ".join(both), Kind.CONDITION, left.at, _AND)

    def _compared(self, left: _Part, token: _Token, right: _Part) -> _Part:
        if left.constant is not None and right.constant is not None:
            self._fail(left.at, f"compares the constants {left.text} and {right.text}; one side must have a field")
        operator = token.text
        if left.constant is not None:
            left, right, operator = right, left, _MIRRORED[operator]
        for side in (left, right):
            if side.kind in (Kind.CONDITION, *_ELEMENT):
                self._fail(side.at, f"{side.text} is {side.kind.value}, which `{operator}` cannot compare")
        if right.constant is not None:
            self._check_value(left, left.kind, right)
        else:
            self._check_fields(left, right)
        if left.kind is Kind.BOOLEAN and operator not in ("==", "!="):
            self._fail(token.at, f"{left.text} is true or false: compare it with == or !=")
        return self._counted(_Part(f"{left.text} {operator} {right.text}", Kind.CONDITION, left.at, _COMPARISON))

    def _check_fields(self, left: _Part, right: _Part) -> None:
        for side in (left, right):
            if side.element or side.binds < _ATOM:
                self._fail(side.at, f"{side.text} can be compared with a constant alone")
        if left.kind is not right.kind and not (left.kind in _NUMERIC and right.kind in _NUMERIC):
            self._fail(right.at, f"{right.text} is {right.kind.value}, {left.text} {left.kind.value}")

    def _arithmetic(self, left: _Part, token: _Token) -> _Part:
        binds = _BINDS[token.text]
        right = self._expression(binds)
        takes = (Kind.INTEGER,) if token.text == "%" else _NUMERIC
        for side in (left, right):
            if side.kind not in takes:
                self._fail(side.at, f"`{token.text}` needs {takes[-1].value}, found {side.text}")
        if left.constant is not None and right.constant is not None:
            return self._constant(self._fold(left.constant, token, right), left.at)
        if token.text == "**":
            self._fail(token.at, "`**` needs two constants")
        if token.text in "/%" and right.constant in (None, 0, -1):
            self._fail(right.at, f"divides by {right.text}; a divisor is a constant, and neither zero nor -1")
        kinds = {left.kind, right.kind}
        if len(kinds) > 1 and (left if left.constant is None else right).kind is Kind.INTEGER:
            self._fail(right.at, f"{left.text} and {right.text}: an integer field takes integers alone")
        kind = Kind.NUMBER if Kind.NUMBER in kinds else Kind.INTEGER
        text = f"{left.within(binds)} {token.text} {right.within(binds + 1)}"
        return _Part(text, kind, left.at, binds)

    def _fold(self, left: Constant, token: _Token, right: _Part) -> int | float:
        """Two numbers to one; integers divide as in Milvus, towards zero."""
        first, second = _number(left), _number(right.constant)
        if token.text in "/%" and second == 0:
            self._fail(right.at, "divides by zero")
        if token.text == "**" and not (abs(second) <= _MAX_EXPONENT and (first or second >= 0)):
            self._fail(right.at, f"an exponent is {-_MAX_EXPONENT} to {_MAX_EXPONENT}, and not negative for zero")
        try:
            result = _ARITHMETIC[token.text](first, second)
        except OverflowError:
            result = float("inf")
        if isinstance(result, complex):
            self._fail(token.at, "has no real value")
        return result

    def _signed(self, token: _Token) -> _Part:
        part = self._nested(token, _SIGN)
        if part.constant is None or part.kind not in _NUMERIC:
            self._fail(token.at, f"`{token.text}` goes before a number, found {part.text}")
        value = _number(part.constant)
        return self._constant(-value if token.text == "-" else value, token.at)

    def _constant(self, value: Constant, at: int) -> _Part:
        if isinstance(value, str):
            return _Part(_quoted(value), Kind.TEXT, at, constant=value)
        if isinstance(value, bool):
            return _Part("true" if value else "false", Kind.BOOLEAN, at, constant=value)
        largest = _INT64_MAX if isinstance(value, int) else 1.7976931348623157e308
        if not -largest <= value <= largest:
            self._fail(at, f"a number beyond {'64-bit integers' if isinstance(value, int) else 'double precision'}")
        kind = Kind.INTEGER if isinstance(value, int) else Kind.NUMBER
        text = repr(value)
        return _Part(text, kind, at, _SIGN if text.startswith("-") else _ATOM, value)

    def _value(self, token: _Token) -> Constant:
        if token.kind == "float":
            return float(token.text)
        if token.kind == "integer":
            if len(token.text) > 1 and token.text.startswith("0"):
                self._fail(token.at, f"{token.text[:30]} begins with 0, which some would read as octal")
            return int(token.text) if len(token.text) <= len(str(_INT64_MAX)) else _INT64_MAX + 1
        return _ESCAPE.sub(lambda escape: self._unescaped(escape, token.at + 1), token.text[1:-1])

    def _unescaped(self, escape: re.Match[str], start: int) -> str:
        at = start + escape.start()
        character = chr(int(escape[1], 16)) if escape[1] else _UNESCAPED.get(escape[2], "")
        if not character or "\ud800" <= character <= "\udfff":
            self._fail(at, rf"{escape[0]!r} is no escape; known are \\ \" \' \n \r \t and \u with a character's code")
        return character

    def _read(self, at: int) -> _Token:
        matched = _TOKEN.match(self._filter, at)
        if not matched:
            at += len(self._filter[at:]) - len(self._filter[at:].lstrip(" \t\r\n"))
            if self._filter[at] in "\"'":
                self._fail(at, "a string that does not end; strings stay on one line")
            self._fail(at, f"{self._filter[at]!r} is no part of a filter")
        kind = str(matched.lastgroup)
        text = matched[kind]
        if kind == "word" and (text.lower() in _KEYWORDS) and (text.islower() or text.isupper()):
            kind, text = "keyword", text.lower()
        return _Token(kind, text, matched.start(str(matched.lastgroup)))

    def _next(self) -> _Token:
        token = self._token
        if token.kind != "end":
            self._token = self._read(token.at + len(token.text))
        return token

    def _skip(self, text: str) -> None:
        if self._token.text != text:
            self._expected(f"`{text}`", self._token)
        self._next()

    def _expected(self, what: str, found: _Token) -> NoReturn:
        self._fail(found.at, f"expected {what}, found {_shown(found)}")

    def _fail(self, at: int, message: str, reason: str = "FILTER_INVALID") -> NoReturn:
        raise InvalidRequestError("filter", f"{self._filter[:100]!r}, column {at + 1}: {message}", reason)


def _number(value: Constant | None) -> int | float:
    assert isinstance(value, int | float)  # noqa: S101 - its kind is numeric
    return value


def _quotient(first: int | float, second: int | float) -> int | float:
    if isinstance(first, float) or isinstance(second, float):
        return first / second
    magnitude = abs(first) // abs(second)
    return magnitude if (first < 0) == (second < 0) else -magnitude


_ARITHMETIC: dict[str, Callable[[int | float, int | float], int | float]] = {
    "+": lambda first, second: first + second,
    "-": lambda first, second: first - second,
    "*": lambda first, second: first * second,
    "/": _quotient,
    "%": lambda first, second: first - second * _quotient(first, second),
    "**": lambda first, second: first**second,
}


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPED)}"'


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text[:30])

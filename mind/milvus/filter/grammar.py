"""The grammar of filters: a Pratt parser that checks and writes as it reads, without a tree.

See Pratt 1973, "Top down operator precedence".
"""

from typing import NoReturn

from mind.milvus.collection import ITEM_ID, VECTOR_SOURCE, is_presence, presence_of
from mind.milvus.filter.arithmetic import combined, signed
from mind.milvus.filter.comparison import MIRRORED, among, check_range, check_value, compared, is_true
from mind.milvus.filter.error import FilterError
from mind.milvus.filter.like import fits
from mind.milvus.filter.logic import Binds, Certain, both, either
from mind.milvus.filter.parts import ELEMENT, KIND_OF_TYPE, Kind, Part, condition, constant
from mind.milvus.filter.tokens import Token, literal, token_at

MAX_VALUES = 10_000
"""Most values in one list."""
MAX_CONDITIONS = 500
"""Most conditions in one filter. Milvus 2.3.5 reads 1,000 in 0.04 s, as `logic` writes them."""
MAX_SUBSCRIPT = 4095
"""Largest position in an array: the longest ARRAY of Milvus has 4,096 values."""

TEXT_ID = "\udfff"
"""Stands for `item_id` where that is text, as Milvus has another name for it. No filter has this character."""

_BINDS = (
    {"or": Binds.OR, "||": Binds.OR, "and": Binds.AND, "&&": Binds.AND}
    | dict.fromkeys(("in", "not", "like", "is", *MIRRORED), Binds.COMPARISON)
    | dict.fromkeys("+-", Binds.SUM)
    | dict.fromkeys("*/%", Binds.PRODUCT)
    | {"**": Binds.POWER}
)
_FUNCTIONS = ("array_contains", "array_contains_all", "array_contains_any", "array_length")


class Parser:
    """Reads one filter."""

    def __init__(self, filter_: str, attributes: dict[str, str], max_depth: int) -> None:
        """The arguments are those of `canonical`; here `attributes` has all names."""
        self._filter = filter_
        self._attributes = attributes
        self._max_depth = max_depth
        self._depth = self._conditions = 0
        self._token = token_at(filter_, 0)

    def parse(self) -> str:
        """The canonical text of the whole filter. Raises FilterError."""
        whole = self._condition(self._expression(Binds.NOTHING))
        if self._token.kind != "end":
            self._expected("`and`, `or` or the end", self._token)
        return whole.holds.whole().text

    def _expression(self, binds: int) -> Part:
        """An operand and all operators after it that bind more tightly than `binds`."""
        part = self._operand()
        while _BINDS.get(self._token.text, 0) > binds:
            part = self._operator(part, self._next())
        return part

    def _operand(self) -> Part:
        token = self._next()
        if token.kind in ("integer", "float", "string"):
            return constant(literal(token), token.at)
        if token.kind == "word":
            return self._word(token)
        if token.text == "(":
            part = self._nested(token, Binds.NOTHING)
            self._skip(")")
            return part
        if token.text in ("not", "!"):
            return _negated(self._condition(self._nested(token, Binds.NOT)), token.at)
        if token.text in ("-", "+"):
            return signed(token, self._nested(token, Binds.SIGN))
        if token.text == "null":
            raise FilterError(token.at, "nothing equals null; write `is null` or `is not null` after an attribute")
        return self._expected("a field, a value or `(`", token)

    def _nested(self, token: Token, binds: int) -> Part:
        self._depth += 1
        if self._depth > self._max_depth:
            raise FilterError(token.at, f"nested more than {self._max_depth} deep, the limit", "FILTER_TOO_DEEP")
        part = self._expression(binds)
        self._depth -= 1
        return part

    def _word(self, token: Token) -> Part:
        if token.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return constant(token.text[0] in "tT", token.at)
        if self._token.text == "(":
            return self._function(token)
        part = self._field(token)
        if self._token.text == "[":
            return self._element(part)
        return part

    def _field(self, token: Token) -> Part:
        name = token.text
        if token.kind != "word" or name not in self._attributes or is_presence(name):
            known = ", ".join(name for name in self._attributes if not is_presence(name))
            raise FilterError(token.at, f"{name!r} is no attribute of the items; known are {known}")
        kind = KIND_OF_TYPE.get(self._attributes[name])
        if kind is None:
            raise FilterError(token.at, f"{name} is {self._attributes[name]}, which filters cannot use")
        present = presence_of(name)
        needs = frozenset([f"{present} == true"] if present in self._attributes else [])
        return Part(TEXT_ID if (name, kind) == (ITEM_ID, Kind.TEXT) else name, kind, token.at, needs=needs)

    def _element(self, array: Part) -> Part:
        self._skip("[")
        if array.kind not in ELEMENT:
            raise FilterError(array.at, f"{array.text} is {array.kind.value}, and has no elements")
        token = self._next()
        position = literal(token) if token.kind == "integer" else -1
        if not isinstance(position, int) or not 0 <= position <= MAX_SUBSCRIPT:
            raise FilterError(token.at, f"expected a position from 0 to {MAX_SUBSCRIPT}, found {token.shown()}")
        self._skip("]")
        return Part(f"{array.text}[{position}]", ELEMENT[array.kind], array.at, element=True, needs=array.needs)

    def _function(self, token: Token) -> Part:
        name = token.text.lower()
        if name not in _FUNCTIONS:
            raise FilterError(token.at, f"{token.text!r} is no function; known are {', '.join(_FUNCTIONS)}")
        self._skip("(")
        array = self._field(self._next())
        if array.kind not in ELEMENT:
            raise FilterError(array.at, f"{array.text} is {array.kind.value}; {name} needs an array")
        if name == "array_length":
            self._skip(")")
            return Part(f"array_length({array.text})", Kind.INTEGER, token.at, element=True, needs=array.needs)
        self._skip(",")
        if name == "array_contains":
            value = self._expression(Binds.COMPARISON)
            check_value(array, ELEMENT[array.kind], value)
            # Milvus Lite reads a sign in lists alone.
            with_sign = value.binds == Binds.SIGN
            text = f"_any({array.text}, [{value.text}])" if with_sign else f"({array.text}, {value.text})"
        else:
            values = self._values(array, ELEMENT[array.kind])
            if not values:
                raise FilterError(token.at, f"{name} needs a list of one value or more")
            text = f"{name.removeprefix('array_contains')}({array.text}, [{', '.join(values)}])"
        self._skip(")")
        holds = f"array_contains{text}"
        fails = Certain(f"not ({holds})", Binds.NOT, array.needs)
        return self._counted(condition(Certain(holds, needs=array.needs), fails, token.at))

    def _operator(self, left: Part, token: Token) -> Part:
        operator = {"&&": "and", "||": "or"}.get(token.text, token.text)
        if operator in ("and", "or"):
            return self._joined(left, operator)
        if operator == "like":
            return self._like(left)
        if operator in ("in", "not"):
            return self._membership(left, token)
        if operator == "is":
            return self._null(left)
        if operator in MIRRORED:
            return self._comparison(left, token)
        binds = _BINDS[operator]
        return combined(left, token, self._expression(binds), binds)

    def _joined(self, left: Part, operator: str) -> Part:
        left, right = self._condition(left), self._condition(self._expression(_BINDS[operator]))
        return _both(left, right) if operator == "and" else _negated(_both(_negated(left), _negated(right)))

    def _condition(self, part: Part) -> Part:
        """The part as a condition; a field that is true or false is one."""
        if part.kind is Kind.CONDITION:
            return part
        if part.kind is Kind.BOOLEAN and part.constant is None:
            return self._counted(is_true(part))
        example = '== "A"' if self._attributes[ITEM_ID] == "VARCHAR" else "> 0"
        raise FilterError(part.at, f"expected a condition, such as {ITEM_ID} {example}, found {part.text}")

    def _counted(self, one: Part) -> Part:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(one.at, f"more than {MAX_CONDITIONS} conditions, the limit")
        return one

    def _like(self, left: Part) -> Part:
        if left.kind is not Kind.TEXT or left.constant is not None:
            raise FilterError(left.at, f"`like` needs a string field, found {left.text}")
        token = self._next()
        if token.kind != "string":
            self._expected("a pattern in quotes", token)
        return self._counted(fits(left, str(literal(token, pattern=True)), token.at))

    def _null(self, left: Part) -> Part:
        """What follows `is`."""
        negated = self._token.text == "not"
        if negated:
            self._next()
        self._skip("null")
        if left.text in (ITEM_ID, TEXT_ID, VECTOR_SOURCE):
            raise FilterError(left.at, f"{left.text} is never null: every item has one")
        if left.text not in self._attributes:
            raise FilterError(left.at, f"`is null` needs an attribute on its left, found {left.text}")
        present = presence_of(left.text)
        if present not in self._attributes:
            raise FilterError(
                left.at,
                f"this collection does not know which items have no {left.text}, because an earlier version built it; "
                "build and publish it again to filter with `is null`",
                "FILTER_NEEDS_NEW_BUILD",
            )
        holds, fails = (Certain(f"{present} == {value}") for value in ("false", "true"))
        found = self._counted(condition(holds, fails, left.at))
        return _negated(found, left.at) if negated else found

    def _membership(self, left: Part, token: Token) -> Part:
        if token.text == "not":
            self._skip("in")
        if left.constant is not None or left.binds < Binds.ATOM or left.kind in (Kind.CONDITION, *ELEMENT):
            raise FilterError(left.at, f"`in` needs a field on its left, found {left.text}")
        return self._counted(among(left, self._values(left, left.kind), inside=token.text == "in"))

    def _values(self, left: Part, kind: Kind) -> list[str]:
        """A list of constants, each fit to be compared with `left`, whose values are of the given kind."""
        self._skip("[")
        values: list[str] = []
        while self._token.text != "]":
            value = self._expression(Binds.COMPARISON)
            check_value(left, kind, value)
            values.append(value.text)
            if len(values) > MAX_VALUES:
                raise FilterError(value.at, f"more than {MAX_VALUES} values in a list, the limit")
            if self._token.text != "]":
                self._skip(",")
        self._skip("]")
        return values

    def _comparison(self, left: Part, token: Token) -> Part:
        right = self._expression(Binds.COMPARISON)
        first = self._counted(compared(left, token, right))
        further = self._token
        if further.text not in MIRRORED:
            return first
        check_range(token, further)
        self._next()
        # Milvus Lite knows no ranges.
        second = self._counted(compared(right, further, self._expression(Binds.COMPARISON)))
        if self._token.text in MIRRORED:
            self._expected("`and`, `or` or the end", self._token)
        return _both(first, second)

    def _next(self) -> Token:
        token = self._token
        if token.kind != "end":
            self._token = token_at(self._filter, token.at + len(token.text))
        return token

    def _skip(self, text: str) -> None:
        if self._token.text != text:
            self._expected(f"`{text}`", self._token)
        self._next()

    def _expected(self, what: str, found: Token) -> NoReturn:
        raise FilterError(found.at, f"expected {what}, found {found.shown()}")


def _both(left: Part, right: Part) -> Part:
    return condition(both(left.holds, right.holds), either(_fails(left), _fails(right)), left.at)


def _negated(part: Part, at: int | None = None) -> Part:
    return condition(_fails(part), part.holds, part.at if at is None else at)


def _fails(part: Part) -> Certain:
    assert part.fails is not None  # noqa: S101 - it is a condition
    return part.fails

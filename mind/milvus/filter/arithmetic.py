"""Arithmetic in filters: constants are computed here, and the rest must be something that no Milvus version dies of."""

from collections.abc import Callable

from mind.milvus.filter.error import FilterError
from mind.milvus.filter.parts import NUMERIC, Constant, Kind, Part, constant
from mind.milvus.filter.tokens import Token

_MAX_EXPONENT = 1_023

Number = int | float


def combined(left: Part, token: Token, right: Part, binds: int) -> Part:
    """`left + right`, say, as one part. Raises FilterError.

    Args:
        left: the first operand.
        token: the operator.
        right: the second operand.
        binds: how tightly the operator binds.
    """
    operator = token.text
    takes = (Kind.INTEGER,) if operator == "%" else NUMERIC
    for side in (left, right):
        if side.kind not in takes:
            raise FilterError(side.at, f"`{operator}` needs {takes[-1].value}, found {side.text}")
    if left.constant is not None and right.constant is not None:
        return constant(_computed(number(left.constant), token, right), left.at)
    if operator == "**":
        raise FilterError(token.at, "`**` needs two constants")
    if operator in "/%" and right.constant in (None, 0, -1):
        raise FilterError(right.at, f"divides by {right.text}; a divisor is a constant, and neither zero nor -1")
    kinds = {left.kind, right.kind}
    if len(kinds) > 1 and (left if left.constant is None else right).kind is Kind.INTEGER:
        raise FilterError(right.at, f"{left.text} and {right.text}: an integer field takes integers alone")
    kind = Kind.NUMBER if Kind.NUMBER in kinds else Kind.INTEGER
    text = f"{left.within(binds)} {operator} {right.within(binds + 1)}"
    return Part(text, kind, left.at, binds, needs=left.needs | right.needs)


def signed(token: Token, part: Part) -> Part:
    """`-part` or `+part`, for a constant number. Raises FilterError."""
    if part.constant is None or part.kind not in NUMERIC:
        raise FilterError(token.at, f"`{token.text}` goes before a number, found {part.text}")
    value = number(part.constant)
    return constant(-value if token.text == "-" else value, token.at)


def number(value: Constant | None) -> Number:
    """The constant of a part whose kind is numeric."""
    assert isinstance(value, int | float)  # noqa: S101 - its kind is numeric
    return value


def _computed(first: Number, token: Token, right: Part) -> Number:
    """The result for two constants; integers divide as in Milvus, towards zero."""
    second = number(right.constant)
    if token.text in "/%" and second == 0:
        raise FilterError(right.at, "divides by zero")
    if token.text == "**" and not (abs(second) <= _MAX_EXPONENT and (first or second >= 0)):
        raise FilterError(right.at, f"an exponent is {-_MAX_EXPONENT} to {_MAX_EXPONENT}, and not negative for zero")
    try:
        result = _COMPUTE[token.text](first, second)
    except OverflowError:
        result = float("inf")
    if isinstance(result, complex):
        raise FilterError(token.at, "has no real value")
    return result


def _quotient(first: Number, second: Number) -> Number:
    if isinstance(first, float) or isinstance(second, float):
        return first / second
    magnitude = abs(first) // abs(second)
    return magnitude if (first < 0) == (second < 0) else -magnitude


_COMPUTE: dict[str, Callable[[Number, Number], Number]] = {
    "+": lambda first, second: first + second,
    "-": lambda first, second: first - second,
    "*": lambda first, second: first * second,
    "/": _quotient,
    "%": lambda first, second: first - second * _quotient(first, second),
    "**": lambda first, second: first**second,
}

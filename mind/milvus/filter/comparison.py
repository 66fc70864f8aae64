"""Comparisons in filters: which types can be compared with which, and how a comparison is written."""

from mind.milvus.filter.error import FilterError
from mind.milvus.filter.logic import Binds, Certain, both
from mind.milvus.filter.parts import ELEMENT, NUMERIC, Kind, Part, condition
from mind.milvus.filter.tokens import Token

MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The operators, and what each becomes when its two sides change places."""
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
"""The operators, and for each the one that is true where it is false, as values are never NaN."""
_CHAINS = ({"<", "<="}, {">", ">="})


def compared(left: Part, token: Token, right: Part) -> Part:
    """`left == right`, say, as a condition; a constant goes to the right. Raises FilterError."""
    if left.constant is not None and right.constant is not None:
        raise FilterError(left.at, f"compares the constants {left.text} and {right.text}; one side must have a field")
    operator = token.text
    if left.constant is not None:
        left, right, operator = right, left, MIRRORED[operator]
    for side in (left, right):
        if side.kind in (Kind.CONDITION, *ELEMENT):
            instead = "" if side.kind is Kind.CONDITION else f"; use array_contains({side.text}, ...)"
            raise FilterError(side.at, f"{side.text} is {side.kind.value}, which `{operator}` cannot compare{instead}")
    if right.constant is not None:
        check_value(left, left.kind, right)
    else:
        _check_fields(left, right)
    if left.kind is Kind.BOOLEAN and operator not in ("==", "!="):
        raise FilterError(token.at, f"{left.text} is true or false: compare it with == or !=")
    return _comparison(left, operator, right.text, left.needs | right.needs)


def is_true(field: Part) -> Part:
    """A field that is true or false as a condition, which Milvus wants spelled out."""
    return _comparison(field, "==", "true", field.needs)


def among(field: Part, values: list[str], inside: bool) -> Part:
    """`field in [...]`, or `field not in [...]`, as a condition. Raises FilterError."""
    listed = f"[{', '.join(values)}]"
    holds = Certain(f"{field.text} in {listed}", needs=field.needs)
    fails = Certain(f"{field.text} not in {listed}", needs=field.needs)
    if field.element:
        if not values:
            raise FilterError(field.at, f"`in` needs a list of one value or more for {field.text}")
        # Of an element beyond the end of its array Milvus 2.3.5 says `not in`, but not `!=`.
        fails = both(fails, Certain(f"{field.text} != {values[0]}", needs=field.needs))
    return condition(*((holds, fails) if inside else (fails, holds)), field.at)


def check_range(first: Token, second: Token) -> None:
    """Check that two operators make a range, as in `1 < year <= 5`. Raises FilterError."""
    if not any({first.text, second.text} <= chain for chain in _CHAINS):
        raise FilterError(second.at, f"`{first.text}` and then `{second.text}` is no range; use parentheses and `and`")


def check_value(left: Part, kind: Kind, value: Part) -> None:
    """Check that a value is a constant fit for `left`, whose values are of a kind. Raises FilterError."""
    if value.constant is None:
        raise FilterError(value.at, f"expected a constant, found {value.text}")
    if value.kind is not kind and (kind, value.kind) != (Kind.NUMBER, Kind.INTEGER):
        raise FilterError(value.at, f"{value.text} is {value.kind.value}; {left.text} needs {kind.value}")


def _comparison(left: Part, operator: str, right: str, needs: frozenset[str]) -> Part:
    holds = Certain(f"{left.text} {operator} {right}", needs=needs)
    return condition(holds, Certain(f"{left.text} {_OPPOSITE[operator]} {right}", needs=needs), left.at)


def _check_fields(left: Part, right: Part) -> None:
    for side in (left, right):
        if side.element or side.binds < Binds.ATOM:
            raise FilterError(side.at, f"{side.text} can be compared with a constant alone")
    if left.kind is not right.kind and not (left.kind in NUMERIC and right.kind in NUMERIC):
        raise FilterError(right.at, f"{right.text} is {right.kind.value}, {left.text} {left.kind.value}")

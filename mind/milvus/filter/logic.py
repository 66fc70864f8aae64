"""Three-valued logic for filters: an absent value makes a comparison neither true nor false, as in SQL.

Milvus knows two values only. So each condition is written twice: where it is certainly true and where it is certainly
false. `not` changes the two places, and no `not` is left over conditions that are joined (De Morgan).
"""

from dataclasses import dataclass
from enum import IntEnum

IN_A_ROW = 16
"""How many operands are written without parentheses; more are written in two halves.

Milvus 2.3.5 takes time that grows with the square of the operands in a row: 0.3 s for 500, 0.02 s in halves of halves.
"""


class Binds(IntEnum):
    """How tightly operators bind their operands; a larger number binds more tightly."""

    NOTHING = 0
    OR = 1
    AND = 2
    NOT = 3
    COMPARISON = 4
    SUM = 5
    PRODUCT = 6
    SIGN = 7
    POWER = 8
    ATOM = 9


@dataclass(frozen=True)
class Certain:
    """An expression for the items of which something is certain."""

    text: str
    """The expression as far as it compares values."""
    binds: int = Binds.COMPARISON
    """How tightly its outermost operator binds."""
    needs: frozenset[str] = frozenset()
    """Conditions that must hold besides, in any order: that attributes have a value."""
    operands: tuple[str, ...] = ()
    """What the outermost operator joins, if that is `and` or `or`."""

    def within(self, binds: int) -> str:
        """The text as an operand of an operator that binds so tightly."""
        return self.text if self.binds >= binds else f"({self.text})"

    def whole(self) -> "Certain":
        """The same with everything that it needs written out."""
        if not self.needs:
            return self
        return _joined(Binds.AND, (*_operands(self, Binds.AND), *sorted(self.needs)), frozenset())


def both(left: Certain, right: Certain) -> Certain:
    """Where both are certain."""
    operands = _operands(left, Binds.AND) + _operands(right, Binds.AND)
    return _joined(Binds.AND, operands, left.needs | right.needs)


def either(left: Certain, right: Certain) -> Certain:
    """Where one of the two is certain, or both."""
    if left.needs != right.needs:
        left, right = left.whole(), right.whole()
    return _joined(Binds.OR, _operands(left, Binds.OR) + _operands(right, Binds.OR), left.needs)


def _operands(one: Certain, binds: Binds) -> tuple[str, ...]:
    """What it adds to a row of operands that an operator joins."""
    return one.operands if one.operands and one.binds == binds else (one.within(binds),)


def _joined(binds: Binds, operands: tuple[str, ...], needs: frozenset[str]) -> Certain:
    return Certain(_nested(operands, " and " if binds is Binds.AND else " or "), binds, needs, operands)


def _nested(operands: tuple[str, ...], operator: str) -> str:
    if len(operands) <= IN_A_ROW:
        return operator.join(operands)
    half = len(operands) // 2
    return operator.join(f"({_nested(some, operator)})" for some in (operands[:half], operands[half:]))

"""Three-valued logic for filters: an absent value makes a comparison neither true nor false, as in SQL.

Milvus knows two values only. So each condition is written twice: where it is certainly true and where it is certainly
false. `not` changes the two places, and no `not` is left over conditions that are joined (De Morgan).
"""

from dataclasses import dataclass
from enum import IntEnum


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

    def within(self, binds: int) -> str:
        """The text as an operand of an operator that binds so tightly."""
        return self.text if self.binds >= binds else f"({self.text})"

    def whole(self) -> "Certain":
        """The same with everything that it needs written out."""
        if not self.needs:
            return self
        return Certain(" and ".join([self.within(Binds.AND), *sorted(self.needs)]), Binds.AND)


def both(left: Certain, right: Certain) -> Certain:
    """Where both are certain."""
    text = f"{left.within(Binds.AND)} and {right.within(Binds.AND)}"
    return Certain(text, Binds.AND, left.needs | right.needs)


def either(left: Certain, right: Certain) -> Certain:
    """Where one of the two is certain, or both."""
    if left.needs != right.needs:
        left, right = left.whole(), right.whole()
    return Certain(f"{left.within(Binds.OR)} or {right.within(Binds.OR)}", Binds.OR, left.needs)

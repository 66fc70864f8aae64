"""`like`: patterns in which `%` stands for any text and `_` for one character; a backslash before one makes it literal.

Milvus 2.3.5 knows patterns that end in `%` alone, takes `_` and a backslash literally and says nothing. Milvus Lite
reads a backslash in some filters and not in others. So a pattern is written in a way that all understand alike, or that
2.3.5 refuses.
"""

import re

from mind.milvus.filter.error import FilterError
from mind.milvus.filter.logic import Binds, Certain, both, either
from mind.milvus.filter.parts import Part, condition, quoted

_PIECE = re.compile(r"\\(.?)|([%_])|([^\\%_]+)", re.DOTALL)
_WILD = re.compile(r"[%_\\]")
_LAST, _SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)


def fits(field: Part, pattern: str, at: int) -> Part:
    """`field like pattern` as a condition. Raises FilterError.

    Args:
        field: the text to be compared.
        pattern: the pattern, with its backslashes.
        at: where it begins in the filter.
    """
    literal, wild = "", ""
    for escaped, wildcard, text in _PIECE.findall(pattern):
        if wildcard:
            wild += wildcard
        elif text:
            literal, wild = literal + text, wild + text * bool(wild)
        elif escaped in ("%", "_", "\\"):
            literal, wild = literal + escaped, wild + "\\" * bool(wild)
        else:
            raise FilterError(at, "in a pattern, a backslash goes before %, _ or another backslash")
    if not wild:
        return _equal(field, literal)
    if set(wild) == {"%"}:
        return _begins(field, literal)
    return _anywhere(field, pattern, at)


def _equal(field: Part, text: str) -> Part:
    # Milvus 2.3.5 takes an empty pattern for one that fits everything.
    value = quoted(text)
    holds, fails = f"{field.text} == {value}", f"{field.text} != {value}"
    return condition(Certain(holds, needs=field.needs), Certain(fails, needs=field.needs), field.at)


def _begins(field: Part, prefix: str) -> Part:
    if _WILD.search(prefix):
        first, after = (quoted(text) for text in (prefix, _after(prefix)))
        name, needs = field.text, field.needs
        holds = both(Certain(f"{name} >= {first}", needs=needs), Certain(f"{name} < {after}", needs=needs))
        fails = either(Certain(f"{name} < {first}", needs=needs), Certain(f"{name} >= {after}", needs=needs))
        return condition(holds, fails, field.at)
    return _matching(field, Certain(f"{field.text} like {quoted(prefix + '%')}", needs=field.needs))


def _anywhere(field: Part, pattern: str, at: int) -> Part:
    if "\\" in pattern:
        raise FilterError(at, "a pattern with an escaped %, _ or \\ takes no other wildcard than a % at its end")
    # The second is implied by the first; Milvus 2.3.5, which would take _ literally, refuses it.
    patterns = (Certain(f"{field.text} like {quoted(one)}", needs=field.needs) for one in (pattern, "%" + pattern))
    return _matching(field, both(*patterns))


def _matching(field: Part, holds: Certain) -> Part:
    fails = Certain(f"not ({holds.text})", Binds.NOT, field.needs)
    if field.element:  # there is none beyond the end of its array
        some = (Certain(f'{field.text} {operator} ""', needs=field.needs) for operator in ("==", "!="))
        fails = both(fails, either(*some))
    return condition(holds, fails, field.at)


def _after(prefix: str) -> str:
    """The first text, in the order of UTF-8, after all that begin with a prefix."""
    kept = prefix.rstrip(chr(_LAST))
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES[1] + 1 if code == _SURROGATES[0] else code)

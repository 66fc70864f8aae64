"""A filter as tokens: words, numbers, strings and symbols, and the values that literals stand for."""

import re
from typing import NamedTuple

from mind.milvus.filter.error import FilterError

INT64_MAX = 2**63 - 1
"""The largest integer, and without its sign the smallest: Milvus 2.3.5 does not read -2^63."""

_KEYWORDS = {"and", "or", "not", "in", "like", "is", "null"}
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<float>(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<integer>[0-9]+)
    |(?P<string>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    |(?P<symbol>\*\*|&&|\|\||[=!<>]=|<(?!>)|[!>+\-*/%()\[\],])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_MEANT = {"=": "==", "<>": "!=", "&": "and", "|": "or"}
"""Operators of other languages that people write, and what they are here."""
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


class Token(NamedTuple):
    """A token of a filter."""

    kind: str
    """`word`, `keyword`, `float`, `integer`, `string`, `symbol` or `end`."""
    text: str
    at: int
    """Position in the filter, from 0."""

    def shown(self) -> str:
        """The token in a message."""
        return "the end" if self.kind == "end" else repr(self.text[:30])


def token_at(filter_: str, at: int) -> Token:
    """The first token from a position on; spaces before it are skipped. Raises FilterError if there is none."""
    matched = _TOKEN.match(filter_, at)
    if not matched:
        at += len(filter_[at:]) - len(filter_[at:].lstrip(" \t\r\n"))
        for slip, meant in _MEANT.items():
            if filter_.startswith(slip, at):
                raise FilterError(at, f"`{slip}` is no operator; use `{meant}`")
        if filter_[at] in "\"'":
            raise FilterError(at, "a string that does not end; strings stay on one line")
        raise FilterError(at, f"{filter_[at]!r} is no part of a filter")
    kind = str(matched.lastgroup)
    text = matched[kind]
    if kind == "word" and (text.lower() in _KEYWORDS) and (text.islower() or text.isupper()):
        return Token("keyword", text.lower(), matched.start(kind))
    return Token(kind, text, matched.start(kind))


def literal(token: Token, pattern: bool = False) -> int | float | str:
    """The value of a float, an integer or a string, or of a string as a pattern of `like`. Raises FilterError."""
    if token.kind == "float":
        return float(token.text)
    if token.kind == "integer":
        if len(token.text) > 1 and token.text.startswith("0"):
            raise FilterError(token.at, f"{token.text[:30]} begins with 0, which some would read as octal")
        return int(token.text) if len(token.text) <= len(str(INT64_MAX)) else INT64_MAX + 1
    return _ESCAPE.sub(lambda escape: _unescaped(escape, token.at + 1, pattern), token.text[1:-1])


def _unescaped(escape: re.Match[str], start: int, pattern: bool) -> str:
    if pattern and escape[2] in ("%", "_"):
        return escape[0]
    character = chr(int(escape[1], 16)) if escape[1] else _UNESCAPED.get(escape[2], "")
    if not character or "\ud800" <= character <= "\udfff":
        known = r"known are \\ \" \' \n \r \t and \u with a character's code"
        raise FilterError(start + escape.start(), f"{escape[0]!r} is no escape; {known}")
    return character

"""A caller's filter becomes one of our own words, or is refused; what the caller wrote never reaches Milvus.

The language is the part of Milvus' own that item attributes need. Milvus 2.3.5 ends its process on some comparisons of
constants and on divisions by zero, so neither passes. What Milvus versions understand differently is written in a way
that all of them understand alike, and filters that differ only in spelling become equal. Knows nothing of pymilvus.
"""

from collections.abc import Mapping
from functools import lru_cache

from mind.milvus.collection import ITEM_ID, ITEM_KEY
from mind.milvus.filter.error import FilterError
from mind.milvus.filter.grammar import TEXT_ID, Parser


def canonical(filter_: str, attributes: Mapping[str, str], max_depth: int) -> str:
    """The filter in canonical spelling; empty if it is blank.

    Args:
        filter_: what the caller wrote.
        attributes: name to Milvus type, as in `Fingerprint.attributes`; `item_id` is known besides. It is the column
            `ITEM_KEY` where there is one, and callers know no other name of that column.
        max_depth: how deep parentheses, `not` and signs may be nested.

    Raises:
        FilterError: it is no expression, or one that could harm; `describe` names the column, from 1.
    """
    return _canonical(filter_, tuple(attributes.items()), max_depth)


def describe(filter_: str, error: FilterError) -> str:
    """What is wrong with a filter, and where."""
    return f"{filter_[:100]!r}, column {error.at + 1}: {str(error).replace(TEXT_ID, ITEM_ID)}"


@lru_cache(256)
def _canonical(filter_: str, attributes: tuple[tuple[str, str], ...], max_depth: int) -> str:
    if not filter_.strip():
        return ""
    names = dict(attributes)
    names = {ITEM_ID: names.pop(ITEM_KEY, "INT64")} | names
    return Parser(filter_, names, max_depth).parse().replace(TEXT_ID, ITEM_KEY)

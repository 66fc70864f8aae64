"""Ids written with leading zeros: two spellings of one number, such as 0101 and 101, must not become one id.

An id is an integer of 64 bits. Zeros in front of it are dropped, which is told; it is refused where the same number
also occurs without them, or with another number of them, because these may be two things.
"""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind.errors import DataError
from mind.sequences import Int64

_NUMBER = re.compile("-?[0-9]+")


def refuse_two_spellings(
    path: Path, name: str, column: pa.ChunkedArray, ids: Int64, lines: Int64, unit: str = "line"
) -> int:
    """Count the ids that have leading zeros.

    Args:
        path: the file, for the message.
        name: the column's.
        column: [N] as the file has it; only text can have leading zeros.
        ids: [N] int64, what it was read as; 0 where it is none.
        lines: [N] int64, where each row stands.
        unit: what `lines` counts.

    Raises:
        DataError: an id occurs in two spellings.
    """
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0
    padded = pc.or_(pc.starts_with(column, "0"), pc.starts_with(column, "-0")).fill_null(False).to_numpy()
    if not padded.any():
        return 0
    texts = column.filter(pa.array(padded))
    zeros = pc.match_substring_regex(texts, "^(-?0[0-9]+|-0)$").to_numpy()
    if not zeros.any():
        return 0
    suspects = np.isin(ids, np.unique(ids[padded][zeros]))
    first: dict[int, str] = {}
    for text in pc.unique(column.filter(pa.array(suspects))).to_pylist():
        if text is None or not _NUMBER.fullmatch(text):
            continue
        spelling = first.setdefault(int(text), text)
        if spelling != text:
            one, other = (f"{spelt!r} in {unit} {lines[pc.index(column, spelt).as_py()]}" for spelt in (spelling, text))
            raise DataError(
                f"{path}: {name} {int(text)} is spelt {one} and {other}; ids are integers, so both would be one: "
                "spell it one way, or give each an integer of its own"
            )
    return int(zeros.sum())

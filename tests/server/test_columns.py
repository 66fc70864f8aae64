"""Columns of attributes: whatever is put in comes out, in little memory."""

from typing import Any

import numpy as np
import pytest

from mind.keys import Keys
from server.serving import columns
from server.serving.columns import NOTHING, Column, ColumnBuilder

KINDS: dict[str, list[Any]] = {
    "INT64": [7, -(2**63), 2**63 - 1, 0],
    "DOUBLE": [0.5, -1.0, 0.0, 1e300],
    "BOOL": [True, False],
    "VARCHAR": ["a", "", "ähnlich ☃", 'quote " and \\'],
    "ARRAY<INT64>": [(1, 2), (), (2**63 - 1,)],
    "ARRAY<VARCHAR>": [("a", "b"), (), ('"', "é")],
}


def built(kind: str, values: dict[int, Any], items: int, page: int = 3) -> Column:
    builder = ColumnBuilder(kind, items)
    rows = sorted(values)
    for start in range(0, len(rows), page):
        own = rows[start : start + page]
        builder.put(np.array(own), [values[row] for row in own])
    return builder.done()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coded", [100, 2])
def test_values_come_out_as_they_went_in(kind: str, coded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_CODED", coded)
    choice = KINDS[kind]
    values = {row: choice[row % len(choice)] for row in range(1, 40) if row % 5}
    column = built(kind, values, 40)
    found, present = column.at(np.arange(41))
    assert found == [values.get(row, NOTHING[kind]) for row in range(41)]
    assert present.tolist() == [row in values for row in range(41)]
    assert isinstance(column.values, list) == (coded == 100)


def test_a_column_without_values_has_none() -> None:
    assert built("VARCHAR", {}, 5).at(np.arange(6))[1].tolist() == [False] * 6


def test_a_million_categories_take_a_byte_each_and_titles_their_text() -> None:
    items = 100_000
    category = built("VARCHAR", {row: f"category {row % 200}" for row in range(1, items + 1)}, items, 10_000)
    assert category.nbytes < 1.3 * items
    titles = {row: f"{row:024d}" for row in range(1, items + 1)}
    title = built("VARCHAR", titles, items, 10_000)
    assert isinstance(title.values, Keys)
    assert title.nbytes < 37 * items
    assert title.at(np.array([5, 99_999]))[0] == [titles[5], titles[99_999]]
    price = built("DOUBLE", {row: row / 8 for row in range(1, items + 1)}, items, 10_000)
    assert price.nbytes < 13 * items
    assert price.at(np.array([8]))[0] == [1.0]

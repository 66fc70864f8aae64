"""Repairs a journal in which Milvus shows replaced rows again.

After a restart, Milvus 2.3.5 may show rows that were replaced or deleted before (its issues 32915 and 33015). An item
then has several rows under one key: a query returns any of them, and a count counts them all. In a journal, the row
with the newest time counts, and at equal times the row that is marked as applied.
"""

from collections.abc import Iterator

from mind.milvus.collection import ITEM_ID
from mind.milvus.journal import APPLIED, CHANGED_AT
from mind.milvus.store import Row, Store

_LAST = "~"  # after all times


def repair(store: Store, name: str, batch_rows: int) -> int:
    """Write the newest row of each item that has several. Milvus then drops the others.

    Args:
        store: the connection to Milvus.
        name: the journal, which must be loaded.
        batch_rows: the number of rows that are read and written at once.

    Returns:
        The number of items that had several rows.
    """
    repaired, last = 0, ""
    while rows := store.rows(name, last or f"{CHANGED_AT} < {_quoted(_LAST)}", batch_rows, first=True):
        among = f"{ITEM_ID} <= {rows[-1][ITEM_ID]}" + (f" and {last}" if last else "")
        if store.count(name, among) > len({row[ITEM_ID] for row in rows}):
            newest = _newest(store, name, among, batch_rows)
            store.upsert(name, newest)
            repaired += len(newest)
        last = f"{ITEM_ID} > {rows[-1][ITEM_ID]}"
    return repaired


def _newest(store: Store, name: str, among: str, limit: int) -> list[Row]:
    """Return the newest row of each item that has several."""
    newest: dict[int, Row] = {}
    several: set[int] = set()
    for applied in ("false", "true"):
        for row in _all_rows(store, name, f"{among} and {APPLIED} == {applied}", "", _LAST, limit):
            item_id = row[ITEM_ID]
            if item_id in newest:
                several.add(item_id)
            if item_id not in newest or row[CHANGED_AT] >= newest[item_id][CHANGED_AT]:
                newest[item_id] = row
    return [newest[item_id] for item_id in sorted(several)]


def _all_rows(store: Store, name: str, among: str, after: str, before: str, limit: int) -> Iterator[Row]:
    """Read the rows with a time between two others, all rows of an item, by ever shorter spans of time."""
    own = f"{among} and {CHANGED_AT} > {_quoted(after)} and {CHANGED_AT} < {_quoted(before)}"
    rows = store.rows(name, own, limit)
    if store.count(name, own) <= len(rows):
        yield from rows
    else:
        times = sorted(row[CHANGED_AT] for row in rows)
        middle = times[len(times) // 2]
        yield from _all_rows(store, name, among, after, middle, limit)
        yield from store.rows(name, f"{among} and {CHANGED_AT} == {_quoted(middle)}", limit)
        yield from _all_rows(store, name, among, middle, before, limit)


def _quoted(time: str) -> str:
    return f'"{time}"'

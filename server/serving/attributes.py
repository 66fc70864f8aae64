"""The attributes of the items of an answer.

The first request for an attribute reads its column from Milvus. The column stays in memory while there is room, and
follows the changes that the indexer makes. Until it is read, and if there is no room, the server asks Milvus about the
items of each answer.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mind.milvus.collection import ITEM_ID, presence_of
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.errors import FAILURES
from server.ports import ItemStore
from server.release import Release
from server.serving.changes import Changes
from server.serving.columns import NOTHING, Column, ColumnBuilder, Groups, Value, groups
from server.serving.offload import computed

logger = logging.getLogger(__name__)

PAGE = 4_096
"""Most items whose values are read from Milvus at a time."""
WAIT_S = 1.0
"""Longest wait of an answer for Milvus; half of the caller's remaining time if that is less."""
MOST_CHANGED = 10_000
"""Most changed items before the columns are read again."""
READ_AGAIN_S = 1_800.0
"""Age from which a column is read again in the background, for changes that did not come from the indexer."""
VALUE_ITEMS = 5
"""Looking up or writing a value takes as long as processing this many items (`server.serving.offload`)."""
ROW_BYTES = 400
"""Approximate memory of the values of an item that are stored outside of columns."""
MAX_BYTES = 256 * 2**20
"""Memory for columns."""
COLLECTIONS = 2
"""Collections whose columns are kept, for each channel: that of its release, and of the one before."""

Row = dict[str, Value | None]
"""Values of one item by attribute; None where it has none."""
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """The values of one attribute for the items of an answer."""

    name: str
    kind: str
    """The Milvus type of the attribute."""
    values: list[Value]
    """One for each item, in their order; 0, false, "" or () where there is none."""
    present: Mask
    """[n] bool, which items have a value."""


@dataclass(frozen=True)
class Whole:
    """One numeric attribute of all items."""

    name: str
    column: Column
    """The values of the items that the model knows, as they were when the column was read."""
    changed: Mapping[int, Row]
    """Newer values, and those of items that the model does not know, by item id."""
    version: Hashable
    """Another one if any value may have changed."""

    def numbers(self, release: Release, fresh_ids: Int64) -> tuple[Numbers, Numbers]:
        """The numbers of all rows of the item table, [N + 1], and those of fresh items; NaN where there is none."""
        values = np.array(self.column.values, np.float64)
        values[0] = np.nan
        found, fresh = values[self.column.codes], np.full(len(fresh_ids), np.nan)
        newer = [(item_id, its[self.name]) for item_id, its in list(self.changed.items()) if self.name in its]
        if newer:
            item_ids = np.array([item_id for item_id, _ in newer], np.int64)
            told = np.array([np.nan if value is None else value for _, value in newer], np.float64)
            row = release.vocabulary.item_index(item_ids)
            found[row[row > 0]] = told[row > 0]
            place = np.minimum(np.searchsorted(fresh_ids, item_ids), len(fresh_ids) - 1) if len(fresh_ids) else row
            own = fresh_ids[place] == item_ids if len(fresh_ids) else np.zeros(len(row), bool)
            fresh[place[own]] = told[own]
        return found, fresh


@dataclass
class _Table:
    """What is stored of a collection."""

    changes: Changes
    columns: dict[str, Column] = field(default_factory=dict)
    """The values of the items that the model knows, as they were when the column was read."""
    changed: dict[int, Row] = field(default_factory=dict)
    """Newer values, and those of items that the model does not know, by item id."""
    current_at: float = 0.0
    """When Milvus was last asked about changed items, on the clock of `time.monotonic`."""
    read_at: float = 0.0
    """When the oldest of the columns was read."""
    updates: int = 0
    """Changed items that were read since then."""
    reading: frozenset[str] = frozenset()
    """The attributes whose columns are being read."""
    refused: set[str] = field(default_factory=set)
    """Attributes for which there is no room."""
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)


class Attributes:
    """Gives the attributes of items."""

    def __init__(
        self, store: ItemStore, max_bytes: int = MAX_BYTES, served: Callable[[], Sequence[Release]] = lambda: ()
    ) -> None:
        """`store`: holds the collections; `max_bytes`: memory for columns; `served`: the releases that serve now."""
        self._store = store
        self._served = served
        self._max_bytes = max_bytes
        self._tables: OrderedDict[str, _Table] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def of(
        self, release: Release, names: Sequence[str], item_ids: Int64, remaining_s: float | None
    ) -> tuple[list[Values], str]:
        """Return the attributes of items.

        Args:
            release: whose collection has the attributes.
            names: of the attributes.
            item_ids: [n] int64.
            remaining_s: time left to the caller; None without a deadline.

        Returns:
            The values of each attribute, and why some attributes are left out; empty if none is.
        """
        known, why = await self._known(release, names, item_ids, remaining_s)
        size = VALUE_ITEMS * len(item_ids) * len(names)
        return await computed(size, _values, release, names, *known, item_ids), why

    async def groups(
        self, release: Release, names: Sequence[str], item_ids: Int64, remaining_s: float | None
    ) -> tuple[dict[str, Groups], str]:
        """Return which items share values of attributes. Arguments and the second result are those of `of`."""
        known, why = await self._known(release, names, item_ids, remaining_s)
        return await computed(len(item_ids) * len(names), _groups, release, names, *known, item_ids), why

    async def whole(self, release: Release, name: str, remaining_s: float | None) -> tuple[Whole | None, str]:
        """A numeric attribute of all items, which must fit into memory; or None, and the reason why it is not there.

        Arguments are those of `of`. While the column is being read, a caller waits for it.
        """
        wait_s = WAIT_S if remaining_s is None else min(WAIT_S, remaining_s / 2)
        table = self._table(release.collection)
        with suppress(*FAILURES, TimeoutError):  # while Milvus is away, values are as they were seen last
            async with asyncio.timeout(wait_s):
                await self._update(release, table, [name])
                while name not in table.columns and table.reading:
                    await asyncio.wait([*self._tasks], return_when=asyncio.FIRST_COMPLETED)
                    await self._update(release, table, [name])
        if column := table.columns.get(name):
            version = name, id(column), table.read_at, table.updates
            return Whole(name, column, table.changed, version), ""
        if name in table.refused:
            return None, "--attribute-cache-mb has no room for it"
        return None, "it is not in memory yet"

    async def _known(
        self, release: Release, names: Sequence[str], item_ids: Int64, remaining_s: float | None
    ) -> tuple[tuple[dict[str, Column], dict[int, Row], dict[int, Row] | None], str]:
        """What is known of items: columns, newer values, values that Milvus told of other attributes; and why not all.

        Arguments are those of `of`.
        """
        wait_s = WAIT_S if remaining_s is None else min(WAIT_S, remaining_s / 2)
        table = self._table(release.collection)
        why, rows = "", dict[int, Row]()
        try:
            async with asyncio.timeout(wait_s):
                with suppress(*FAILURES):  # while Milvus is away, values are as they were seen last
                    await self._update(release, table, names)
                others = [name for name in names if name not in table.columns]
                if others:
                    rows = await self._rows(release, others, await computed(len(item_ids), _distinct, item_ids))
        except TimeoutError:
            why = f"Milvus did not tell them within {wait_s:.3g} s"
        except FAILURES as error:
            why = f"Milvus did not tell them: {error}"
        kept = {name: table.columns[name] for name in names if name in table.columns}
        return (kept, table.changed, None if why else rows), why

    def _table(self, collection: str) -> _Table:
        table = self._tables.pop(collection, None) or _Table(Changes(self._store, collection))
        self._tables[collection] = table
        while len(self._tables) > COLLECTIONS * max(1, len(self._served())):
            self._tables.popitem(last=False)
        return table

    async def _update(self, release: Release, table: _Table, names: Sequence[str]) -> None:
        """Bring the columns up to date, and begin to read those that are not there."""
        await table.changes.look()
        async with table.updating:
            now = time.monotonic()
            again = table.changes.to_read_again(table.current_at) if table.columns else set()
            if again is None:  # nobody knows what changed
                table.columns.clear()
                table.changed.clear()
            else:
                if again:
                    read = await self._rows(release, list(table.columns), sorted(again))
                    for item_id, row in read.items():
                        table.changed.setdefault(item_id, {}).update(row)
                    table.updates += len(again)
                table.current_at = now
        wanted = {name for name in names if name not in table.columns and name not in table.refused}
        if table.updates > MOST_CHANGED or (table.columns and now - table.read_at > READ_AGAIN_S):
            wanted |= table.columns.keys()
        if wanted and not table.reading:
            table.reading = frozenset(wanted)
            task = asyncio.create_task(self._read(release, table, sorted(wanted)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read(self, release: Release, table: _Table, names: list[str]) -> None:
        """Read whole columns."""
        began = time.monotonic()
        try:
            columns, added = await self._columns(release, table, names)
        except FAILURES as error:
            logger.warning("the attributes %s of %s could not be read: %s", names, release.collection, error)
            return
        finally:
            table.reading = frozenset()
        async with table.updating:
            table.current_at = min(table.current_at, began) if table.columns else began
            table.read_at, table.updates = began, 0
            table.columns |= columns
            for row in table.changed.values():
                for name in columns:
                    row.pop(name, None)
            for item_id, row in added.items():
                own = {name: value for name, value in row.items() if name in columns}
                table.changed.setdefault(item_id, {}).update(own)
            table.changed = {item_id: row for item_id, row in table.changed.items() if row}
        if columns:
            size_mb = sum(column.nbytes for column in columns.values()) / 2**20
            said = "the attributes %s of %s are in memory: %.1f MB, read in %.1f s"
            logger.info(said, ", ".join(columns), release.collection, size_mb, time.monotonic() - began)

    async def _columns(
        self, release: Release, table: _Table, names: list[str]
    ) -> tuple[dict[str, Column], dict[int, Row]]:
        """The columns that there is room for, and the values of items that the model does not know."""
        least = await table.changes.least_rows(release.fingerprint.count)
        builders = {name: ColumnBuilder(_kind(release, name), len(release.vocabulary)) for name in names}
        added: dict[int, Row] = {}
        count, first = 0, -(2**63) + 1
        while builders and first < 2**63:
            page = f"{ITEM_ID} >= {first}"
            found = await self._store.values(release.collection, page, _fields(release, builders), limit=PAGE)
            if not found[ITEM_ID]:
                break
            first, count = max(found[ITEM_ID]) + 1, count + len(found[ITEM_ID])
            await asyncio.to_thread(_put, release, builders, added, found)
            self._make_room(release.collection, table, builders, ROW_BYTES * len(added))
        if count < least:
            logger.info("Milvus told the attributes of %d of %d items; it may be loading them", count, least)
            return {}, {}
        return await asyncio.to_thread(lambda: {name: builder.done() for name, builder in builders.items()}), added

    def _make_room(self, collection: str, table: _Table, builders: dict[str, ColumnBuilder], added: int) -> None:
        """Give up the columns of collections that no channel serves now, then those being read, the largest first.

        `added`: bytes of the values of items that the model does not know.
        """
        growing = {name: builder.nbytes for name, builder in builders.items()}
        kept = {collection, *(release.collection for release in self._served())}
        for name, other in self._tables.items():
            if name not in kept and self._size() + sum(growing.values()) + added > self._max_bytes:
                other.columns, other.changed = {}, {}
        replaced = sum(table.columns[name].nbytes for name in growing if name in table.columns)
        while growing and self._size() - replaced + sum(growing.values()) + added > self._max_bytes:
            largest = max(growing, key=lambda name: growing[name])
            logger.info(
                "--attribute-cache-mb has no room for attribute %s of %s; it is read from Milvus for each request",
                largest,
                collection,
            )
            table.refused.add(largest)
            table.columns.pop(largest, None)
            del growing[largest], builders[largest]

    def _size(self) -> int:
        tables = self._tables.values()
        columns = sum(column.nbytes for table in tables for column in table.columns.values())
        return columns + ROW_BYTES * sum(len(table.changed) for table in tables)

    async def _rows(self, release: Release, names: Iterable[str], item_ids: list[int]) -> dict[int, Row]:
        """The values of some items, as Milvus tells them now; items that do not exist are left out."""
        names = list(names)
        rows: dict[int, Row] = {}
        for start in range(0, len(item_ids), PAGE):
            wanted = f"{ITEM_ID} in {json.dumps(item_ids[start : start + PAGE])}"
            found = await self._store.values(release.collection, wanted, _fields(release, names))
            rows |= await computed(VALUE_ITEMS * len(found[ITEM_ID]) * len(names), _told, names, found)
        return rows


def _distinct(item_ids: Int64) -> list[int]:
    distinct: list[int] = np.unique(item_ids).tolist()
    return distinct


def _kind(release: Release, name: str) -> str:
    return release.fingerprint.attributes[name]


def _fields(release: Release, names: Iterable[str]) -> list[str]:
    """The fields of a collection that have the values of attributes, and whether there are any."""
    known = release.fingerprint.attributes
    return [own for name in names for own in (name, presence_of(name)) if own in known]


def _optional(found: Mapping[str, list[Any]], name: str) -> list[Value | None]:
    """The values of an attribute as Milvus told them; None where an item has none."""
    values = [tuple(value) if isinstance(value, list) else value for value in found[name]]
    present = found.get(presence_of(name))
    return [value if there else None for value, there in zip(values, present, strict=True)] if present else values


def _told(names: Sequence[str], found: Mapping[str, list[Any]]) -> dict[int, Row]:
    """The values of items by id, as Milvus told them."""
    columns = zip(*(_optional(found, name) for name in names), strict=True)
    return {
        item_id: dict(zip(names, values, strict=True)) for item_id, values in zip(found[ITEM_ID], columns, strict=True)
    }


def _put(
    release: Release, builders: Mapping[str, ColumnBuilder], added: dict[int, Row], found: Mapping[str, list[Any]]
) -> None:
    """Put a page of values into columns, and those of items that the model does not know into `added`."""
    item_ids = np.array(found[ITEM_ID], np.int64)
    row = release.vocabulary.item_index(item_ids)
    fresh = np.flatnonzero(row == 0).tolist()
    for name, builder in builders.items():
        values = _optional(found, name)
        there = [place for place, value in enumerate(values) if value is not None and row[place]]
        builder.put(row[there], [values[place] for place in there])
        for place in fresh:
            added.setdefault(int(item_ids[place]), {})[name] = values[place]


def _values(
    release: Release,
    names: Sequence[str],
    columns: Mapping[str, Column],
    changed: Mapping[int, Row],
    rows: Mapping[int, Row] | None,
    item_ids: Int64,
) -> list[Values]:
    """The values of attributes: from columns, or as Milvus told them; None for `rows` leaves the latter out."""
    found = _from_columns(release, columns, changed, item_ids)
    if rows is not None:
        others = [name for name in names if name not in found]
        found |= {name: _from_rows(release, name, rows, item_ids.tolist()) for name in others}
    return [found[name] for name in names if name in found]


def _from_columns(
    release: Release, columns: Mapping[str, Column], changed: Mapping[int, Row], item_ids: Int64
) -> dict[str, Values]:
    """The values that are kept for some items."""
    row, newer = release.vocabulary.item_index(item_ids), _newer(changed, item_ids)
    found = {}
    for name, column in columns.items():
        values, present = column.at(row)
        for place, values_of in newer:
            if name in values_of:
                value = values_of[name]
                values[place], present[place] = NOTHING[column.kind] if value is None else value, value is not None
        found[name] = Values(name, column.kind, values, present)
    return found


def _newer(changed: Mapping[int, Row], item_ids: Int64) -> list[tuple[int, Row]]:
    """The places of the items that have newer values than the columns, and these values."""
    if not changed:
        return []
    return [(place, changed[item_id]) for place, item_id in enumerate(item_ids.tolist()) if item_id in changed]


def _groups(
    release: Release,
    names: Sequence[str],
    columns: Mapping[str, Column],
    changed: Mapping[int, Row],
    rows: Mapping[int, Row] | None,
    item_ids: Int64,
) -> dict[str, Groups]:
    """Which items share values of attributes; arguments as of `_values`."""
    row, newer = release.vocabulary.item_index(item_ids), _newer(changed, item_ids)
    found = {}
    for name, column in columns.items():
        _, first, which = np.unique(column.codes[row], return_index=True, return_inverse=True)
        values, present = column.at(row[first])
        told = [value if there else None for value, there in zip(values, present.tolist(), strict=True)]
        for place, its in newer:
            if name in its:
                which[place] = len(told)
                told.append(its[name])
        found[name] = replace(groups(told, which), different=_different(name, column, changed))
    if rows is not None:
        for name in (name for name in names if name not in columns):
            told = [rows.get(item_id, Row()).get(name) for item_id in item_ids.tolist()]
            found[name] = groups(told, np.arange(len(item_ids)))
    return found


def _different(name: str, column: Column, changed: Mapping[int, Row]) -> int | None:
    """Most different values of an attribute of all items; None if that is not known, or if some item has none."""
    newer = [its[name] for its in list(changed.values()) if name in its]  # the loop may add to it meanwhile
    return None if column.different is None or None in newer else column.different + len(newer)


def _from_rows(release: Release, name: str, rows: Mapping[int, Row], item_ids: list[int]) -> Values:
    """The values that Milvus told for some items."""
    kind, nothing = _kind(release, name), Row()
    told = [rows.get(item_id, nothing).get(name) for item_id in item_ids]
    present = np.array([value is not None for value in told], bool)
    return Values(name, kind, [NOTHING[kind] if value is None else value for value in told], present)

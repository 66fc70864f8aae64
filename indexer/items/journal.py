"""The journal of an item collection. Changes are staged in it, then applied to the collection.

If a command is killed in between, the next one finds the staged changes and applies them. `mind.milvus.journal`
documents the rows. Staging and applying may be repeated at any point, because both write whole rows by id. In the rows
that this module gives and takes, None is the value of an attribute that an item does not have.
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from indexer.catalogue import ItemCollection, fingerprint_of, now
from indexer.errors import RefusedError, VerificationError
from indexer.items.attributes import absent_of
from indexer.items.journal_repair import repair
from indexer.progress import Progress
from indexer.verify import until_settled
from mind.milvus.collection import (
    ITEM_ID,
    ITEM_KEY,
    MAX_MESSAGE_BYTES,
    VECTOR_SOURCE,
    is_item_collection,
    is_presence,
    presence_of,
)
from mind.milvus.errors import StoreError
from mind.milvus.journal import APPLIED, CHANGED_AT, DELETE, FIELDS, OP, PENDING, UPSERT
from mind.milvus.records import RECORDS
from mind.milvus.store import Row, Store

_log = logging.getLogger(__name__)

MAX_BATCH_ROWS = 5_000
"""Maximum number of rows that are read or written at once."""


OWN = (VECTOR_SOURCE, ITEM_KEY)
"""Attributes of a collection that no file of attributes gives."""


class Journal:
    """The journal of one item collection. It is created when it is first needed."""

    def __init__(self, store: Store, collection: str) -> None:
        """Load the collection and its journal.

        Raises:
            RefusedError: the collection was built before there were journals, or its build did not finish.
            VerificationError: the journal has lost changes.
        """
        self._store = store
        self.collection = collection
        fields = store.columns(collection)
        self.columns = {name: column for name, column in fields.items() if not is_presence(name)}
        """The attributes of the collection, including `OWN`."""
        self.has_keys = ITEM_KEY in self.columns
        """Whether the items have text ids."""
        self.optional = {name for name in self.columns if presence_of(name) in fields}
        """The attributes that an item may lack: all but `OWN`; none if an earlier version built it."""
        if VECTOR_SOURCE not in self.columns:
            raise RefusedError(
                f"{collection}: its items have no attribute {VECTOR_SOURCE}, so they cannot be changed; "
                "build the collection again"
            )
        record = store.records.items([collection]).get(collection)
        self.dim = fingerprint_of(ItemCollection(collection, record)).dim
        """The length of a vector (D)."""
        store.load(collection)
        self.name = store.create_journal(collection)
        row_bytes = 4096 + 4 * self.dim + sum(column.max_bytes for column in fields.values())
        self.batch_rows = max(1, min(MAX_BATCH_ROWS, MAX_MESSAGE_BYTES // row_bytes))
        """The number of rows that fit into a message, even if all texts have the maximum length."""
        until_settled(self._check_rows)
        self._newest: str | None = None

    def rows(self, item_id: list[int]) -> dict[int, Row]:
        """Read the journal's rows of some items, by id. Items without a row are left out."""
        return self._by_id(self._store.rows(self.name, item_id)) if item_id else {}

    def items(self, item_id: list[int]) -> dict[int, Row]:
        """Read the rows of some items in the item collection, by id. Missing items are left out."""
        return self._by_id(self._store.rows(self.collection, item_id)) if item_id else {}

    def walk(self, name: str, filter_: str) -> Iterator[list[Row]]:
        """Read all rows that match a filter, by ascending id, in batches. `name` is the journal or the collection."""
        last = ""
        while rows := self._store.rows(name, f"({filter_}){last}", self.batch_rows, first=True):
            yield [self._decoded(row) for row in rows]
            last = f" and {ITEM_ID} > {rows[-1][ITEM_ID]}"

    def next_time(self, after: str = "") -> str:
        """Return the time of the next change: now, or just after `after` and all changes so far if that is later.

        Clocks may differ. This order is right whatever they say, as long as one command at a time changes items.
        """
        if self._newest is None:
            everywhere = [name for name in self._store.collections() if is_item_collection(name)]
            self._newest = self._store.records.newest_change(everywhere)
        self._newest = max(now(), _just_after(max(self._newest, after)))
        return self._newest

    def newest_change(self) -> str:
        """Return the time of the newest change that is in the collection; empty if that is not known."""
        return self._store.records.newest_change([self.collection])

    def stage(self, rows: Iterable[Row]) -> None:
        """Write changes to the journal, to be applied later."""
        self._store.upsert(self.name, [self._encoded(row) | {APPLIED: False} for row in rows])

    def apply(self, on_progress: Progress) -> None:
        """Apply all staged changes to the collection, including those that another process staged.

        At the end Milvus writes them to its storage, so that a crash cannot lose them (`Store.secure`).

        Raises:
            StoreError: Milvus returns changes as pending that were just marked as applied.
        """
        done = total = 0
        applied: set[int] = set()
        log = self._store.records.change_log(self.collection)
        while True:
            rows = self._store.rows(self.name, PENDING, self.batch_rows)
            if rows and applied.issuperset(row[ITEM_ID] for row in rows):  # another round would not end it either
                raise StoreError(
                    f"{self.name}: {len(rows):,} changes were applied, but Milvus still returns them as pending; "
                    "give the same command again, and run `python -m indexer doctor` if that does not help"
                )
            applied = {row[ITEM_ID] for row in rows}
            if len(rows) == self.batch_rows and not total:
                total = self._store.count(self.name, PENDING)
            on_progress("apply", done, total)
            self._store.delete(self.collection, [row[ITEM_ID] for row in rows if row[OP] == DELETE])
            self._store.upsert(self.collection, [item_of(row) for row in rows if row[OP] != DELETE])
            if rows:
                log = log.with_batch([row[ITEM_ID] for row in rows], max(row[CHANGED_AT] for row in rows))
                self._store.records.write_change_log(self.collection, log)
            self._store.upsert(self.name, [row | {APPLIED: True} for row in rows])
            done += len(rows)
            if len(rows) < self.batch_rows:
                break
        if done:
            log = log.model_copy(update={"journal_rows": self._store.count(self.name)})
            self._store.records.write_change_log(self.collection, log)
            self._store.secure(self.name, self.collection, RECORDS)

    def apply_again(self, on_progress: Progress) -> None:
        """Apply all changes once more, because the collection lacks some. A Milvus that was killed may lose changes."""
        for rows in self.walk(self.name, f'{OP} in ["{UPSERT}", "{DELETE}"]'):
            self.stage(rows)
        self.apply(on_progress)

    def _check_rows(self) -> None:
        """Compare the journal with the number of rows that it had, and repair it if it has more."""
        expected = self._store.records.change_log(self.collection).journal_rows
        found = self._store.count(self.name)
        if found > expected and (repaired := repair(self._store, self.name, self.batch_rows)):
            _log.warning("%s: Milvus showed replaced rows of %d items again; they are repaired", self.name, repaired)
            self._store.secure(self.name)
        if found < expected:
            raise VerificationError(
                f"{self.name}: Milvus finds {found:,} of the {expected:,} changes that were written to it. If Milvus "
                "has just started, try again in a minute; otherwise it lost them: build and publish the items again"
            )

    def _by_id(self, rows: list[Row]) -> dict[int, Row]:
        return {row[ITEM_ID]: self._decoded(row) for row in rows}

    def _decoded(self, row: Row) -> Row:
        """Return a stored row with None for each attribute that the item does not have."""
        decoded = dict(row)
        for name in self.optional:
            if not decoded.pop(presence_of(name)):
                decoded[name] = None
        return decoded

    def _encoded(self, row: Row) -> Row:
        """Return a row as it is stored (`mind.milvus.collection.PRESENCE`)."""
        present = {presence_of(name): row[name] is not None for name in self.optional}
        absent = {name: absent_of(column.type) for name, column in self.columns.items() if row[name] is None}
        return row | present | absent


def item_of(row: Row) -> Row:
    """Return the part of a journal row that is the row of the item collection."""
    return {name: value for name, value in row.items() if name not in FIELDS}


def _just_after(time: str) -> str:
    """Return the next time after an ISO 8601 text; empty for an empty text."""
    if not time:
        return ""
    return (datetime.fromisoformat(time) + timedelta(microseconds=1)).isoformat(timespec="microseconds")

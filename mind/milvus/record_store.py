"""Reads and writes the release records in Milvus for the indexer (`mind.milvus.records`)."""

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mind.milvus import schemas
from mind.milvus.change_log import ChangeLog
from mind.milvus.errors import NotFlushedError
from mind.milvus.journal import journal_of
from mind.milvus.records import MAX_RECORDS, NAME, RECORD, RECORDS, UNUSED, ItemRecord, item_record, user_record
from mind.milvus.users import UserVectors

if TYPE_CHECKING:
    from mind.milvus.store import Store

SECURE_S = 60
"""Maximum time in seconds for Milvus to write the release records to disk."""

_log = logging.getLogger(__name__)


class RecordStore:
    """Reads and writes records. Every method raises StoreError."""

    def __init__(self, store: "Store") -> None:
        """Use the connection of `store`."""
        self._store = store
        self._is_open = False

    def items(self, names: Iterable[str]) -> dict[str, ItemRecord]:
        """Read the records of item collections, by name. Unfinished builds and missing collections are left out."""
        wanted = list(names)
        rows = self._rows(wanted)
        found = {name: item_record(rows.get(name), self._properties(name, rows)) for name in wanted}
        return {name: record for name, record in found.items() if record is not None}

    def users(self, names: Iterable[str]) -> list[UserVectors]:
        """Read the records of collections of user vectors. Collections without a record are left out."""
        wanted = list(names)
        rows = self._rows(wanted)
        found = (user_record(rows.get(name), self._properties(name, rows)) for name in wanted)
        return [record for record in found if record is not None]

    def write(self, name: str, record: ItemRecord | UserVectors) -> None:
        """Write the record of a collection. It replaces the previous one."""
        self._open(create=True)
        row = {NAME: name, RECORD: record.to_json(), UNUSED: [0.0, 0.0]}
        self._store.upsert(RECORDS, [row])

    def change_log(self, collection: str) -> ChangeLog:
        """Read the change log of an item collection. It may lack what was written in the last half second."""
        name = journal_of(collection)
        return ChangeLog.from_json(self._rows([name], "Bounded").get(name, ""))

    def newest_change(self, collections: Iterable[str]) -> str:
        """Return the time of the newest change of these item collections; empty if none was changed."""
        rows = self._rows([journal_of(name) for name in collections])
        return max((ChangeLog.from_json(text).changed_at for text in rows.values()), default="")

    def write_change_log(self, collection: str, log: ChangeLog) -> None:
        """Tell servers what has changed in an item collection, after Milvus has taken the changes."""
        self._open(create=True)
        self._store.upsert(RECORDS, [{NAME: journal_of(collection), RECORD: log.to_json(), UNUSED: [0.0, 0.0]}])

    def secure(self) -> None:
        """Have Milvus write to disk what was written so far, so that it does not depend on Milvus' log.

        Milvus 2.4 and later flush a collection once in 10 s, so this is for the end of a series of writes. Milvus Lite
        writes at once. A Milvus that was killed may never finish a flush; the records are in its log then.
        """
        if self._store.connection.is_lite or not self._open():
            return
        try:
            self._store.flush(RECORDS, min(SECURE_S, self._store.connection.wait_s))
        except NotFlushedError as error:
            _log.warning("the release goes on, because the log of Milvus has its records: %s", error)

    def delete(self, name: str) -> None:
        """Delete the record of a collection. It is no error if there is none."""
        if self._open():
            with self._store.session.calling(f"delete the record of {name}"):
                self._store.session.client.delete(
                    RECORDS, filter=f"{NAME} in {json.dumps([name])}", timeout=self._store.session.timeout_s
                )

    def _rows(self, names: list[str], consistency_level: str = "Strong") -> dict[str, str]:
        if not names or not self._open():
            return {}
        session = self._store.session
        with session.calling("read the release records"):
            rows: list[dict[str, Any]] = session.client.query(
                RECORDS,
                filter=f"{NAME} in {json.dumps(names)}",
                output_fields=[NAME, RECORD],
                consistency_level=consistency_level,
                timeout=session.timeout_s,
                limit=MAX_RECORDS,
            )
        return {row[NAME]: row[RECORD] for row in rows}

    def _properties(self, name: str, rows: dict[str, str]) -> dict[str, str]:
        """Read the properties that an earlier version wrote. A collection with a row does not need them."""
        return {} if name in rows else self._store.properties(name) or {}

    def _open(self, create: bool = False) -> bool:
        """Load the collection of records if it is not loaded yet. Return whether it exists."""
        if self._is_open:
            return True
        if RECORDS not in self._store.collections():
            if not create:
                return False
            self._store.create_collection(RECORDS, schemas.records())
        self._store.open(RECORDS, UNUSED)
        self._is_open = True
        return True

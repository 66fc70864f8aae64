"""Reads and writes the release records in Milvus for the indexer (`mind.milvus.records`)."""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mind.milvus import schemas
from mind.milvus.change_log import ChangeLog
from mind.milvus.channels import LIVE
from mind.milvus.collection import is_item_collection
from mind.milvus.journal import journal_of
from mind.milvus.records import (
    KEY,
    MAX_RECORDS,
    NAME,
    RECORD,
    RECORDS,
    UNUSED,
    ItemRecord,
    OtherReleases,
    Published,
    Row,
    channels_of,
    item_record,
    newest,
    next_row,
    user_record,
)
from mind.milvus.users import UserVectors

if TYPE_CHECKING:
    from mind.milvus.store import Store


class RecordStore:
    """Reads and writes records. Every method raises StoreError."""

    def __init__(self, store: "Store") -> None:
        """Use the connection of `store`."""
        self._store = store
        self._is_open = False

    def items(self, names: Iterable[str]) -> dict[str, ItemRecord]:
        """Read the records of item collections, by name. Unfinished builds and missing collections are left out."""
        wanted = list(names)
        rows = newest(self._rows([*wanted, *map(channels_of, filter(is_item_collection, wanted))]))
        found = {name: item_record(rows.get(name), self._properties(name, rows)) for name in wanted}
        return {
            name: record.model_copy(update={"channels": OtherReleases.read(rows.get(channels_of(name), "")).channels})
            for name, record in found.items()
            if record is not None
        }

    def users(self, names: Iterable[str]) -> list[UserVectors]:
        """Read the records of collections of user vectors. Collections without a record are left out."""
        wanted = list(names)
        rows = newest(self._rows(wanted))
        found = (user_record(rows.get(name), self._properties(name, rows)) for name in wanted)
        return [record for record in found if record is not None]

    def write(self, name: str, record: ItemRecord | UserVectors) -> None:
        """Write the record of a collection. It replaces the previous one. Releases in other channels stay."""
        self._write(name, record.to_json())

    def write_release(self, name: str, record: ItemRecord, channel: str, published: Published) -> None:
        """Write the release of an item collection in a channel. `Published()` withdraws the release.

        The releases in other channels stay, also those that another command has written since `record` was read.
        """
        if channel == LIVE:
            self.write(name, record.with_release(published))
        else:
            self._change(channels_of(name), lambda text: OtherReleases.read(text).with_release(channel, published))

    def change_log(self, collection: str) -> ChangeLog:
        """Read the change log of an item collection. It may lack what was written in the last half second."""
        name = journal_of(collection)
        return ChangeLog.from_json(newest(self._rows([name], "Bounded")).get(name, ""))

    def newest_change(self, collections: Iterable[str]) -> str:
        """Return the time of the newest change of these item collections; empty if none was changed."""
        rows = newest(self._rows([journal_of(name) for name in collections]))
        return max((ChangeLog.from_json(text).changed_at for text in rows.values()), default="")

    def write_change_log(self, collection: str, log: ChangeLog) -> None:
        """Tell servers what has changed in an item collection, after Milvus has taken the changes."""
        self._write(journal_of(collection), log.to_json())

    def secure(self) -> None:
        """Have Milvus write the records to its storage (`Store.secure`)."""
        if self._open():
            self._store.secure(RECORDS)

    def exists(self, name: str) -> bool:
        """Return whether there is a record of a collection or of its releases."""
        return bool(self._of(name))

    def delete(self, name: str) -> None:
        """Delete the record of a collection, with its releases. It is no error if there is none."""
        for row in self._of(name):
            self._write(row, "")

    def _of(self, name: str) -> dict[str, str]:
        """Read the record of a collection and the row of its releases, those that there are."""
        return newest(self._rows([name, channels_of(name)] if is_item_collection(name) else [name]))

    def _write(self, name: str, text: str) -> None:
        self._change(name, lambda _: text)

    def _change(self, name: str, change: Callable[[str], str]) -> None:
        """Write the next row of a collection, made from the text of the present one, then delete the earlier ones."""
        self._open(create=True)
        before = self._rows([name])
        text = change(newest(before).get(name, ""))
        self._store.upsert(RECORDS, [next_row(name, text, before)])
        if before:
            with self._store.session.calling(f"delete earlier records of {name}"):
                self._store.session.client.delete(
                    RECORDS, ids=[row[KEY] for row in before], timeout=self._store.session.timeout_s
                )

    def _rows(self, names: list[str], consistency_level: str = "Strong") -> list[Row]:
        """Read the rows of collections, which may include earlier ones."""
        if not names or not self._open():
            return []
        session = self._store.session
        with session.calling("read the release records"):
            rows: list[Row] = session.client.query(
                RECORDS,
                filter=f"{NAME} in {json.dumps(names)}",
                output_fields=[KEY, NAME, RECORD],
                consistency_level=consistency_level,
                timeout=session.timeout_s,
                limit=MAX_RECORDS,
            )
        return rows

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

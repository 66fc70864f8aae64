"""Lists the item collections in Milvus, together with their release records."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from indexer.errors import NothingToDoError, RefusedError
from mind.milvus.collection import Fingerprint, build_age_s, is_item_collection
from mind.milvus.journal import Changes
from mind.milvus.records import ItemRecord
from mind.milvus.store import Store

State = Literal["live", "published", "built", "incomplete"]


@dataclass(frozen=True)
class ItemCollection:
    """One item collection in Milvus."""

    name: str
    record: ItemRecord | None
    """The release record; None if the build did not finish."""
    live: bool
    """Whether the release alias points to this collection."""
    changes: Changes = field(default_factory=Changes)
    """How many items were added, changed and deleted since the build. Only `with_changes` fills this in."""

    @property
    def fingerprint(self) -> Fingerprint | None:
        """What the collection was built from; None if the build did not finish."""
        return self.record.fingerprint if self.record else None

    @property
    def built_at(self) -> str:
        """The time when the build was verified; empty if the build did not finish."""
        return self.record.built_at if self.record else ""

    @property
    def published_at(self) -> str:
        """The time of the last release; empty if there was none, or if a rollback withdrew it."""
        return self.record.published_at if self.record else ""

    @property
    def changed_at(self) -> str:
        """The time of the last release; without a release, the time when the build was verified."""
        return self.published_at or self.built_at

    @property
    def order(self) -> tuple[int, str]:
        """The sort key of published collections, from the oldest release to the newest (`ItemRecord.order`)."""
        return self.record.order if self.record else (0, "")

    @property
    def state(self) -> State:
        """The state in one word. The released collection is "live" even if its build did not finish."""
        if self.live:
            return "live"
        if self.record is None:
            return "incomplete"
        return "published" if self.record.published else "built"


def item_collections(store: Store) -> list[ItemCollection]:
    """List all item collections: the live one first, then the others, the most recently released or built first.

    Those that a build has not finished have a name of that build (`building_name`) and no record.
    """
    names = [name for name in store.collections() if is_item_collection(name) or build_age_s(name) is not None]
    records, live = store.records.items(names), store.alias()
    found = [ItemCollection(name, records.get(name), name == live) for name in names]
    return sorted(found, key=lambda one: (one.live, one.record.last_event if one.record else (0, "")), reverse=True)


def find(collections: Sequence[ItemCollection], name: str) -> ItemCollection:
    """Return the collection with this name.

    Raises:
        NothingToDoError: no item collection has this name.
    """
    for collection in collections:
        if collection.name == name:
            return collection
    raise NothingToDoError(
        f"{name}: there is no item collection with this name; `python -m indexer status` lists those that exist"
    )


def live_one(collections: Sequence[ItemCollection]) -> ItemCollection | None:
    """Return the released collection, or None if nothing is released."""
    return next((collection for collection in collections if collection.live), None)


def before_live(collections: Sequence[ItemCollection]) -> list[ItemCollection]:
    """Those that were published before the live one, newest first.

    All of them, if the live one does not count as published: a rollback was cut short before it moved the alias.
    """
    live = live_one(collections)
    earlier = [
        one for one in collections if live and one.published_at and (one.order < live.order or not live.published_at)
    ]
    return sorted(earlier, key=lambda one: one.order, reverse=True)


def after_live(collections: Sequence[ItemCollection]) -> list[ItemCollection]:
    """Those that count as published after the live one: a publish was cut short before it moved the alias."""
    live = live_one(collections)
    return [one for one in collections if live and live.published_at and one.order > live.order and one.published_at]


def fingerprint_of(collection: ItemCollection) -> Fingerprint:
    """Return what a collection was built from.

    Raises:
        RefusedError: the build of the collection did not finish.
    """
    if collection.fingerprint is None:
        raise RefusedError(f"{collection.name}: its build did not finish; build it again")
    return collection.fingerprint


def next_number(collections: Sequence[ItemCollection]) -> int:
    """Return the number of the next build or release."""
    return 1 + max((max(one.record.release, one.record.build) for one in collections if one.record), default=0)


def with_changes(store: Store, collections: list[ItemCollection]) -> list[ItemCollection]:
    """Return the same collections with the changes that their journals count. This loads the journals."""
    return [replace(collection, changes=store.changes(collection.name)) for collection in collections]


def now() -> str:
    """Return the current time in the format of release records (ISO 8601, UTC). These texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")

"""The item collections in a Milvus, and what their release records say about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from indexer.errors import NothingToDoError, RefusedError
from mind.milvus.collection import Fingerprint, is_item_collection
from mind.milvus.journal import Changes
from mind.milvus.records import ItemRecord
from mind.milvus.store import Store

State = Literal["live", "published", "built", "incomplete"]


@dataclass(frozen=True)
class ItemCollection:
    """One item collection."""

    name: str
    record: ItemRecord | None
    """None if its build did not finish."""
    live: bool
    """Whether the release alias names it."""
    changes: Changes = field(default_factory=Changes)
    """What was added, changed and deleted since; only where that was asked for."""

    @property
    def fingerprint(self) -> Fingerprint | None:
        """What it was built from; None if its build did not finish."""
        return self.record.fingerprint if self.record else None

    @property
    def built_at(self) -> str:
        """When its build was verified; empty if that did not finish."""
        return self.record.built_at if self.record else ""

    @property
    def published_at(self) -> str:
        """When it was last released; empty if never, or if a rollback took the release back."""
        return self.record.published_at if self.record else ""

    @property
    def changed_at(self) -> str:
        """When it was last released, or else finished."""
        return self.published_at or self.built_at

    @property
    def order(self) -> tuple[int, str]:
        """Orders published collections from the oldest release to the newest (`ItemRecord.order`)."""
        return self.record.order if self.record else (0, "")

    @property
    def state(self) -> State:
        """The state in one word; the released collection is live even if something else is wrong with it."""
        if self.live:
            return "live"
        if self.record is None:
            return "incomplete"
        return "published" if self.record.published else "built"


def item_collections(store: Store) -> list[ItemCollection]:
    """All item collections: the live one first, then by when they were last released or finished, newest first."""
    names = [name for name in store.collections() if is_item_collection(name)]
    records, live = store.records.items(names), store.alias()
    found = [ItemCollection(name, records.get(name), name == live) for name in names]
    return sorted(found, key=lambda one: (one.live, one.changed_at), reverse=True)


def find(collections: Sequence[ItemCollection], name: str) -> ItemCollection:
    """The collection of that name.

    Raises:
        NothingToDoError: there is none.
    """
    for collection in collections:
        if collection.name == name:
            return collection
    raise NothingToDoError(f"{name}: there is no such item collection; `python -m indexer status` lists them")


def live_one(collections: Sequence[ItemCollection]) -> ItemCollection | None:
    """The released collection; None without a release."""
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
    """What it was built from.

    Raises:
        RefusedError: its build did not finish.
    """
    if collection.fingerprint is None:
        raise RefusedError(f"{collection.name}: its build did not finish; build it again")
    return collection.fingerprint


def with_changes(store: Store, collections: list[ItemCollection]) -> list[ItemCollection]:
    """The same, with what their journals say; these are loaded for that."""
    return [replace(collection, changes=store.changes(collection.name)) for collection in collections]


def now() -> str:
    """The time as records hold it; texts order as times do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")

"""The item collections in a Milvus, and what their properties say about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from indexer.errors import RefusedError
from indexer.store import Store
from mind.milvus.collection import FINGERPRINT, PUBLISHED_AT, Fingerprint, is_item_collection
from mind.milvus.journal import Changes

BUILT_AT = "recall.built_at"
"""Collection property: when the build was verified, ISO 8601, UTC."""

State = Literal["live", "published", "built", "incomplete"]


@dataclass(frozen=True)
class ItemCollection:
    """One item collection."""

    name: str
    fingerprint: Fingerprint | None
    """None if its build did not finish."""
    built_at: str
    """Empty if its build did not finish."""
    published_at: str
    """When it was released last; empty if never, or if a rollback took the release back."""
    live: bool
    """Whether the release alias names it."""
    changes: Changes = field(default_factory=Changes)
    """What was added, changed and deleted since; only where that was asked for."""

    @property
    def state(self) -> State:
        """The one word for it; the released one is live even if something else is wrong with it."""
        if self.live:
            return "live"
        if self.fingerprint is None:
            return "incomplete"
        return "published" if self.published_at else "built"

    @property
    def changed_at(self) -> str:
        """When it was last released, or else finished."""
        return self.published_at or self.built_at


def item_collections(store: Store) -> list[ItemCollection]:
    """All item collections: the live one first, then by when they were last released or finished, newest first."""
    live = store.alias()
    found = []
    for name in filter(is_item_collection, store.collections()):
        properties = store.properties(name)
        if properties is not None:  # None: dropped in the meantime
            found.append(describe(name, properties, live))
    return sorted(found, key=lambda collection: (collection.live, collection.changed_at), reverse=True)


def before_live(collections: list[ItemCollection]) -> list[ItemCollection]:
    """Those published before the live one, newest first; `collections` as `item_collections` gives them."""
    live_at = next((collection.published_at for collection in collections if collection.live), "")
    return [collection for collection in collections if "" < collection.published_at < live_at]


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


def describe(name: str, properties: Mapping[str, str], live: str | None) -> ItemCollection:
    """Read the properties of a collection."""
    return ItemCollection(
        name=name,
        fingerprint=Fingerprint.from_json(properties.get(FINGERPRINT, "")),
        built_at=properties.get(BUILT_AT, ""),
        published_at=properties.get(PUBLISHED_AT, ""),
        live=name == live,
    )


def now() -> str:
    """The time as the properties hold it; texts order as times do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")

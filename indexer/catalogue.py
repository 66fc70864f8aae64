"""Lists the item collections in Milvus, together with their release records, as one channel sees them.

A channel is known if a release record names it. Aliases are looked up by name, because not every Milvus lists them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from indexer.errors import NothingToDoError, RefusedError
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.collection import Fingerprint, build_age_s, is_item_collection
from mind.milvus.journal import Changes
from mind.milvus.records import ItemRecord, Published
from mind.milvus.store import Store

State = Literal["live", "published", "built", "incomplete"]


@dataclass(frozen=True)
class ItemCollection:
    """One item collection in Milvus, as one channel sees it."""

    name: str
    record: ItemRecord | None
    """The release record; None if the build did not finish."""
    live_in: frozenset[str] = frozenset()
    """All channels whose aliases point to this collection."""
    changes: Changes = field(default_factory=Changes)
    """How many items were added, changed and deleted since the build. Only `with_changes` fills this in."""
    channel: str = LIVE
    """The channel that the properties are about."""

    @property
    def live(self) -> bool:
        """Whether the alias of the channel points to this collection."""
        return self.channel in self.live_in

    @property
    def published(self) -> Published:
        """The last release in the channel."""
        return self.record.published_in(self.channel) if self.record else Published()

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
        return self.published.at

    @property
    def order(self) -> tuple[int, str]:
        """The sort key of published collections, from the oldest release to the newest (`Published.order`)."""
        return self.published.order

    @property
    def state(self) -> State:
        """The state in one word. The released collection is "live" even if its build did not finish."""
        if self.live:
            return "live"
        if self.record is None:
            return "incomplete"
        return "published" if self.published_at else "built"


def item_collections(store: Store, channel: str = LIVE) -> list[ItemCollection]:
    """List all item collections as a channel sees them.

    The live one comes first, then the others, the most recently released (in any channel) or built first. Those that a
    build has not finished have a name of that build (`building_name`) and no record.
    """
    names = [name for name in store.collections() if is_item_collection(name) or build_age_s(name) is not None]
    records = store.records.items(names)
    pointers = _pointers(store, records.values(), channel)
    live_in = {name: frozenset(one for one, to in pointers.items() if to == name) for name in names}
    return in_channel([ItemCollection(name, records.get(name), live_in[name]) for name in names], channel)


def in_channel(collections: Iterable[ItemCollection], channel: str) -> list[ItemCollection]:
    """Return the same collections as another channel sees them, in the order of `item_collections`."""
    found = [replace(collection, channel=channel) for collection in collections]
    return sorted(found, key=lambda one: (one.live, one.record.last_event if one.record else (0, "")), reverse=True)


def channels_in(collections: Iterable[ItemCollection]) -> list[str]:
    """List the known channels: `live`, then the others by name."""
    found = list(collections)
    named = {channel for one in found if one.record for channel in one.record.channels}
    others = named.union(*(one.live_in for one in found)) - {LIVE}
    return [LIVE, *sorted(others)]


def live_anywhere(store: Store, name: str, formerly: str) -> bool:
    """Return whether the alias of any channel points to a collection that had another name until a moment ago."""
    names = {formerly, *filter(is_item_collection, store.collections())}
    return name in _pointers(store, store.records.items(names).values()).values()


def _pointers(store: Store, records: Iterable[ItemRecord], channel: str = LIVE) -> dict[str, str | None]:
    """Return the collection that the alias of each known channel points to, and that of `channel`; None without it."""
    channels = {LIVE, channel, *(name for record in records for name in record.channels)}
    return {name: store.alias(alias_of(name)) for name in sorted(channels)}


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
    return 1 + max((one.record.last_number for one in collections if one.record), default=0)


def with_changes(store: Store, collections: list[ItemCollection]) -> list[ItemCollection]:
    """Return the same collections with the changes that their journals count. This loads the journals."""
    return [replace(collection, changes=store.changes(collection.name)) for collection in collections]


def now() -> str:
    """Return the current time in the format of release records (ISO 8601, UTC). These texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")

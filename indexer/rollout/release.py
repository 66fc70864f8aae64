"""Which collection is live: publish, roll back, prune, drop.

Releases form a line by `mind.milvus.collection.PUBLISHED_AT`. Publishing appends to it; rolling back takes the releases
after
the one it returns to off the line, so that the next rollback does not end at a release that was taken back.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass

from indexer.catalogue import ItemCollection, before_live, fingerprint_of, item_collections, now
from indexer.errors import NothingToDoError, RefusedError
from indexer.store import Store
from indexer.verify import check_count
from mind.milvus.collection import PUBLISHED_AT
from mind.milvus.journal import collection_of


@dataclass(frozen=True)
class Release:
    """What is live now and what was before."""

    live: str
    before: str | None

    @property
    def changed(self) -> bool:
        """Whether the alias moved."""
        return self.live != self.before


BeforeSwitch = Callable[[str], None]
"""Told the version of the model that comes next, when all is checked and before servers learn of it."""


def publish(store: Store, name: str | None = None, before_switch: BeforeSwitch = lambda version: None) -> Release:
    """Make a collection the live one.

    Args:
        store: Milvus.
        name: the collection; the one finished last if None.
        before_switch: what else must be ready; told of the live one too, if that is to be published again.

    Raises:
        NothingToDoError: no finished collection, or none of that name.
        RefusedError: its build did not finish.
        VerificationError: it lost rows since.
    """
    collections = item_collections(store)
    if name is None:
        finished = [collection for collection in collections if collection.fingerprint]
        if not finished:
            raise NothingToDoError("there is no finished collection to publish; `python -m indexer build` makes one")
        chosen = max(finished, key=lambda collection: collection.built_at)
    else:
        chosen = find(collections, name)
    if chosen.live:
        before_switch(_check_releasable(store, chosen))
        return Release(chosen.name, chosen.name)
    before = store.alias()
    before_switch(_check_releasable(store, chosen))
    _forget_after_live(store, collections)
    store.set_properties(chosen.name, {PUBLISHED_AT: now()})
    store.point_alias(chosen.name)
    return Release(chosen.name, before)


def rollback(store: Store, to: str | None = None, before_switch: BeforeSwitch = lambda version: None) -> Release:
    """Return to the release before the live one, or to an earlier one; `before_switch` is as in `publish`.

    Raises:
        NothingToDoError: nothing is live, or nothing was published before it.
        RefusedError: `to` was not published before the live one.
    """
    collections = item_collections(store)
    live = next((collection for collection in collections if collection.live), None)
    if live is None:
        raise NothingToDoError("nothing is live, so there is nothing to roll back")
    _forget_after_live(store, collections)
    earlier = before_live(collections)
    if to is not None:
        chosen = find(collections, to)
        if chosen not in earlier:
            raise RefusedError(f"{to}: was not published before {live.name}, which is live; use publish")
    elif earlier:
        chosen = earlier[0]
    else:
        raise NothingToDoError(f"{live.name} is live, and no release from before it is left")
    before_switch(_check_releasable(store, chosen))
    store.point_alias(chosen.name)
    _forget_after_live(store, item_collections(store))
    return Release(chosen.name, live.name)


def prune(store: Store, keep: int, incomplete: bool, in_use: Set[str], on_drop: Callable[[str], None]) -> None:
    """Drop all but the live collection and `keep` others: what `rollback` would return to, then the newest.

    The newest are those that were last published or, if never, finished.

    Args:
        store: Milvus.
        keep: finished collections to keep besides the live one.
        incomplete: drop unfinished builds too, running ones included.
        in_use: collections to keep in any case, since servers use them.
        on_drop: told the name of every collection dropped.
    """
    collections = item_collections(store)
    back = before_live(collections)[:1]
    others = [collection for collection in collections if not collection.live]
    finished = sorted((one for one in others if one.fingerprint), key=lambda one: one not in back)
    unfinished = [collection for collection in others if not collection.fingerprint]
    for collection in finished[keep:] + (unfinished if incomplete else []):
        if collection.name not in in_use and store.alias() != collection.name:  # published since it was listed
            store.drop(collection.name)
            on_drop(collection.name)
    left = store.collections()
    for name in left:
        if (owner := collection_of(name)) and owner not in left:  # its drop was cut short
            store.drop(name)
            on_drop(name)


def drop(store: Store, name: str, allow_live: bool) -> None:
    """Drop one collection, and the alias with it if it is the live one.

    Raises:
        NothingToDoError: there is no such item collection.
        RefusedError: it is live, and `allow_live` is false.
    """
    collection = find(item_collections(store), name)
    if collection.live:
        if not allow_live:
            raise RefusedError(f"{name}: is live; publish another one first, or insist with --allow-live")
        store.drop_alias()
    store.drop(name)


def find(collections: list[ItemCollection], name: str) -> ItemCollection:
    """The collection of that name.

    Raises:
        NothingToDoError: there is none.
    """
    for collection in collections:
        if collection.name == name:
            return collection
    raise NothingToDoError(f"{name}: there is no such item collection; `python -m indexer status` lists them")


def _forget_after_live(store: Store, collections: list[ItemCollection]) -> None:
    """Take what was published after the live release off the line: rolled back, or cut short on the way to live."""
    live_at = next((collection.published_at for collection in collections if collection.live), "")
    for collection in collections:
        if live_at and collection.published_at > live_at:
            store.set_properties(collection.name, {PUBLISHED_AT: ""})


def _check_releasable(store: Store, collection: ItemCollection) -> str:
    """Refuse what is not whole; returns the version of its model."""
    fingerprint = fingerprint_of(collection)
    store.load(collection.name)
    check_count(store, collection.name, fingerprint.count)
    return fingerprint.model_version

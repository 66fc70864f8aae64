"""Drops collections that are not needed any more."""

from collections.abc import Callable, Set

from indexer.catalogue import before_live, find, item_collections
from indexer.errors import RefusedError
from mind.milvus.journal import collection_of
from mind.milvus.store import Store


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
    finished = sorted((one for one in others if one.record), key=lambda one: one not in back)
    unfinished = [collection for collection in others if not collection.record]
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

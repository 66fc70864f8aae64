"""Drops collections that are no longer needed."""

from collections.abc import Callable, Set

from indexer.catalogue import before_live, channels_in, find, in_channel, item_collections, live_anywhere
from indexer.errors import RefusedError
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.collection import building_name, is_item_collection
from mind.milvus.errors import CollectionGoneError
from mind.milvus.journal import collection_of, journal_of
from mind.milvus.store import Store


def prune(store: Store, keep: int, incomplete: bool, in_use: Set[str], on_drop: Callable[[str], None]) -> None:
    """Drop all collections except those that are live in a channel, `keep` others and those in use.

    The first of the `keep` others are those that `rollback` would return to in each channel; unless `keep` is 0, all of
    them are kept. The next ones are the most recently published, or built if they were never published.

    Args:
        store: the connection to Milvus.
        keep: number of finished collections to keep besides the live ones.
        incomplete: whether to drop unfinished builds too, including running ones.
        in_use: names of collections that servers use; they are kept in any case.
        on_drop: called with the name of every dropped collection.
    """
    collections = item_collections(store)
    back = {one.name for name in channels_in(collections) for one in before_live(in_channel(collections, name))[:1]}
    others = [collection for collection in collections if not collection.live_in]
    finished = sorted((one for one in others if one.record), key=lambda one: one.name not in back)
    unfinished = [collection for collection in others if not collection.record]
    kept = max(keep, sum(one.name in back for one in finished)) if keep else 0
    for collection in finished[kept:] + (unfinished if incomplete else []):
        if collection.name not in in_use and _drop_unless_live(store, collection.name):
            on_drop(collection.name)
    left = store.collections()
    for name in left:
        if (owner := collection_of(name)) and owner not in left:  # the drop of the collection was interrupted
            store.drop(name)
            on_drop(name)


def drop(store: Store, name: str, allow_live: bool) -> None:
    """Drop one collection. If it is live in channels, drop their aliases too.

    Raises:
        NothingToDoError: no item collection has this name.
        RefusedError: the collection is live in a channel, and `allow_live` is false.
    """
    collection = find(item_collections(store), name)
    if collection.live_in and not allow_live:
        others = ", ".join(sorted(collection.live_in - {LIVE}))
        where, remedy = ("", "") if not others else (f" in {others}", " there, `close` the channel")
        if collection.live and others:
            where = f" and{where}"
        raise RefusedError(
            f"{name}: the collection is live{where}; publish another one{remedy or ' first'}, or add --allow-live to "
            "drop it anyway"
        )
    for channel in collection.live_in:
        store.drop_alias(alias_of(channel))
    if not _drop_unless_live(store, name):
        raise RefusedError(f"{name}: was published or dropped meanwhile; it is not dropped now")


def _drop_unless_live(store: Store, name: str) -> bool:
    """Drop a collection. Return False, and drop nothing, if it is live or gone: it was published or dropped meanwhile.

    The collection loses its name first, so that nobody can publish it any more. Then the aliases of all channels tell
    whether somebody did before. An interrupted drop leaves an unfinished build.
    """
    doomed = building_name(name) if is_item_collection(name) else name
    try:
        if doomed != name:
            store.rename(name, doomed)
    except CollectionGoneError:
        return False
    if live_anywhere(store, doomed, formerly=name):
        store.rename(doomed, name)
        store.load(name)
        return False
    if doomed != name:  # by now a new build may have this name, so only what belonged to the old one is removed
        store.records.delete(name)
        store.drop(journal_of(name))
    store.drop(doomed)
    return True

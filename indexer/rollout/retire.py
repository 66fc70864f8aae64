"""Drops collections that are no longer needed."""

from collections.abc import Callable, Set

from indexer.catalogue import before_live, find, item_collections
from indexer.errors import RefusedError
from mind.milvus.collection import building_name, is_item_collection
from mind.milvus.errors import CollectionGoneError
from mind.milvus.journal import collection_of, journal_of
from mind.milvus.store import Store


def prune(store: Store, keep: int, incomplete: bool, in_use: Set[str], on_drop: Callable[[str], None]) -> None:
    """Drop all collections except the live one, `keep` others and those in use.

    The first of the `keep` others is the one that `rollback` would return to. The next ones are the most recently
    published, or built if they were never published.

    Args:
        store: the connection to Milvus.
        keep: number of finished collections to keep besides the live one.
        incomplete: whether to drop unfinished builds too, including running ones.
        in_use: names of collections that servers use; they are kept in any case.
        on_drop: called with the name of every dropped collection.
    """
    collections = item_collections(store)
    back = before_live(collections)[:1]
    others = [collection for collection in collections if not collection.live]
    finished = sorted((one for one in others if one.record), key=lambda one: one not in back)
    unfinished = [collection for collection in others if not collection.record]
    for collection in finished[keep:] + (unfinished if incomplete else []):
        if collection.name not in in_use and _drop_unless_live(store, collection.name):
            on_drop(collection.name)
    left = store.collections()
    for name in left:
        if (owner := collection_of(name)) and owner not in left:  # the drop of the collection was interrupted
            store.drop(name)
            on_drop(name)


def drop(store: Store, name: str, allow_live: bool) -> None:
    """Drop one collection. If it is the live one, drop the alias too.

    Raises:
        NothingToDoError: no item collection has this name.
        RefusedError: the collection is live, and `allow_live` is false.
    """
    collection = find(item_collections(store), name)
    if collection.live:
        if not allow_live:
            raise RefusedError(
                f"{name}: the collection is live; publish another one first, or add --allow-live to drop it anyway"
            )
        store.drop_alias()
    if not _drop_unless_live(store, name):
        raise RefusedError(f"{name}: was published or dropped meanwhile; it is not dropped now")


def _drop_unless_live(store: Store, name: str) -> bool:
    """Drop a collection. Return False, and drop nothing, if it is live or gone: it was published or dropped meanwhile.

    The collection loses its name first, so that nobody can publish it any more. Then the alias tells whether somebody
    did before. An interrupted drop leaves an unfinished build.
    """
    doomed = building_name(name) if is_item_collection(name) else name
    try:
        if doomed != name:
            store.rename(name, doomed)
    except CollectionGoneError:
        return False
    if store.alias() == doomed:
        store.rename(doomed, name)
        store.load(name)
        return False
    if doomed != name:  # by now a new build may have this name, so only what belonged to the old one is removed
        store.records.delete(name)
        store.drop(journal_of(name))
    store.drop(doomed)
    return True

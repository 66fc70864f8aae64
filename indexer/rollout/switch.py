"""Moves the release alias. Before that the records say what will be live, so that a kill in between loses nothing."""

from indexer.catalogue import ItemCollection, after_live, find, item_collections, next_number, now
from indexer.errors import RefusedError
from indexer.rollout.choice import Choice
from mind.milvus.errors import CollectionGoneError
from mind.milvus.rules import NO_RULES, ReleaseRules
from mind.milvus.store import Store


def switch(store: Store, choice: Choice) -> None:
    """Make the chosen collection the live one.

    A published collection gets the next number before the alias moves. After a kill in between it has a number and is
    not live: the next release takes that number back. A rollback takes the releases after the chosen one back before
    the alias moves. After a kill in between, the same command finds a live collection without a number and returns to
    the newest one with a number, which is the one that was chosen.

    Another release at the same moment may withdraw the number before the alias moves, so it is given again if it is
    gone. Otherwise a later rollback could not return to this release.
    """
    collections = item_collections(store)
    if choice.rolls_back:
        _take_back(store, [one for one in collections if one.order > choice.next.order])
    elif choice.changes_live or not choice.next.published_at:
        _take_back(store, after_live(collections))
        _number(store, choice.next.name)
    store.records.secure()
    if choice.changes_live:
        try:
            store.point_alias(choice.next.name)
        except CollectionGoneError:  # dropped meanwhile, so what is live stays the newest release
            _give_back(store, collections)
            raise
        if not find(item_collections(store), choice.next.name).published_at:
            _number(store, choice.next.name)
            store.records.secure()


def set_rules(store: Store, name: str, rules: ReleaseRules) -> None:
    """Write the rules of a release into the record of its collection. A live collection has them at once."""
    record = find(item_collections(store), name).record
    if record is None:
        raise RefusedError(f"{name}: was dropped meanwhile")
    text = "" if rules == NO_RULES else rules.to_json()
    if text != record.rules:
        store.records.write(name, record.model_copy(update={"rules": text}))


def _number(store: Store, name: str) -> None:
    collections = item_collections(store)
    record = find(collections, name).record
    if record is None:
        raise RefusedError(f"{name}: was dropped meanwhile")
    store.records.write(name, record.model_copy(update={"published_at": now(), "release": next_number(collections)}))


def _give_back(store: Store, collections: list[ItemCollection]) -> None:
    """Write the record of the live collection as it was before a release that failed."""
    for collection in collections:
        if collection.live and collection.record:
            store.records.write(collection.name, collection.record)


def _take_back(store: Store, collections: list[ItemCollection]) -> None:
    """Change the records of collections from published to built."""
    for collection in collections:
        if collection.record and collection.record.published:
            record = collection.record.model_copy(update={"published_at": "", "release": 0})
            store.records.write(collection.name, record)

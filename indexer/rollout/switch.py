"""Moves the release alias, and keeps the records of releases true around that."""

from indexer.catalogue import after_live, find, item_collections, now
from indexer.rollout.choice import Choice
from mind.milvus.store import Store


def switch(store: Store, choice: Choice) -> None:
    """Make the chosen collection the live one.

    Before the alias moves, a published collection gets its number, so what is live always has one. After a kill in
    between it has a number and is not live: the next release takes that number back (`_take_back`).
    """
    if not choice.changes_live:
        return
    if not choice.rolls_back:
        _take_back(store)
        _number(store, choice.next.name)
    store.point_alias(choice.next.name)
    if choice.rolls_back:
        _take_back(store)


def _number(store: Store, name: str) -> None:
    collections = item_collections(store)
    newest = max(collection.record.release for collection in collections if collection.record)
    record = find(collections, name).record
    assert record is not None  # noqa: S101 - it was checked
    store.records.write(name, record.model_copy(update={"published_at": now(), "release": newest + 1}))


def _take_back(store: Store) -> None:
    """Whatever counts as published after the live release is only built from now on."""
    for collection in after_live(item_collections(store)):
        if collection.record:
            record = collection.record.model_copy(update={"published_at": "", "release": 0})
            store.records.write(collection.name, record)

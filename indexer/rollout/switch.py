"""Moves the release alias, and updates the release records before and after that."""

from indexer.catalogue import after_live, find, item_collections, now
from indexer.rollout.choice import Choice
from mind.milvus.store import Store


def switch(store: Store, choice: Choice) -> None:
    """Make the chosen collection the live one.

    A publish writes the release number before it moves the alias, so the live collection always has a number. If it is
    killed between the two, a collection has a number but is not live. The next release then withdraws that number
    (`_take_back`).
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
    """Withdraw the releases after the live one: their records change from published to built."""
    for collection in after_live(item_collections(store)):
        if collection.record:
            record = collection.record.model_copy(update={"published_at": "", "release": 0})
            store.records.write(collection.name, record)

"""Which collection becomes the live one, and whether it may: the check at the beginning of every release.

Releases form a line by their numbers (`mind.milvus.records`). Publishing appends to it. Rolling back takes the releases
after the one it returns to off the line, so that the next rollback does not end at a release that was taken back.
"""

from dataclasses import dataclass

from indexer.catalogue import ItemCollection, before_live, find, fingerprint_of, item_collections, live_one
from indexer.errors import NothingToDoError, RefusedError
from indexer.verify import check_count
from mind.milvus.store import Store


@dataclass(frozen=True)
class Choice:
    """What a release changes."""

    next: ItemCollection
    """What becomes live, or is live already."""
    before: str | None
    """What the alias names now; it may name a collection that was dropped."""
    rolls_back: bool
    """Whether it returns to an earlier release."""

    @property
    def model_version(self) -> str:
        """The model of the next release."""
        return fingerprint_of(self.next).model_version

    @property
    def changes_live(self) -> bool:
        """Whether the alias has to move."""
        return not self.next.live


def check_publish(store: Store, name: str | None = None) -> Choice:
    """What publishing a collection would change.

    Args:
        store: Milvus.
        name: the collection; the one that was finished last if None.

    Raises:
        NothingToDoError: no finished collection, or none of that name.
        RefusedError: its build did not finish.
        VerificationError: it lost rows since.
    """
    collections = item_collections(store)
    if name is None:
        finished = [collection for collection in collections if collection.record]
        if not finished:
            raise NothingToDoError("there is no finished collection to publish; `python -m indexer build` makes one")
        chosen = max(finished, key=lambda collection: collection.built_at)
    else:
        chosen = find(collections, name)
    _check_whole(store, chosen)
    return Choice(chosen, store.alias(), rolls_back=False)


def check_rollback(store: Store, to: str | None = None) -> Choice:
    """What returning to the release before the live one would change, or to an earlier one.

    Raises:
        NothingToDoError: nothing is live, or nothing was published before it.
        RefusedError: `to` was not published before the live one.
        VerificationError: it lost rows since.
    """
    collections = item_collections(store)
    live = live_one(collections)
    if live is None:
        raise NothingToDoError("nothing is live, so there is nothing to roll back")
    earlier = before_live(collections)
    if to is not None:
        chosen = find(collections, to)
        if chosen not in earlier:
            raise RefusedError(f"{to}: was not published before {live.name}, which is live; use publish")
    elif earlier:
        chosen = earlier[0]
    else:
        raise NothingToDoError(f"{live.name} is live, and no release from before it is left")
    _check_whole(store, chosen)
    return Choice(chosen, live.name, rolls_back=True)


def _check_whole(store: Store, collection: ItemCollection) -> None:
    fingerprint = fingerprint_of(collection)
    store.load(collection.name)
    check_count(store, collection.name, fingerprint.count)

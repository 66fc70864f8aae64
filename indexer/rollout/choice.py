"""Chooses and checks the collection that becomes live in a channel; the first step of every release.

Releases are numbered (`mind.milvus.records`). A publish gives the next number. A rollback withdraws the releases after
the one that it returns to, so that the next rollback cannot return to a withdrawn release. Each channel has releases of
its own, and a collection may be released in several channels.
"""

import logging
from dataclasses import dataclass

from indexer.catalogue import (
    ItemCollection,
    before_live,
    channels_in,
    find,
    fingerprint_of,
    item_collections,
    live_one,
)
from indexer.errors import NothingToDoError, RefusedError, VerificationError
from indexer.items.journal import Journal
from indexer.verify import check_count, until_settled
from mind.milvus.channels import LIVE, MAX_CHANNELS, alias_of
from mind.milvus.journal import journal_of
from mind.milvus.store import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The collection that a release makes live, and the one that it replaces."""

    next: ItemCollection
    """The collection that becomes live, or is live already."""
    before: str | None
    """The collection that the alias of the channel points to now; it may have been dropped. None without an alias."""
    rolls_back: bool
    """Whether the release returns to an earlier one."""

    @property
    def channel(self) -> str:
        """The channel of the release."""
        return self.next.channel

    @property
    def model_version(self) -> str:
        """The version of the model of the next release."""
        return fingerprint_of(self.next).model_version

    @property
    def changes_live(self) -> bool:
        """Whether the alias must move."""
        return not self.next.live


def check_publish(store: Store, name: str | None = None, channel: str = LIVE) -> Choice:
    """Choose the collection to publish, and check that it is complete.

    Args:
        store: the connection to Milvus.
        name: the collection; None takes the one whose build finished last.
        channel: the channel; a release opens it if it does not exist.

    Raises:
        NothingToDoError: there is no finished collection, or none with this name.
        RefusedError: the build of the collection did not finish, or there are too many channels.
        VerificationError: the collection lost rows since its build.
    """
    collections = item_collections(store, channel)
    channels = channels_in(collections)
    if channel not in channels and len(channels) >= MAX_CHANNELS:
        raise RefusedError(
            f"channel {channel}: there are {len(channels)} channels ({', '.join(channels)}) already, and the maximum "
            f"is {MAX_CHANNELS}; close one that is not needed with `python -m indexer close`"
        )
    if name is None:
        finished = [collection for collection in collections if collection.record]
        if not finished:
            raise NothingToDoError("there is no finished collection to publish; `python -m indexer build` creates one")
        chosen = max(finished, key=lambda one: (one.record.build, one.built_at) if one.record else (0, ""))
    else:
        chosen = find(collections, name)
    _check_whole(store, chosen)
    return Choice(chosen, store.alias(alias_of(channel)), rolls_back=False)


def check_rollback(store: Store, to: str | None = None, channel: str = LIVE) -> Choice:
    """Choose the release to return to, and check that its collection is complete.

    Args:
        store: the connection to Milvus.
        to: the collection of an earlier release; None takes the release before the live one.
        channel: the channel.

    Raises:
        NothingToDoError: no collection is live, or none was published before the live one.
        RefusedError: `to` was not published before the live one.
        VerificationError: the collection lost rows since its build.
    """
    collections, where = item_collections(store, channel), in_words(channel)
    live = live_one(collections)
    if live is None:
        raise NothingToDoError(f"no collection is live{where}, so there is nothing to roll back")
    earlier = before_live(collections)
    if to is not None:
        chosen = find(collections, to)
        if chosen not in earlier:
            raise RefusedError(
                f"{to}: was not published before the live collection {live.name}{where}, so rollback cannot return to "
                "it; use `publish` to release it"
            )
    elif earlier:
        chosen = earlier[0]
    else:
        raise NothingToDoError(f"{live.name} is live{where}, and no earlier release is left to return to")
    _check_whole(store, chosen)
    return Choice(chosen, live.name, rolls_back=True)


def check_promote(store: Store, channel: str) -> Choice:
    """Choose the collection that is live in another channel to become live in `live`, and check that it is complete.

    Raises:
        NothingToDoError: no collection is live in the channel.
        RefusedError: the channel is `live`, or the build of the collection did not finish.
        VerificationError: the collection lost rows since its build.
    """
    if channel == LIVE:
        raise RefusedError(f"{LIVE} cannot be promoted, because it is the channel that `promote` publishes in")
    name = store.alias(alias_of(channel))
    if name is None:
        raise NothingToDoError(f"no collection is live{in_words(channel)}, so there is nothing to promote")
    return check_publish(store, name)


def in_words(channel: str) -> str:
    """Return the end of a phrase about what is live in a channel: nothing for the channel `live`."""
    return "" if channel == LIVE else f" in channel {channel}"


def _check_whole(store: Store, collection: ItemCollection) -> None:
    """Check that a collection has the rows of its build and its changes. If it lacks some, apply the changes again."""
    name, built = collection.name, fingerprint_of(collection).count
    store.load(name)
    journal = Journal(store, name) if journal_of(name) in store.collections() else None  # repairs it, so first
    try:
        until_settled(lambda: check_count(store, name, built))
    except VerificationError as error:
        if journal is None:
            raise
        _log.warning("%s; the changes of its journal are applied again", error)
        journal.apply_again(lambda stage, done, total: None)
        until_settled(lambda: check_count(store, name, built))

"""Moves the alias of a channel, or drops it.

Before an alias moves, the records say what will be live, so that a kill in between loses nothing. Afterwards the record
of what is live is read again, because another command may have written it at the same moment.
"""

from indexer.catalogue import ItemCollection, after_live, find, item_collections, live_one, next_number, now
from indexer.errors import NothingToDoError, RefusedError
from indexer.rollout.choice import Choice, in_words
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.errors import CollectionGoneError
from mind.milvus.records import Published
from mind.milvus.rules import NO_RULES, ReleaseRules
from mind.milvus.store import Store


def switch(store: Store, choice: Choice) -> None:
    """Make the chosen collection the live one of the channel.

    A published collection gets the next number before the alias moves. After a kill in between it has a number and is
    not live: the next release takes that number back. A rollback takes the releases after the chosen one back before
    the alias moves. After a kill in between, the same command finds a live collection without a number and returns to
    the newest one with a number, which is the one that was chosen.

    Another release at the same moment may withdraw the number before the alias moves, so it is given again if it is
    gone. Otherwise a later rollback could not return to this release.
    """
    channel = choice.channel
    collections = item_collections(store, channel)
    if choice.rolls_back:
        _take_back(store, [one for one in collections if one.order > choice.next.order])
    elif choice.changes_live or not choice.next.published_at:
        _take_back(store, after_live(collections))
        _number(store, choice.next.name, channel)
    store.records.secure()
    if choice.changes_live:
        try:
            store.point_alias(choice.next.name, alias_of(channel))
        except CollectionGoneError:  # dropped meanwhile, so what is live stays the newest release
            _give_back(store, collections)
            raise
        _number_if_gone(store, choice.next.name, channel)


def set_rules(store: Store, name: str, rules: ReleaseRules) -> None:
    """Write the rules of a release into the record of its collection. A live collection has them at once."""
    record = find(item_collections(store), name).record
    if record is None:
        raise RefusedError(f"{name}: was dropped meanwhile")
    text = "" if rules == NO_RULES else rules.to_json()
    if text != record.rules:
        store.records.write(name, record.model_copy(update={"rules": text}))


def close_channel(store: Store, channel: str) -> str | None:
    """Drop the alias of a channel, then withdraw its releases. The collections stay.

    After a kill in between, the channel has releases and no alias: the same command completes it. If another command
    publishes in the channel at the same moment, the channel stays open.

    Returns:
        The collection that was live in the channel; None if there was none.

    Raises:
        NothingToDoError: there is no such channel.
        RefusedError: the channel is `live`, or it was opened again meanwhile.
    """
    if channel == LIVE:
        raise RefusedError(f"{LIVE} cannot be closed, because it is the channel of callers that name none")
    collections = item_collections(store, channel)
    live = live_one(collections)
    if live is None and not any(one.published_at for one in collections):
        raise NothingToDoError(f"channel {channel}: there is no such channel; `python -m indexer status` lists them")
    if live:
        store.drop_alias(alias_of(channel))
    _take_back(store, item_collections(store, channel))
    if again := store.alias(alias_of(channel)):
        _number_if_gone(store, again, channel)
        raise RefusedError(f"{again} was published{in_words(channel)} meanwhile, so the channel stays open")
    store.records.secure()
    return live.name if live else None


def _number_if_gone(store: Store, name: str, channel: str) -> None:
    if not find(item_collections(store, channel), name).published_at:
        _number(store, name, channel)
        store.records.secure()


def _number(store: Store, name: str, channel: str) -> None:
    collections = item_collections(store, channel)
    record = find(collections, name).record
    if record is None:
        raise RefusedError(f"{name}: was dropped meanwhile")
    store.records.write_release(name, record, channel, Published(number=next_number(collections), at=now()))


def _give_back(store: Store, collections: list[ItemCollection]) -> None:
    """Write the release of the live collection as it was before a release that failed."""
    for collection in collections:
        if collection.live and collection.record:
            store.records.write_release(collection.name, collection.record, collection.channel, collection.published)


def _take_back(store: Store, collections: list[ItemCollection]) -> None:
    """Withdraw the releases of collections in the channel that they were read for."""
    for collection in collections:
        if collection.record and collection.published_at:
            store.records.write_release(collection.name, collection.record, collection.channel, Published())

"""The release procedure: how a collection becomes the live one of a channel.

A release has six steps: check, carry over changes, encode users, switch, carry over again, report. The check is in
`indexer.rollout.choice`, the other steps are in `_roll_out`. The old collection stays live until the switch. If the
procedure is interrupted, the same command completes it.
"""

import logging
from dataclasses import dataclass

from indexer.catalogue import fingerprint_of
from indexer.errors import VerificationError
from indexer.items.carry_over import Carried, CarryOver, source_of_changes
from indexer.items.journal import Journal
from indexer.progress import Progress
from indexer.rollout.choice import Choice, check_promote, check_publish, check_rollback
from indexer.rollout.switch import set_rules, switch
from indexer.users.encode import Encoded, encode_users
from mind.milvus.channels import LIVE
from mind.milvus.journal import DELETE, OP, UPSERT, journal_of
from mind.milvus.rules import ReleaseRules
from mind.milvus.store import Store
from mind.transfer import Models

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftBehind:
    """How many changes of the previous collection (`upsert`, `delete`) the new one lacks."""

    source: str
    """The previous collection of the channel, or of `live` if the channel is new."""
    upserted: int
    """Number of items that were added or changed."""
    deleted: int
    """Number of items that were deleted."""


@dataclass(frozen=True)
class Rollout:
    """The result of a release."""

    live: str
    """The collection that is live in the channel now."""
    before: str | None
    """The collection that was live in the channel before; None if there was none."""
    encoded: Encoded | None = None
    """How many remembered users were encoded; None if no users are remembered."""
    carried: Carried | None = None
    """The changes that were carried over; None if there were none, or if this was not asked for."""
    left_behind: LeftBehind | None = None
    """The changes that were not carried over; None if there are none."""
    channel: str = LIVE
    """The channel of the release."""

    @property
    def changed(self) -> bool:
        """Whether the alias moved."""
        return self.live != self.before


def _silent(stage: str, done: int, total: int) -> None:
    pass


def publish(
    store: Store,
    models: Models,
    name: str | None = None,
    with_changes: bool = False,
    on_progress: Progress = _silent,
    channel: str = LIVE,
    rules: ReleaseRules | None = None,
) -> Rollout:
    """Make a collection the live one of a channel. If it is already, only encode the users that are not encoded yet.

    Args:
        store: the connection to Milvus.
        models: where models are stored; used only to encode remembered users and to carry over changes.
        name: the collection; None takes the one whose build finished last.
        with_changes: whether to carry over what `upsert` and `delete` changed in the collection that is live in the
            channel; if none is, in the collection that is live in `live`.
        on_progress: called with the progress.
        channel: the channel; a release opens it if it does not exist.
        rules: of the release; None keeps those that the collection has.

    Raises:
        NothingToDoError: there is no finished collection, or none with this name.
        RefusedError: the build of the collection did not finish, a model that is needed cannot be used, or there are
            too many channels.
        ConfigError: a rule does not fit the attributes of the collection.
        VerificationError: the collection lost rows since its build.
        StoreError: Milvus failed.
    """
    choice = check_publish(store, name, channel)
    if rules:
        rules.check(fingerprint_of(choice.next).attributes)
    return _roll_out(store, models, choice, with_changes, on_progress, rules)


def promote(
    store: Store, models: Models, channel: str, with_changes: bool = False, on_progress: Progress = _silent
) -> Rollout:
    """Publish the collection that is live in another channel in `live`. It stays live in that channel.

    Raises:
        NothingToDoError: no collection is live in the channel.
        RefusedError: the channel is `live`, or a model that is needed cannot be used.
        VerificationError: the collection lost rows since its build.
        StoreError: Milvus failed.
    """
    return _roll_out(store, models, check_promote(store, channel), with_changes, on_progress)


def rollback(
    store: Store, models: Models, to: str | None = None, on_progress: Progress = _silent, channel: str = LIVE
) -> Rollout:
    """Return to the release before the live one of a channel, or to its earlier release `to`.

    Raises:
        NothingToDoError: no collection is live, or none was published before the live one.
        RefusedError: `to` was not published before the live one, or the model to encode users with cannot be used.
        VerificationError: the collection lost rows since its build.
        StoreError: Milvus failed.
    """
    return _roll_out(store, models, check_rollback(store, to, channel), with_changes=False, on_progress=on_progress)


def _roll_out(
    store: Store,
    models: Models,
    choice: Choice,
    with_changes: bool,
    on_progress: Progress,
    rules: ReleaseRules | None = None,
) -> Rollout:
    """Run the steps that follow the check: carry over, encode users, set rules, switch, carry over again, report."""
    source = choice.before if choice.rolls_back else source_of_changes(store, choice.next.name, choice.channel)
    changes = CarryOver.to(store, choice.next.name, models, source) if with_changes else None
    if changes:
        changes.carry(on_progress)
    encoded = encode_users(store, choice.model_version, models, on_progress)
    if rules is not None:
        set_rules(store, choice.next.name, rules)
    switch(store, choice)
    if changes:
        changes.carry_again(on_progress)
    live, before = choice.next.name, choice.before if choice.changes_live else choice.next.name
    left = _left_behind(store, before or source) if choice.changes_live and not with_changes else None
    return Rollout(live, before, encoded, changes.carried if changes else None, left, choice.channel)


def _left_behind(store: Store, collection: str | None) -> LeftBehind | None:
    if collection is None or journal_of(collection) not in store.collections():
        return None
    try:
        journal = Journal(store, collection).name
    except VerificationError as error:  # the release is done, so this is no reason to fail
        _log.warning("what %s leaves behind cannot be counted: %s", collection, error)
        return None
    upserted, deleted = (store.count(journal, f'{OP} == "{op}"') for op in (UPSERT, DELETE))
    return LeftBehind(collection, upserted, deleted) if upserted + deleted else None

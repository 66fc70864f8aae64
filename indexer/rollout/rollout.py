"""The release procedure: how a collection becomes the live one. `_roll_out` is its six steps.

Whatever ends it half way, the collection that was live stays so until the switch, and the same command completes it.
"""

from dataclasses import dataclass

from indexer.items.carry_over import Carried, CarryOver
from indexer.progress import Progress
from indexer.rollout.choice import Choice, check_publish, check_rollback
from indexer.rollout.switch import switch
from indexer.users.encode import Encoded, encode_users
from mind.milvus.journal import DELETE, OP, UPSERT, journal_of
from mind.milvus.store import Store
from mind.transfer import Models


@dataclass(frozen=True)
class LeftBehind:
    """What `upsert` and `delete` did to the collection that was live before, and the next one lacks."""

    upserted: int
    """Items added or changed."""
    deleted: int


@dataclass(frozen=True)
class Rollout:
    """What a release did."""

    live: str
    """The collection that is live now."""
    before: str | None
    """The one that was live before; None if there was none."""
    encoded: Encoded | None = None
    """Remembered users; None if there are none."""
    carried: Carried | None = None
    """Changes that were brought along; None if there were none, or nobody asked for them."""
    left_behind: LeftBehind | None = None
    """Changes that were not brought along; None if there were none, or all were."""

    @property
    def changed(self) -> bool:
        """Whether the alias moved."""
        return self.live != self.before


def _silent(stage: str, done: int, total: int) -> None:
    pass


def publish(
    store: Store, models: Models, name: str | None = None, with_changes: bool = False, on_progress: Progress = _silent
) -> Rollout:
    """Make a collection the live one. The live one may be published again: it gets the users that it lacks.

    Args:
        store: Milvus.
        models: where models are; used only for remembered users and for changes.
        name: the collection; the one that was finished last if None.
        with_changes: bring along what `upsert` and `delete` did to the collection that is live.
        on_progress: told how far it is.

    Raises:
        NothingToDoError: no finished collection, or none of that name.
        RefusedError: its build did not finish, or a model that is needed cannot be used.
        VerificationError: it lost rows since.
        StoreError: Milvus failed.
    """
    return _roll_out(store, models, check_publish(store, name), with_changes, on_progress)


def rollback(store: Store, models: Models, to: str | None = None, on_progress: Progress = _silent) -> Rollout:
    """Return to the release before the live one, or to an earlier one.

    Raises:
        NothingToDoError: nothing is live, or nothing was published before it.
        RefusedError: `to` was not published before the live one, or the model to encode users with cannot be used.
        VerificationError: it lost rows since.
        StoreError: Milvus failed.
    """
    return _roll_out(store, models, check_rollback(store, to), with_changes=False, on_progress=on_progress)


def _roll_out(store: Store, models: Models, choice: Choice, with_changes: bool, on_progress: Progress) -> Rollout:
    """The steps after the check of `choice`."""
    changes = CarryOver.to(store, choice.next.name, models) if with_changes else None
    if changes:
        changes.carry(on_progress)
    encoded = encode_users(store, choice.model_version, models, on_progress)
    switch(store, choice)
    if changes:
        changes.carry_again(on_progress)
    return _report(store, choice, encoded, changes.carried if changes else None, with_changes)


def _report(
    store: Store, choice: Choice, encoded: Encoded | None, carried: Carried | None, with_changes: bool
) -> Rollout:
    live = choice.next.name
    before = choice.before if choice.changes_live else live
    left_behind = None if with_changes or before is None or before == live else _left_behind(store, before)
    return Rollout(live, before, encoded, carried, left_behind)


def _left_behind(store: Store, collection: str) -> LeftBehind | None:
    if journal_of(collection) not in store.collections():
        return None
    journal = store.create_journal(collection)  # loads it
    upserted, deleted = (store.count(journal, f'{OP} == "{op}"') for op in (UPSERT, DELETE))
    return LeftBehind(upserted, deleted) if upserted + deleted else None

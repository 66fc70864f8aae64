"""Changes that were made to the live collection, brought along to the one that is released next.

Before the alias moves, and once more afterwards for what was changed in the meantime. A change is carried with its
time, and never replaces a later one, so carrying may be repeated. A deletion is carried past models that do not know
the item. Vectors that were derived are derived anew in the new model's space; a vector that was given belongs to the
old model's space and stays behind, unless the model is the same.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from indexer.build import Progress
from indexer.catalogue import ItemCollection, before_live, fingerprint_of, item_collections
from indexer.items.changes import Proposal, Summary, Upsert, neighbours_of, proposal_from_neighbours, stage_deletes
from indexer.items.journal import Journal
from indexer.model import load_model
from indexer.rollout.release import Release, find
from indexer.store import Row, Store
from mind.artifact import Artifact
from mind.milvus.collection import EMBEDDING, ITEM_ID, VECTOR_SOURCE, VectorSource
from mind.milvus.journal import CHANGED_AT, DELETE, NAMES, NEIGHBOURS, OP, journal_of
from mind.transfer import Models

_MARGIN = timedelta(minutes=5)
"""Between the time that a change bears and its being written, whatever the clocks of two machines say."""


@dataclass
class Carried:
    """What was brought along."""

    source: str
    """The collection that was live before."""
    summary: Summary = field(default_factory=Summary)
    left_given: set[int] = field(default_factory=set)
    """New items that stay behind because their vectors belong to the other model's space."""
    left_attributes: set[str] = field(default_factory=set)
    """Changed attributes that the new collection does not have, or has with another type."""


def publish_with_changes(
    store: Store,
    name: str | None,
    models: Models,
    publish: Callable[[Store, str | None], Release],
    on_progress: Progress,
) -> tuple[Release, Carried | None]:
    """Release a collection with the changes of the one that is live.

    Args:
        store: Milvus.
        name: the collection; the one finished last if None.
        models: where models are.
        publish: moves the alias.
        on_progress: told how far it is.

    Returns:
        The release, and what was carried; None if nothing was changed, or nothing was live before.

    Raises:
        RefusedError: its build did not finish.
    """
    collections = item_collections(store)
    finished = [collection for collection in collections if collection.fingerprint]
    if name is None and finished:
        name = max(finished, key=lambda collection: collection.built_at).name
    source = _before(collections, name)
    if name is None or source is None or journal_of(source.name) not in store.collections():
        return publish(store, name), None
    fingerprint = fingerprint_of(find(collections, name))
    same_space = source.fingerprint is not None and source.fingerprint.model_version == fingerprint.model_version
    carrying = _Carrying(store, source.name, name, load_model(models, fingerprint.model_version), same_space)
    started = datetime.now(UTC)
    carrying.carry("", on_progress)
    release = publish(store, name)
    carrying.carry((started - _MARGIN).isoformat(timespec="microseconds"), on_progress)  # what came in the meantime
    return release, carrying.carried


def _before(collections: list[ItemCollection], name: str | None) -> ItemCollection | None:
    """The live collection; of one that is live itself, for its publishing was cut short, the one released before it."""
    live = next((collection for collection in collections if collection.live), None)
    if live is None or live.name != name:
        return live
    return next(iter(before_live(collections)), None)


class _Carrying:
    """The way from one collection to another."""

    def __init__(self, store: Store, source: str, target: str, model: Artifact, same_space: bool) -> None:
        self._source, self._target = Journal(store, source), Journal(store, target)
        self._source.batch_rows = min(self._source.batch_rows, self._target.batch_rows)  # what is read here goes there
        self._model = model
        self._same_space = same_space
        self.carried = Carried(source)
        self._upsert = Upsert(self._target, model, self.carried.summary)

    def carry(self, since: str, on_progress: Progress) -> None:
        """Everything that was changed since some time."""
        on_progress("carry", 0, 0)
        looked_at = 0
        for rows in self._source.walk(self._source.name, f'{CHANGED_AT} >= "{since}"'):
            there = self._target.rows([row[ITEM_ID] for row in rows])
            newer = [row for row in rows if row[CHANGED_AT] > there.get(row[ITEM_ID], {}).get(CHANGED_AT, "")]
            deletes = {row[ITEM_ID]: row[CHANGED_AT] for row in newer if row[OP] == DELETE}
            stage_deletes(self._target, deletes, self.carried.summary, unseen=True)
            proposals = (self._proposal(row) for row in newer if row[OP] != DELETE)
            self._upsert.stage(proposal for proposal in proposals if proposal is not None)
            looked_at += len(rows)
            on_progress("carry", looked_at, 0)
        self._target.apply(on_progress)

    def _proposal(self, row: Row) -> Proposal | None:
        """What a change means for the new collection; None if nothing."""
        item_id, source, names = row[ITEM_ID], row[VECTOR_SOURCE], set(json.loads(row[NAMES]))
        values = {name: row[name] for name in names if self._takes(name, row[name])}
        self.carried.left_attributes |= names - values.keys()
        if self._knows(item_id):
            return Proposal(item_id, values, changed_at=row[CHANGED_AT])  # without values it may be one that came back
        if source == VectorSource.TRAINED:
            return None  # the new model forgot it, so there is nothing to change
        if source == VectorSource.GIVEN:
            if not self._same_space:
                self.carried.left_given.add(item_id)
                return None
            return Proposal(item_id, values, row[EMBEDDING], changed_at=row[CHANGED_AT])
        neighbours = neighbours_of(row[NEIGHBOURS])
        derived = neighbours and proposal_from_neighbours(
            item_id, neighbours, self._model, values=values, changed_at=row[CHANGED_AT]
        )
        return derived or Proposal(item_id, values, changed_at=row[CHANGED_AT])  # from its attributes

    def _takes(self, name: str, value: Any) -> bool:
        """Whether the new collection has the attribute, of the same type, and room for the value."""
        old, new = self._source.columns.get(name), self._target.columns.get(name)
        if old is None or new is None or old.type != new.type:
            return False
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        fits = all(len(text.encode()) <= new.max_length for text in texts)
        return fits and not (isinstance(value, list) and len(value) > new.max_capacity)

    def _knows(self, item_id: int) -> bool:
        return bool(self._model.vocabulary.item_index(np.array([item_id]))[0])

"""Carries changes of the live collection over to the collection that is released next in a channel.

Changes are carried over before the alias moves, and once more afterwards for those made in the meantime. A change keeps
its time and never replaces a later change, so carrying over may be repeated. A deletion is carried over even if the new
model does not know the item, so later releases still see it. Derived vectors are derived again for the new model, and
a new item stays a neighbour of the items that the new model knows. A vector that was given by hand belongs to the old
model, so it is left out unless the model is the same.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexer.catalogue import before_live, find, fingerprint_of, in_channel, item_collections, live_one
from indexer.items.changes import (
    ChangeSummary,
    Proposal,
    Upsert,
    proposal_from_clicks,
    stage_deletes,
)
from indexer.items.journal import Journal
from indexer.model import load_model
from indexer.progress import Progress
from mind.artifact import Artifact
from mind.milvus.channels import LIVE
from mind.milvus.collection import EMBEDDING, ITEM_ID, ITEM_KEY, VECTOR_SOURCE, VectorSource
from mind.milvus.journal import CHANGED_AT, DELETE, NAMES, NEIGHBOURS, OP, Clicked, journal_of
from mind.milvus.store import Row, Store
from mind.transfer import Models


@dataclass
class Carried:
    """The changes that were carried over."""

    source: str
    """The collection that was live before."""
    summary: ChangeSummary = field(default_factory=ChangeSummary)
    left_given: set[int] = field(default_factory=set)
    """New items that were left out because their vectors were given for another model."""
    left_attributes: set[str] = field(default_factory=set)
    """Changed attributes that the new collection does not have, or has with another type or a lower limit."""


class CarryOver:
    """Carries the changes of the live collection over to the one that is released next."""

    def __init__(self, store: Store, source: str, target: str, model: Artifact, same_space: bool) -> None:
        """Open both journals. `same_space` tells whether both collections hold vectors of the same model. See `to`."""
        self._source, self._target = Journal(store, source), Journal(store, target)
        self._source.batch_rows = min(self._source.batch_rows, self._target.batch_rows)  # a batch must fit both
        self._model = model
        self._same_space = same_space
        self._since = ""
        self.carried = Carried(source)
        """The changes that were carried over so far."""
        self._upsert = Upsert(self._target, model, self.carried.summary)

    @classmethod
    def to(cls, store: Store, target: str, models: Models, source: str | None) -> "CarryOver | None":
        """Prepare to carry changes over from a collection (`source_of_changes`) to `target`.

        Returns:
            None if there is no source, if it has no changes, or if its ids are of another kind (text or integers) than
            those of `target`, so that they name other items.

        Raises:
            RefusedError: the model of `target` cannot be used.
        """
        if source is None or journal_of(source) not in store.collections():
            return None
        collections = item_collections(store)
        fingerprint, built_from = fingerprint_of(find(collections, target)), find(collections, source).fingerprint
        if len({ITEM_KEY in store.columns(name) for name in (source, target)}) > 1:
            return None
        same_space = built_from is not None and built_from.model_version == fingerprint.model_version
        return cls(store, source, target, load_model(models, fingerprint.model_version), same_space)

    def carry(self, on_progress: Progress) -> None:
        """Carry over all changes since the build of the live collection."""
        self._since = self._source.newest_change()
        self._carry("", on_progress)

    def carry_again(self, on_progress: Progress) -> None:
        """Carry over the changes that were made since `carry` began."""
        self._carry(self._since, on_progress)

    def _carry(self, since: str, on_progress: Progress) -> None:
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
        """Return what a change means for the new collection, or None if it means nothing."""
        item_id, source, names = row[ITEM_ID], row[VECTOR_SOURCE], set(json.loads(row[NAMES]))
        clicked = Clicked.from_json(row[NEIGHBOURS])
        more = {"changed_at": row[CHANGED_AT], "key": row.get(ITEM_KEY) or ""}
        values = {name: row[name] for name in names if self._takes(name, row[name])}
        self.carried.left_attributes |= names - values.keys()
        if self._knows(item_id):
            return Proposal(item_id, values, **more)  # also without values: it may undo a deletion
        if source == VectorSource.TRAINED:
            return None  # the new model forgot it, so there is nothing to change
        if source == VectorSource.GIVEN:
            if not self._same_space:
                self.carried.left_given.add(item_id)
                self.carried.summary.keys[item_id] = more["key"]
                return None
            return Proposal(item_id, values, row[EMBEDDING], clicked=clicked, **more)
        derived = proposal_from_clicks(item_id, clicked, self._model, values=values, **more)
        return derived or Proposal(item_id, values, clicked=clicked, **more)  # its vector comes from attributes

    def _takes(self, name: str, value: Any) -> bool:
        """Return whether the new collection has the attribute with the same type and can hold the value, or none."""
        old, new = self._source.columns.get(name), self._target.columns.get(name)
        if old is None or new is None or old.type != new.type:
            return False
        if value is None:
            return name in self._target.optional
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        fits = all(len(text.encode()) <= new.max_length for text in texts)
        return fits and not (isinstance(value, list) and len(value) > new.max_capacity)

    def _knows(self, item_id: int) -> bool:
        return bool(self._model.vocabulary.item_index(np.array([item_id]))[0])


def source_of_changes(store: Store, target: str, channel: str = LIVE) -> str | None:
    """Return the collection whose changes a release of `target` in a channel carries over.

    It is the live collection of the channel. If `target` is live itself, because its release was interrupted after the
    switch, it is the one that was released before it. A new channel has neither: it takes over from `live`.

    Returns:
        None if there is no such collection.
    """
    collections = item_collections(store, channel)
    live = live_one(collections)
    if live is not None and live.name == target:
        live = next(iter(before_live(collections)), None)
    if live is None and channel != LIVE:
        live = live_one(in_channel(collections, LIVE))
    return live.name if live and live.name != target else None

"""Adds, changes and deletes items between two builds of their collection.

A command first checks its files, then stages all changes in the journal, then applies them. Staging the same change
twice changes nothing, so a command may be killed at any moment and run again. Run one command at a time: if two
commands change the same item at the same time, one of the changes may be lost.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from indexer.errors import RefusedError, VerificationError
from indexer.items.attributes import ARROW, check_key
from indexer.items.item_files import ItemFile
from indexer.items.journal import OWN, Journal
from indexer.progress import Progress
from mind.artifact import Artifact, Float32
from mind.clicks_before import Before, ClicksBefore
from mind.data.ids import KeyTable
from mind.fresh_items import AttributeVectors, Neighbours, count_neighbours, from_neighbours
from mind.milvus.collection import EMBEDDING, ITEM_ID, ITEM_KEY, VECTOR_SOURCE, VectorSource
from mind.milvus.journal import APPLIED, CHANGED_AT, DELETE, KNOWN, NAMES, NEIGHBOURS, OP, UPSERT, Clicked, Weights
from mind.milvus.store import Row
from mind.sequences import Int64, Sequences

MAX_LEARNT = 200_000
"""Maximum number of trained items that vectors from attributes are learnt from. If there are more, they are sampled."""

T = TypeVar("T")


@dataclass
class ChangeSummary:
    """How many items a command added, changed and deleted, and which it did not."""

    added: dict[str, int] = field(default_factory=dict)
    """Number of added items, which the model does not know, by the source of their vector."""
    changed: int = 0
    """Number of items that were in the collection and have other values now."""
    replaced: int = 0
    """Number of attribute values of the model's items that the build inserted and that are replaced now."""
    deleted: int = 0
    """Number of deleted items."""
    unchanged: set[int] = field(default_factory=set)
    """Items that already had the wanted values or were already deleted."""
    no_vector: set[int] = field(default_factory=set)
    """New items that were left out because no vector was given and none could be derived."""
    unknown: set[int] = field(default_factory=set)
    """Items to delete that are not in the collection."""
    kept: int = 0
    """Number of attribute values that stay although their cells are empty."""
    keys: dict[int, str] = field(default_factory=dict)
    """The text ids of items in `no_vector` and `unknown`, where ids are text."""


@dataclass(frozen=True)
class Proposal:
    """The new values of one item."""

    item_id: int
    values: Mapping[str, Any] = field(default_factory=dict)
    """Attribute values by name; None where there is none. Attributes that are not here keep their values."""
    vector: Float32 | None = None
    """[D] float32; None keeps the present vector, or derives one from attributes if there is none."""
    source: VectorSource = VectorSource.GIVEN
    """The source of `vector`."""
    clicked: Clicked | None = None
    """What clicks say of an item that the model does not know; None keeps what was known."""
    changed_at: str = ""
    """The time of the change; empty is now."""
    key: str = ""
    """The text id of the item; "" where ids are integers."""


class Upsert:
    """Stages proposals for the collection of a model."""

    def __init__(self, journal: Journal, model: Artifact, summary: ChangeSummary, clears: bool = True) -> None:
        """Prepare staging for the collection of `journal`.

        Args:
            journal: the journal of the collection.
            model: the model that the collection was built from.
            summary: each staged proposal is counted here.
            clears: whether None in a proposal removes the value of an attribute. Otherwise the item keeps it.
        """
        self.journal, self.model, self.summary = journal, model, summary
        self._clears = clears
        self.vocabulary = model.vocabulary
        self._embedding = model.weights.item_embedding
        self._touched: set[int] = set()  # an item may be in several files, but is counted once
        self._kinds = {name: column.type for name, column in journal.columns.items() if name not in OWN}

    def stage(self, proposals: Iterable[Proposal], on_batch: Callable[[int], None] = lambda rows: None) -> None:
        """Stage the proposals that change something. `on_batch` gets the number of proposals done after each batch."""
        done = 0
        for batch in _batched(proposals, self.journal.batch_rows):
            self._stage({proposal.item_id: proposal for proposal in batch})
            done += len(batch)
            on_batch(done)

    def _stage(self, proposals: dict[int, Proposal]) -> None:
        ids = list(proposals)
        is_known = dict(zip(ids, (self.vocabulary.item_index(np.array(ids)) > 0).tolist(), strict=True))
        before = self.journal.rows(ids)
        built = self.journal.items([item_id for item_id in ids if is_known[item_id] and item_id not in before])
        rows: list[Row] = []
        for item_id, proposal in proposals.items():
            old = before.get(item_id)
            if old is None and is_known[item_id]:
                if item_id not in built:
                    raise VerificationError(f"{self.journal.collection}: item {item_id} is missing; build it again")
                old = built[item_id] | {OP: UPSERT, KNOWN: True, NAMES: "[]", NEIGHBOURS: "[]", APPLIED: True}
            rows.append(self._proposed(proposal, is_known[item_id], old))
        rows = self._with_vectors(rows, before)
        staged = [row for row in rows if self._note(row, before.get(row[ITEM_ID]) or built.get(row[ITEM_ID]))]
        self.journal.stage(staged)

    def _proposed(self, proposal: Proposal, known: bool, old: Row | None) -> Row:
        had = old or {}
        if proposal.key and had.get(ITEM_KEY):
            check_key(self.journal.collection, proposal.key, had[ITEM_KEY])
        values = self._values(proposal, had)
        row = dict.fromkeys(self._kinds) | had | values
        changed = {
            name for name, value in values.items() if value != had.get(name) or (value is not None and not known)
        }
        earlier = set(json.loads(had.get(NAMES, "[]")))
        if known:
            self.summary.replaced += len(changed - earlier)
        names = sorted(changed | earlier)
        row |= {ITEM_ID: proposal.item_id, OP: UPSERT, KNOWN: known, NAMES: json.dumps(names)}
        if self.journal.has_keys and proposal.key:
            row[ITEM_KEY] = proposal.key
        row |= {CHANGED_AT: proposal.changed_at or self.journal.next_time(had.get(CHANGED_AT, ""))}
        row.setdefault(NEIGHBOURS, "[]")
        if known:
            index = self.vocabulary.item_index(np.array([proposal.item_id]))[0]
            row |= {EMBEDDING: self._embedding[index], VECTOR_SOURCE: VectorSource.TRAINED.value, NEIGHBOURS: "[]"}
            return row
        if proposal.vector is not None:
            row |= {EMBEDDING: proposal.vector, VECTOR_SOURCE: proposal.source.value}
        if proposal.clicked is not None:
            row[NEIGHBOURS] = proposal.clicked.to_json()
        elif proposal.vector is not None:  # it is not derived from neighbours any more, but is one all the same
            row[NEIGHBOURS] = Clicked([], Clicked.from_json(row.get(NEIGHBOURS) or "[]").before).to_json()
        return row

    def _values(self, proposal: Proposal, had: Row) -> Row:
        """Return the values to set. Count those that stay because None does not remove them."""
        if self._clears:
            return dict(proposal.values)
        empty = {name for name, value in proposal.values.items() if value is None}
        self.summary.kept += sum(had.get(name) is not None for name in empty & self.journal.optional)
        return {name: value for name, value in proposal.values.items() if name not in empty}

    def _with_vectors(self, rows: list[Row], before: dict[int, Row]) -> list[Row]:
        """Return the rows with vectors. Rows without one, or with changed attributes, get it from their attributes."""
        asked = [row for row in rows if self._needs_attributes(row, before.get(row[ITEM_ID]))]
        if not asked:
            return rows
        vectors, told = np.zeros((len(asked), 0), np.float32), np.zeros(len(asked), np.int64)
        if self._kinds:
            # In a collection of an earlier version the others hold a placeholder for a missing value.
            given = [{name: row[name] for name in json.loads(row[NAMES])} for row in asked]
            vectors, told = self._by_attributes.of(self._columns(given))
        without = set()
        for row, vector, attributes in zip(asked, vectors, told.tolist(), strict=True):
            row |= {EMBEDDING: vector, VECTOR_SOURCE: VectorSource.ATTRIBUTES.value}
            if not attributes:
                without.add(row[ITEM_ID])
                self.summary.keys[row[ITEM_ID]] = row.get(ITEM_KEY) or ""
        self.summary.no_vector |= without
        return [row for row in rows if row[ITEM_ID] not in without]

    def _needs_attributes(self, row: Row, old: Row | None) -> bool:
        if (
            EMBEDDING not in row or not row[VECTOR_SOURCE]
        ):  # a new item, or one that was new when its deletion was carried over
            return True
        if row[VECTOR_SOURCE] != VectorSource.ATTRIBUTES or old is None:
            return False
        return any(row[name] != old[name] for name in (NAMES, *self._kinds))

    @cached_property
    def _by_attributes(self) -> AttributeVectors:
        """Learn vectors from the attributes that the model's items have in the collection now."""
        chosen = np.sort(np.random.default_rng(0).permutation(self.vocabulary.item_id)[:MAX_LEARNT]).tolist()
        learnt: list[Row] = []
        for batch in _batched(chosen, self.journal.batch_rows):
            rows = self.journal.items(batch).values()
            learnt += [{name: row[name] for name in (ITEM_ID, *self._kinds)} for row in rows]
        index = self.vocabulary.item_index(np.array([row[ITEM_ID] for row in learnt], np.int64))
        return AttributeVectors(self._columns(learnt), self._embedding[index])

    def _columns(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {name: pa.array([row.get(name) for row in rows], ARROW[kind]) for name, kind in self._kinds.items()}

    def _note(self, row: Row, old: Row | None) -> bool:
        """Count what becomes of an item. Return whether it differs from the present row."""
        item_id, summary = row[ITEM_ID], self.summary
        if old is not None and old.get(OP, UPSERT) == UPSERT and _same(row, old):
            if item_id not in self._touched:
                summary.unchanged.add(item_id)
            return False
        if item_id not in self._touched:
            self._touched.add(item_id)
            summary.unchanged.discard(item_id)
            if row[KNOWN] or (old is not None and old[OP] == UPSERT):
                summary.changed += 1
            else:
                summary.added[row[VECTOR_SOURCE]] = summary.added.get(row[VECTOR_SOURCE], 0) + 1
        return True


def _batched(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def _same(row: Row, old: Row) -> bool:
    """Return whether two rows are equal except for their time. Each is from the journal or from the collection."""
    if not np.array_equal(row[EMBEDDING], old[EMBEDDING]):
        return False
    compared = [name for name in old if name not in (EMBEDDING, CHANGED_AT, APPLIED)]
    return all(row[name] == old[name] for name in compared)


def upsert(
    journal: Journal,
    model: Artifact,
    vectors: ItemFile | None,
    attributes: ItemFile | None,
    interactions: Sequences | None,
    on_progress: Progress,
    clear_empty: bool = False,
    keys: KeyTable | None = None,
) -> ChangeSummary:
    """Add new items and change attributes.

    Args:
        journal: the journal of the collection.
        model: the model that the collection was built from.
        vectors: a file of new items with their vectors.
        attributes: a file of attributes of new or known items.
        interactions: interactions of users. New items in them become neighbours of the items that users clicked soon
            before, and get vectors from the items that occur together with them, unless an item has a given vector.
            Deleted items stay deleted.
        on_progress: called with the progress.
        clear_empty: whether an empty cell removes the value of an item. Otherwise the item keeps it.
        keys: the text ids of the items in `interactions`; None where ids are integers.

    Raises:
        AttributesError: a file cannot be used. Nothing was changed.
        RefusedError: `vectors` has an item that the model knows, or values cannot be removed from this collection.
            Nothing was changed.
    """
    if clear_empty and journal.columns.keys() - journal.optional - set(OWN):
        raise RefusedError(
            f"{journal.collection}: an earlier version built it, so an item cannot lose a value (--clear-empty); "
            "build and publish it again"
        )
    on_progress("check", 0, 0)
    given = vectors.check() if vectors else np.zeros(0, np.int64)
    if attributes:
        attributes.check()
    known = given[model.vocabulary.item_index(given) > 0]
    if vectors and len(known):
        raise RefusedError(
            f"{vectors.path}: item {_name(model, known[0])} is an item of the model, and such items keep their trained "
            f"vectors; remove the rows of these items, {len(known):,} in all"
        )
    summary = ChangeSummary()
    stage = Upsert(journal, model, summary, clear_empty)
    for proposals, total in (
        (_from_vectors(vectors), len(given)),
        (_from_interactions(journal, model, interactions, given, keys), 0),
        (_from_attributes(attributes), 0),
    ):
        on_progress("write", 0, total)
        stage.stage(proposals, lambda rows, total=total: on_progress("write", rows, total))  # type: ignore[misc]
    journal.apply(on_progress)
    return summary


def _name(model: Artifact, item_id: int) -> str:
    """Return the text id of an item that the model knows, or its integer."""
    keys = model.weights.keys
    return keys.at(model.vocabulary.item_index(np.array([item_id])) - 1)[0] if keys else str(item_id)


def _from_vectors(file: ItemFile | None) -> Iterator[Proposal]:
    for item_id, keys, vectors in file.batches() if file else ():
        for one, key, vector in zip(item_id.tolist(), keys, vectors, strict=True):
            yield Proposal(one, vector=vector, key=key)


def _from_attributes(file: ItemFile | None) -> Iterator[Proposal]:
    for item_id, keys, columns in file.batches() if file else ():
        assert isinstance(columns, dict)  # noqa: S101 - a file of attributes
        for row, (one, key) in enumerate(zip(item_id.tolist(), keys, strict=True)):
            yield Proposal(one, {name: values[row] for name, values in columns.items()}, key=key)


def _from_interactions(
    journal: Journal, model: Artifact, interactions: Sequences | None, given: Int64, keys: KeyTable | None
) -> Iterator[Proposal]:
    if interactions is None:
        return
    clicks_before = ClicksBefore(interactions, model.vocabulary)
    for batch in _batched(count_neighbours(interactions, model.vocabulary), journal.batch_rows):
        ids = [item_id for item_id, _ in batch]
        rows, spared = journal.rows(ids), set(np.intersect1d(ids, given).tolist())
        for item_id, neighbours in batch:
            old = rows.get(item_id, {})
            if old.get(OP) == DELETE:
                continue
            key, before = keys.name(item_id) if keys else "", _weights(clicks_before.of(item_id))
            if old.get(VECTOR_SOURCE) == VectorSource.GIVEN or item_id in spared:
                yield Proposal(item_id, clicked=Clicked([], before), key=key)
                continue
            clicked = Clicked(_weights(neighbours), before)
            proposal = proposal_from_clicks(item_id, clicked, model, key=key)
            if proposal is not None:
                yield proposal


def _weights(found: Neighbours | Before) -> Weights:
    return list(zip(found.item_id.tolist(), found.weight.tolist(), strict=True))


def proposal_from_clicks(item_id: int, clicked: Clicked, model: Artifact, **more: Any) -> Proposal | None:
    """Propose a new item with a vector derived from the items that users had together with it.

    Return None if the model knows none of them, or if there are none.
    """
    if not clicked.together:
        return None
    ids, weights = zip(*clicked.together, strict=True)
    neighbours = Neighbours(np.array(ids, np.int64), np.array(weights, np.float32))
    vector = from_neighbours(neighbours, model.vocabulary, model.weights.item_embedding)
    if vector is None:
        return None
    return Proposal(item_id, vector=vector, source=VectorSource.NEIGHBOURS, clicked=clicked, **more)


def delete(
    journal: Journal, item_id: Int64, on_progress: Progress, keys: Mapping[int, str] | None = None
) -> ChangeSummary:
    """Delete items, whether the model knows them or not. They stay deleted until an upsert names them.

    `keys`: the text ids of the items, where ids are text.
    """
    summary = ChangeSummary(keys=dict(keys or {}))
    on_progress("write", 0, len(item_id))
    for start in range(0, len(item_id), journal.batch_rows):
        batch = item_id[start : start + journal.batch_rows].tolist()
        stage_deletes(journal, dict.fromkeys(batch, ""), summary)
        on_progress("write", min(start + journal.batch_rows, len(item_id)), len(item_id))
    journal.apply(on_progress)
    return summary


def stage_deletes(journal: Journal, changed_at: dict[int, str], summary: ChangeSummary, unseen: bool = False) -> None:
    """Stage deletions of items.

    Args:
        journal: the journal of the collection.
        changed_at: the time of each deletion, by item id; empty is now.
        summary: each deletion is counted here.
        unseen: whether to stage deletions of items that the collection never had, so that later releases see them.
    """
    before = journal.rows(list(changed_at))
    built = journal.items([item_id for item_id in changed_at if item_id not in before])
    absent: Row = dict.fromkeys(journal.columns)
    absent[EMBEDDING] = np.zeros(journal.dim, np.float32)
    rows = []
    for item_id, at in changed_at.items():
        if item_id in before:
            row = before[item_id]
        elif item_id in built or unseen:
            row = built.get(item_id, absent | {ITEM_ID: item_id})
            row |= {KNOWN: item_id in built, NAMES: "[]", NEIGHBOURS: "[]", OP: UPSERT}
        else:
            summary.unknown.add(item_id)
            continue
        at = at or journal.next_time(row.get(CHANGED_AT, ""))
        if row[OP] == DELETE:
            summary.unchanged.add(item_id)
        else:
            summary.deleted += 1
        rows.append(row | {OP: DELETE, CHANGED_AT: at})  # the newer time counts when it is carried over
    journal.stage(rows)

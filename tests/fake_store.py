"""An exact item store in memory, with faults on demand, for tests of the server that are not about Milvus."""

import asyncio
import json
import operator
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mind.artifact import Artifact, Float32
from mind.hits import Hits
from mind.milvus.change_log import ChangeLog
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.collection import ITEM_ID, ITEM_KEY, PRESENCE, VECTOR_SOURCE, Fingerprint, is_presence, presence_of
from mind.milvus.errors import FilterError
from mind.milvus.journal import Changes, Clicked
from mind.sequences import Int64
from server.errors import CollectionGoneError, ServerError, StoreError, StoreUnavailableError

_PLACEHOLDERS: dict[str, Any] = {"INT64": 0, "DOUBLE": 0.0, "BOOL": False, "VARCHAR": "", "ARRAY<VARCHAR>": []}
"""What Milvus stores where there is no value."""
_OPERATORS = {"<": operator.lt, ">": operator.gt, "==": operator.eq, ">=": operator.ge}


@dataclass
class FakeCollection:
    """Rows of one collection, in ascending order of id."""

    fingerprint: Fingerprint | None
    item_ids: Int64
    vectors: Float32
    loaded: bool = True
    changes: Changes = field(default_factory=Changes)
    deleted: set[int] = field(default_factory=set)
    """Ids that the journal says are gone."""
    added: set[int] = field(default_factory=set)
    """Ids of items that the model does not know."""
    clicked: dict[int, str] = field(default_factory=dict)
    """What the journal says of clicks on them."""
    log: ChangeLog = field(default_factory=ChangeLog)
    keys: dict[int, str] = field(default_factory=dict)
    """The column of text ids."""
    values: dict[str, dict[int, Any]] = field(default_factory=dict)
    """The values of attributes by item."""
    rules: str = ""
    """The rules of the release as JSON."""


@dataclass
class FakeStore:
    """`server.ports.ItemStore`; set `fault` or `delay_s` to break or slow every call."""

    collections: dict[str, FakeCollection] = field(default_factory=dict)
    alias: str | None = None
    aliases_of: dict[str, str] = field(default_factory=dict)
    """The collection of each channel but `live`."""
    fault: ServerError | StoreError | None = None
    delay_s: float = 0
    unloadable: str = ""
    """Name of a collection that does not fit in memory."""
    loads: asyncio.Event | None = None
    """What the loading of collections waits for."""
    searches: list[tuple[int, int]] = field(default_factory=list)
    """(queries, limit) of every search."""
    filters: list[str] = field(default_factory=list)
    """The filters of all questions which items match."""
    key_reads: list[list[int]] = field(default_factory=list)
    """The ids of all questions for keys."""
    value_reads: list[tuple[str, list[str]]] = field(default_factory=list)
    """The filters and fields of all questions for attributes."""
    values_held: asyncio.Event | None = None
    """What questions for whole columns wait for."""
    keys_fault: StoreError | None = None
    """Breaks questions for keys alone."""
    looks: int = 0
    """How often somebody asked which collection is live."""
    held: int = 0
    """Searches that wait for `let_go`."""
    _held: dict[str, asyncio.Event] = field(default_factory=dict)

    def publish(self, artifact: Artifact, channel: str = LIVE) -> str:
        """Add the collection of a model and point a channel at it; returns its name."""
        fingerprint = fingerprint_of(artifact)
        weights = artifact.weights
        keys = weights.keys.at(np.arange(len(weights.item_id))) if weights.keys else []
        self.collections[fingerprint.collection] = FakeCollection(
            fingerprint,
            weights.item_id,
            weights.item_embedding[1:].copy(),
            keys=dict(zip(weights.item_id.tolist(), keys, strict=False)),
        )
        self.point(channel, fingerprint.collection)
        return fingerprint.collection

    def point(self, channel: str, collection: str | None) -> None:
        """Point a channel at a collection, or at none."""
        if channel == LIVE:
            self.alias = collection
        elif collection:
            self.aliases_of[channel] = collection
        else:
            del self.aliases_of[channel]

    def delete(self, collection: str, item_ids: list[int]) -> None:
        """Delete items that the model knows, as the indexer does."""
        found = self.collections[collection]
        keep = ~np.isin(found.item_ids, item_ids)
        found.item_ids, found.vectors = found.item_ids[keep], found.vectors[keep]
        found.deleted |= set(item_ids)
        found.clicked |= {item_id: "[]" for item_id in item_ids if item_id not in found.clicked}
        found.changes = replace(found.changes, deleted=len(found.deleted))
        found.log = found.log.with_batch(item_ids)

    def add(
        self, collection: str, item_id: int, vector: Float32, key: str = "", before: dict[int, float] | None = None
    ) -> None:
        """Add an item that the model does not know, or replace it, as the indexer does.

        `vector`: [D] float32; `key`: its text id; `before`: the items before it, and its weight as their neighbour.
        """
        found = self.collections[collection]
        kept = found.item_ids != item_id
        found.item_ids, found.vectors = found.item_ids[kept], found.vectors[kept]
        found.clicked[item_id] = Clicked([], list((before or {}).items())).to_json()
        found.keys |= {item_id: key} if key else {}
        place = int(np.searchsorted(found.item_ids, item_id))
        found.item_ids = np.insert(found.item_ids, place, item_id)
        found.vectors = np.insert(found.vectors, place, vector, axis=0)
        found.added.add(item_id)
        found.changes = replace(found.changes, added=len(found.added))
        found.log = found.log.with_batch([item_id])

    def give(self, collection: str, name: str, kind: str, values: dict[int, Any]) -> None:
        """Give items an attribute that they may lack, as a build does."""
        found = self.collections[collection]
        assert found.fingerprint
        found.fingerprint.attributes.update({name: kind, presence_of(name): "BOOL"})
        found.values[name] = dict(values)

    def change(self, collection: str, name: str, values: dict[int, Any]) -> None:
        """Change an attribute of some items, as the indexer does; None removes the value."""
        found = self.collections[collection]
        found.values[name] |= values
        found.log = found.log.with_batch(list(values))

    def hold(self, collection: str | None = None) -> None:
        """Let searches of a collection, by default the live one, wait until `let_go`."""
        name = collection or self.alias
        assert name
        self._held[name] = asyncio.Event()

    def let_go(self) -> None:
        """Let searches go on after `hold`, those that wait and later ones."""
        for event in self._held.values():
            event.set()

    async def _find(self, name: str) -> FakeCollection:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fault:
            raise self.fault
        if name not in self.collections:
            raise CollectionGoneError(f"Milvus: no collection {name}")
        return self.collections[name]

    async def released_collection(self, channel: str = LIVE) -> str | None:
        self.looks += 1
        if self.fault:
            raise self.fault
        return self.alias if channel == LIVE else self.aliases_of.get(channel)

    async def aliases(self, collection: str) -> list[str]:
        await self._find(collection)
        named = {LIVE: self.alias} | self.aliases_of
        return [alias_of(channel) for channel, name in named.items() if name == collection]

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        return (await self._find(collection)).fingerprint

    async def rules(self, collection: str) -> str:
        return (await self._find(collection)).rules

    async def loaded(self, collection: str) -> bool:
        return (await self._find(collection)).loaded

    async def load(self, collection: str) -> None:
        if self.loads:
            await self.loads.wait()
        if collection == self.unloadable:
            raise StoreError("Milvus (code 65535): out of memory")
        (await self._find(collection)).loaded = True

    async def count(
        self, collection: str, filter_: str = "", timeout_s: float | None = None, strong: bool = True
    ) -> int:
        return int(_passes((await self._find(collection)).item_ids, filter_).sum())

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        found = await self._find(collection)
        return {
            int(item): vector
            for item, vector in zip(found.item_ids, found.vectors, strict=True)
            if int(item) in set(item_ids)
        }

    async def keys(self, collection: str, item_ids: list[int], timeout_s: float | None = None) -> dict[int, str]:
        self.key_reads.append(item_ids)
        found = await self._find(collection)
        if self.keys_fault:
            raise self.keys_fault
        return {item_id: found.keys[item_id] for item_id in item_ids if item_id in set(found.item_ids.tolist())}

    async def changes(self, collection: str) -> Changes:
        return (await self._find(collection)).changes

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        return (await self._find(collection)).deleted & set(item_ids)

    async def changed_items(self, collection: str) -> Int64:
        found = await self._find(collection)
        return np.array(sorted(found.deleted | found.added), np.int64)

    async def clicked(self, collection: str, item_ids: list[int]) -> dict[int, str]:
        told = (await self._find(collection)).clicked
        return {item_id: told[item_id] for item_id in item_ids if item_id in told}

    async def existing(self, collection: str, item_ids: list[int]) -> set[int]:
        there = (await self._find(collection)).item_ids
        return set(there[np.isin(there, item_ids)].tolist())

    async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
        self.filters.append(filter_)
        there = (await self._find(collection)).item_ids
        return there[_passes(there, filter_)]

    async def values(
        self, collection: str, filter_: str, attributes: list[str], limit: int | None = None
    ) -> dict[str, list[Any]]:
        self.value_reads.append((filter_, attributes))
        found = await self._find(collection)
        item_ids = found.item_ids[_passes(found.item_ids, filter_)][:limit].tolist()
        columns: dict[str, list[Any]] = {ITEM_ID: item_ids}
        for name in attributes:
            values = found.values.get(name, {})
            if is_presence(name):
                there = found.values[name.removesuffix(PRESENCE)]
                columns[name] = [there.get(item_id) is not None for item_id in item_ids]
            else:
                kind = found.fingerprint.attributes[name] if found.fingerprint else ""
                told = (values.get(item_id) for item_id in item_ids)
                columns[name] = [_PLACEHOLDERS[kind] if value is None else value for value in told]
        if limit and self.values_held:
            await self.values_held.wait()
        return columns

    async def change_log(self, collection: str) -> ChangeLog:
        if self.fault:
            raise self.fault
        found = self.collections.get(collection)
        return found.log if found else ChangeLog()

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        found = await self._find(collection)
        if event := self._held.get(collection):
            self.held += 1
            try:
                await event.wait()
            finally:
                self.held -= 1
        if not found.loaded:
            raise StoreUnavailableError(f"Milvus: collection {collection} is not loaded")
        self.searches.append((len(vectors), limit))
        scores = np.einsum("qd,nd->qn", vectors, found.vectors)  # a product of matrices would round by their sizes
        order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        lengths = np.full(len(vectors), order.shape[1], np.int64)
        return Hits(found.item_ids[order].ravel(), np.take_along_axis(scores, order, 1).ravel(), lengths)

    async def drop(self, collection: str) -> None:
        await self._find(collection)
        del self.collections[collection]
        self.alias = None if self.alias == collection else self.alias
        self.aliases_of = {channel: name for channel, name in self.aliases_of.items() if name != collection}

    async def close(self) -> None:
        pass


def fingerprint_of(artifact: Artifact) -> Fingerprint:
    """What the indexer writes for a model without attributes of its own and an exact index."""
    return Fingerprint(
        model_version=artifact.model_version,
        dim=artifact.hyper_parameters.embedding_dim,
        metric="IP",
        count=len(artifact.weights.item_id),
        attributes={VECTOR_SOURCE: "VARCHAR"} | ({ITEM_KEY: "VARCHAR"} if artifact.weights.keys else {}),
        attributes_digest="",
        index_type="FLAT",
        index_params={},
        search_params={},
        interest_cosine=1.0,
    )


def _passes(item_ids: Int64, filter_: str) -> np.ndarray:  # type: ignore[type-arg]
    if not filter_:
        return np.ones(len(item_ids), bool)
    if both := re.fullmatch(r"\((.*)\) and item_id in (\[.*\])", filter_):
        return _passes(item_ids, both[1]) & np.isin(item_ids, json.loads(both[2]))
    if both := re.fullmatch(r"\(([^()]*)\) and \(([^()]*)\)", filter_):
        return _passes(item_ids, both[1]) & _passes(item_ids, both[2])
    if listed := re.fullmatch(r"item_id in (\[.*\])", filter_):
        return np.isin(item_ids, json.loads(listed[1]))
    if negated := re.fullmatch(r"not \((.*)\)", filter_):
        return ~_passes(item_ids, negated[1])
    if " or " in filter_:
        one, other = filter_.split(" or ")
        return _passes(item_ids, one) | _passes(item_ids, other)
    matched = re.fullmatch(r"item_id ([<>]|==|>=) (-?\d+)", filter_)
    if not matched:
        raise FilterError(f"Milvus cannot use {filter_!r}")
    passing: np.ndarray = _OPERATORS[matched[1]](item_ids, int(matched[2]))  # type: ignore[type-arg]
    return passing

"""One model into one verified collection.

The release record is written last: a collection without one is a build that was cut short, and the next build of the
same replaces it. The released collection is never touched.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from indexer.catalogue import ItemCollection, now
from indexer.errors import RefusedError
from indexer.items.attributes import Attribute, Attributes
from indexer.progress import Progress
from indexer.verify import MIN_RECALL, RECALL_AT, Recall, check_contents, check_recall
from mind.artifact import Artifact
from mind.encoder import NumpyEncoder, check_golden
from mind.milvus.collection import (
    EMBEDDING,
    ITEM_ID,
    MAX_MESSAGE_BYTES,
    METRIC,
    VECTOR_SOURCE,
    Fingerprint,
    VectorSource,
)
from mind.milvus.journal import journal_of
from mind.milvus.records import ItemRecord
from mind.milvus.store import Params, Row, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """How the embeddings are indexed, and how servers search them; `Fingerprint` tells what each field does."""

    type: str
    build_params: Params
    search_params: Params
    filter_search_params: Params = field(default_factory=dict)
    interest_cosine: float = 1


@dataclass(frozen=True)
class Built:
    """What a build did."""

    fingerprint: Fingerprint
    sampled: int
    """Stored vectors that were compared with the model's."""
    recall: Recall
    was_there: bool = False
    """Whether an earlier build had finished the collection."""

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.fingerprint.collection


def choose_index(
    is_lite: bool,
    index_type: str | None,
    build_params: Params,
    search_params: Params,
    filter_search_params: Params | None = None,
    interest_cosine: float = 1,
) -> Index:
    """Fill in what the user left open: HNSW on a server, exact search on Milvus Lite, whose HNSW filters badly.

    Raises:
        RefusedError: the parameters cannot work.
    """
    index_type = index_type or ("FLAT" if is_lite else "HNSW")
    if index_type == "HNSW":
        build_params = {"M": 32, "efConstruction": 200, **build_params}
        search_params = {"ef": 128, **search_params}
        for option, params in (("--search-param", search_params), ("--filter-search-param", filter_search_params)):
            ef = (params or {}).get("ef", RECALL_AT)
            if not isinstance(ef, int | float) or ef < RECALL_AT:
                raise RefusedError(f"{option} ef={ef}: the check asks for {RECALL_AT} items, ef must cover them")
    if not 0 < interest_cosine <= 1:
        raise RefusedError(f"--interest-cosine {interest_cosine:g}: above 0 and at most 1 is what it can be")
    return Index(index_type, build_params, search_params, filter_search_params or {}, interest_cosine)


def build(
    store: Store,
    artifact: Artifact,
    attributes: Attributes,
    index: Index,
    min_recall: float = MIN_RECALL,
    batch_rows: int = 20_000,
    on_progress: Progress = lambda stage, done, total: None,
) -> Built:
    """Build and verify the collection of a model; if it is there already, only verify it.

    Raises:
        ArtifactError: the model does not reproduce its own golden vectors.
        VerificationError: the collection is not what it should be; a new one gets no record.
        RefusedError: the collection is live although it was never finished.
    """
    weights = artifact.weights
    check_golden(NumpyEncoder(weights, artifact.hyper_parameters), artifact)
    fingerprint = _fingerprint(artifact, attributes, index)
    name = fingerprint.collection
    if _finished(store, fingerprint):
        store.load(name)
        sampled = check_contents(store, name, weights)
        return Built(fingerprint, sampled, check_recall(store, fingerprint, weights, min_recall), was_there=True)
    if journal_of(name) in store.collections():  # of a collection of this name that was dropped, and that alone
        store.drop(journal_of(name))
    marked = Attributes((*attributes.columns, _trained(fingerprint.count)))
    store.create(name, fingerprint.dim, marked.capacities)
    fill(store, name, artifact, marked, batch_rows, on_progress)
    count = fingerprint.count
    store.index(name, index.type, index.build_params, count, lambda rows: on_progress("index", rows, count))
    on_progress("load", 0, 0)
    store.load(name)
    on_progress("verify", 0, 0)
    sampled = check_contents(store, name, weights)
    recall = check_recall(store, fingerprint, weights, min_recall)
    store.records.write(name, ItemRecord(fingerprint=fingerprint, built_at=now()))
    store.records.secure()
    return Built(fingerprint, sampled, recall)


def _fingerprint(artifact: Artifact, attributes: Attributes, index: Index) -> Fingerprint:
    return Fingerprint(
        model_version=artifact.model_version,
        dim=artifact.hyper_parameters.embedding_dim,
        metric=METRIC,
        count=len(artifact.weights.item_id),
        attributes=attributes.types | {VECTOR_SOURCE: "VARCHAR"},
        attributes_digest=attributes.digest,
        index_type=index.type,
        index_params=dict(index.build_params),
        search_params=dict(index.search_params),
        filter_search_params=dict(index.filter_search_params),
        interest_cosine=index.interest_cosine,
    )


def _trained(items: int) -> Attribute:
    source = pa.repeat(pa.scalar(VectorSource.TRAINED.value, pa.large_string()), items)
    return Attribute(VECTOR_SOURCE, "VARCHAR", source, max_length=64, max_capacity=0, max_bytes=16)


def _finished(store: Store, fingerprint: Fingerprint) -> bool:
    """Whether the collection is built; what an interrupted build left of it is dropped."""
    name = fingerprint.collection
    if name not in store.collections():
        store.records.delete(name)  # of a collection that was dropped, and that alone
        return False
    found = ItemCollection(name, store.records.items([name]).get(name), store.alias() == name)
    if found.fingerprint == fingerprint:
        return True
    if found.live or found.fingerprint is not None:
        raise RefusedError(f"{name}: exists, but with another fingerprint or none, and is {found.state}; drop it first")
    _log.warning("%s: dropping what an interrupted build left", name)
    store.drop(name)
    return False


def fill(
    store: Store, name: str, artifact: Artifact, attributes: Attributes, batch_rows: int, on_progress: Progress
) -> None:
    """Add all items of a model to an empty collection that was made with the same attributes, ready to be indexed."""
    item_id, embedding = artifact.weights.item_id, artifact.weights.item_embedding[1:]
    row_bytes = 64 + embedding[0].nbytes + sum(16 + column.max_bytes for column in attributes.columns)
    step = max(1, min(batch_rows, MAX_MESSAGE_BYTES // row_bytes))
    on_progress("insert", 0, len(item_id))
    for start in range(0, len(item_id), step):
        stop = min(start + step, len(item_id))
        columns: dict[str, Any] = {column.name: column.values(start, stop) for column in attributes.columns}
        columns |= {ITEM_ID: item_id[start:stop].tolist(), EMBEDDING: embedding[start:stop]}
        rows: list[Row] = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        store.insert(name, rows)
        on_progress("insert", stop, len(item_id))
    on_progress("flush", 0, 0)
    store.flush(name)
    on_progress("join segments", 0, 0)
    store.join_segments(name, len(item_id))

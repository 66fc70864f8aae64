"""Builds the collection of a model and verifies it.

A build writes to a collection that has a name of its own. Once it is verified, the build gives it its final name and
then writes the release record. So builds of the same model cannot write into each other's collection: the one that
finishes first keeps the name, and the other one drops what it built. A build never changes the released collection.
"""

import logging
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from indexer.catalogue import item_collections, next_number, now
from indexer.errors import RefusedError, VerificationError
from indexer.items.attributes import Attribute, Attributes
from indexer.progress import Progress
from indexer.verify import MIN_RECALL, RECALL_AT, Recall, check_contents, check_recall
from mind.artifact import Artifact
from mind.config import MAX_BONUS
from mind.encoder import NumpyEncoder, check_golden
from mind.keys import MAX_KEY_BYTES, Keys
from mind.milvus.collection import (
    EMBEDDING,
    ITEM_ID,
    ITEM_KEY,
    MAX_MESSAGE_BYTES,
    METRIC,
    VECTOR_SOURCE,
    Fingerprint,
    VectorSource,
    build_age_s,
    building_name,
)
from mind.milvus.errors import StoreDeniedError, StoreError, StoreUnavailableError
from mind.milvus.journal import FIELDS, journal_of
from mind.milvus.records import ItemRecord
from mind.milvus.store import Params, Row, Store
from mind.milvus.version import danger
from mind.weights import Weights

ABANDONED_S = 24 * 3600
"""Age of an unfinished build in seconds after which another build takes it for dead and drops it."""
MAX_ATTRIBUTES = (64 - len((ITEM_ID, ITEM_KEY, EMBEDDING, VECTOR_SOURCE)) - len(FIELDS)) // 2
"""Maximum number of attributes on a Milvus server, which allows 64 fields in a collection, a journal included."""

MOST_LISTS = 2**16
"""Maximum `nlist` that Milvus accepts."""
ITEMS_PER_LIST = 39
"""Minimum items per list that k-means accepts without a warning."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Index:
    """How the embeddings are indexed, and how servers search them. `Fingerprint` documents each field."""

    type: str
    build_params: Params
    search_params: Params
    interest_cosine: float = 1


@dataclass(frozen=True)
class Built:
    """The result of a build."""

    fingerprint: Fingerprint
    sampled: int
    """Number of stored vectors that were compared with the vectors of the model."""
    recall: Recall
    was_there: bool = False
    """Whether the collection was already complete, so that this build only verified it."""

    @property
    def collection(self) -> str:
        """Return the name of the collection."""
        return self.fingerprint.collection


def choose_index(
    is_lite: bool,
    index_type: str | None,
    build_params: Params,
    search_params: Params,
    interest_cosine: float = 1,
) -> Index:
    """Fill in what the user did not choose.

    The default is HNSW on a server and exact search (FLAT) on Milvus Lite, where HNSW loses recall under filters.

    Raises:
        RefusedError: a parameter is out of range.
    """
    index_type = index_type or ("FLAT" if is_lite else "HNSW")
    if index_type == "HNSW":
        build_params = {"M": 32, "efConstruction": 200, **build_params}
        search_params = {"ef": 128, **search_params}
        ef = search_params["ef"]
        if not isinstance(ef, int | float) or ef < RECALL_AT:
            raise RefusedError(
                f"--search-param ef={ef}: ef must be at least {RECALL_AT}, because the check of a build searches for "
                f"{RECALL_AT} items"
            )
    if not 0 < interest_cosine <= 1:
        raise RefusedError(f"--interest-cosine {interest_cosine:g}: the value must be above 0 and at most 1")
    return Index(index_type, build_params, search_params, interest_cosine)


def choose_bonus(artifact: Artifact, wanted: str) -> float | None:
    """Return the bonus of neighbours for the option `--neighbours`: on, off, a number, or empty for the model's choice.

    Raises:
        RefusedError: the option means nothing, or nothing for this model.
    """
    own = artifact.weights.neighbours
    if not wanted:
        return None
    if own is None:
        raise RefusedError(f"--neighbours {wanted}: model {artifact.model_version} has no neighbours; train it again")
    if wanted == "on" and not own.bonus:
        raise RefusedError(
            "--neighbours on: validation users of the model gained nothing by neighbours, so it has no bonus for them; "
            "give one, such as --neighbours 2"
        )
    if wanted in ("on", "off"):
        return own.bonus if wanted == "on" else 0.0
    try:
        bonus = float(wanted)
    except ValueError:
        bonus = math.nan
    if not 0 < bonus <= MAX_BONUS:
        raise RefusedError(f"--neighbours {wanted}: must be on, off, or a bonus above 0 and at most {MAX_BONUS:,}")
    return bonus


def choose_nlist(items: int) -> int:
    """Return the `nlist` of an index of the IVF family: the power of two nearest to 4 √items, as Milvus recommends."""
    nearest = 1 << round(math.log2(4 * items**0.5))
    return max(1, min(nearest, MOST_LISTS, items // ITEMS_PER_LIST))


def _with_defaults(index: Index, items: int, dim: int) -> Index:
    """Add the parameters that the type of the index needs and for which Milvus has no default.

    IVF_PQ divides a vector into `m` equal parts. The default is parts of two numbers, or of one if `dim` is odd.
    """
    needed: dict[str, int] = {}
    if "IVF" in index.type or index.type == "SCANN":
        needed["nlist"] = choose_nlist(items)
    if index.type == "IVF_PQ":
        needed["m"] = dim if dim % 2 else dim // 2
    return replace(index, build_params={**needed, **index.build_params})


def build(
    store: Store,
    artifact: Artifact,
    attributes: Attributes,
    index: Index,
    min_recall: float = MIN_RECALL,
    batch_rows: int = 20_000,
    on_progress: Progress = lambda stage, done, total: None,
    neighbours: float | None = None,
) -> Built:
    """Build and verify the collection of a model. If the collection already exists, only verify it.

    `neighbours`: as in `Fingerprint`.

    Raises:
        ArtifactError: the model does not reproduce its own golden vectors.
        VerificationError: the collection differs from the model or its index finds too little. A new collection then
            gets no release record.
        RefusedError: a collection of this name is live but its build never finished, or it has another fingerprint;
            there are more than `MAX_ATTRIBUTES` attributes; or this version of Milvus may lose what is built.
    """
    if says := danger(store.version()):
        raise RefusedError(f"{store.connection.shown}: {says}")
    weights = artifact.weights
    _check_fields(store, attributes)
    check_golden(NumpyEncoder(weights, artifact.hyper_parameters), artifact)
    index = _with_defaults(index, len(weights.item_id), weights.item_embedding.shape[1])
    fingerprint = _fingerprint(artifact, attributes, index, neighbours)
    name = fingerprint.collection
    if _is_built(store, fingerprint, weights):
        return _verified(store, fingerprint, weights, min_recall)
    _drop_abandoned(store)
    building = building_name(name)
    try:
        _fill_and_index(store, building, artifact, attributes, index, batch_rows, on_progress)
        on_progress("verify", 0, 0)
        sampled = check_contents(store, building, weights)
        recall = check_recall(store, building, fingerprint, weights, min_recall)
    except (VerificationError, KeyboardInterrupt):
        with suppress(StoreError):
            store.drop(building)
        raise
    if not store.rename(building, name):  # another build of the same collection was faster
        store.drop(building)
        return _verified(store, fingerprint, weights, min_recall)
    store.load(name)
    _record(store, fingerprint)
    return Built(fingerprint, sampled, recall)


def _verified(store: Store, fingerprint: Fingerprint, weights: Weights, min_recall: float) -> Built:
    """Verify a collection that was built already. If its build could not write the record, write it."""
    name = fingerprint.collection
    store.load(name)
    sampled = check_contents(store, name, weights)
    recall = check_recall(store, name, fingerprint, weights, min_recall)
    if name not in store.records.items([name]):
        _record(store, fingerprint)
    return Built(fingerprint, sampled, recall, was_there=True)


def _fill_and_index(
    store: Store,
    name: str,
    artifact: Artifact,
    attributes: Attributes,
    index: Index,
    batch_rows: int,
    on_progress: Progress,
) -> None:
    """Create a collection, insert all items of a model, index and load it."""
    count = len(artifact.weights.item_id)
    stored = _stored(attributes, artifact.weights, count)
    store.create(name, artifact.hyper_parameters.embedding_dim, stored.capacities)
    fill(store, name, artifact, stored, batch_rows, on_progress)
    store.index(name, index.type, index.build_params, count, lambda rows: on_progress("index", rows, count))
    on_progress("load", 0, 0)
    store.load(name)


def _record(store: Store, fingerprint: Fingerprint) -> None:
    """Write the release record of a collection that was verified."""
    number = next_number(item_collections(store))
    store.records.write(fingerprint.collection, ItemRecord(fingerprint=fingerprint, built_at=now(), build=number))
    store.records.secure()


def _fingerprint(artifact: Artifact, attributes: Attributes, index: Index, neighbours: float | None) -> Fingerprint:
    return Fingerprint(
        model_version=artifact.model_version,
        dim=artifact.hyper_parameters.embedding_dim,
        metric=METRIC,
        count=len(artifact.weights.item_id),
        attributes=_stored(attributes, artifact.weights, 0).types,
        attributes_digest=attributes.digest,
        index_type=index.type,
        index_params=dict(index.build_params),
        search_params=dict(index.search_params),
        interest_cosine=index.interest_cosine,
        neighbours=neighbours,
    )


def _stored(attributes: Attributes, weights: Weights, items: int) -> Attributes:
    """Return the fields of the collection for the first items.

    They are attributes, which items have them, the source of the vector, and the text id if the model has text ids.
    """
    source = pa.repeat(pa.scalar(VectorSource.TRAINED.value, pa.large_string()), items)
    trained = Attribute(VECTOR_SOURCE, "VARCHAR", source, max_length=64, max_capacity=0, max_bytes=16)
    own = [trained] if weights.keys is None else [trained, _key_column(weights.keys, items)]
    return Attributes((*attributes.columns, *(column.presence for column in attributes.columns), *own))


def _key_column(keys: Keys, items: int) -> Attribute:
    offsets, text = (pa.py_buffer(np.ascontiguousarray(array)) for array in (keys.offsets, keys.text))
    column = pa.LargeStringArray.from_buffers(items, offsets, text)
    return Attribute(
        ITEM_KEY,
        "VARCHAR",
        column,
        max_length=MAX_KEY_BYTES,
        max_capacity=0,
        max_bytes=int(np.diff(keys.offsets).max()),
    )


def _check_fields(store: Store, attributes: Attributes) -> None:
    """Raise RefusedError if there are more attributes than a journal on a Milvus server can have."""
    if not store.connection.is_lite and len(attributes.columns) > MAX_ATTRIBUTES:
        raise RefusedError(
            f"the file has {len(attributes.columns)} attributes; the limit on a Milvus server is {MAX_ATTRIBUTES}, "
            "because its collections have at most 64 fields and an attribute takes two; remove columns"
        )


def _is_built(store: Store, fingerprint: Fingerprint, weights: Weights) -> bool:
    """Return whether the collection is already built.

    A collection without a record may have been renamed by a build that was killed before it wrote the record, or is
    about to write it: its contents decide. If they are not whole, an earlier version of the indexer was interrupted.
    """
    name = fingerprint.collection
    recorded = store.records.exists(name)
    found = next((one for one in item_collections(store) if one.name == name), None)
    if found is None:  # a drop that was interrupted may have left its record and its journal
        if recorded:
            store.records.delete(name)
        if journal_of(name) in store.collections():
            store.drop(journal_of(name))
        return False
    if found.fingerprint == fingerprint:
        return True
    if found.live_in or found.fingerprint is not None:
        why = "has another fingerprint than this build" if found.fingerprint else "has no release record"
        state = "live" if found.live_in else found.state
        raise RefusedError(
            f"{name}: a collection of this name exists, is {state} and {why}; "
            f"drop it first (`python -m indexer drop {name}`)"
        )
    try:
        store.load(name)
        check_contents(store, name, weights)
    except (StoreUnavailableError, StoreDeniedError):
        raise
    except (StoreError, VerificationError) as error:
        _log.warning("%s: an earlier build was interrupted; its incomplete collection is dropped (%s)", name, error)
        store.drop(name)
        return False
    return True


def _drop_abandoned(store: Store) -> None:
    """Drop what killed builds left. On a server a build may be running elsewhere, so only old ones are dropped."""
    for name in store.collections():
        age_s = build_age_s(name)
        if age_s is None:
            continue
        if store.connection.is_lite or age_s > ABANDONED_S:
            _log.warning("%s: a build that was interrupted; it is dropped", name)
            store.drop(name)
        else:
            minutes = max(0, age_s) / 60
            _log.warning(
                "%s: another build began %.0f minutes ago and is not finished; if it was killed, "
                "`python -m indexer drop %s` frees its disk",
                name,
                minutes,
                name,
            )


def fill(
    store: Store, name: str, artifact: Artifact, attributes: Attributes, batch_rows: int, on_progress: Progress
) -> None:
    """Insert all items of a model into an empty collection with the same attributes, and prepare it for the index."""
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

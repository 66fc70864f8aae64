"""Checks a loaded collection against the model that it was built from.

There are three checks: all items are in the collection, stored vectors equal those of the model bit for bit, and the
index finds enough of what an exact search finds for real interest vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from indexer.errors import VerificationError
from mind.artifact import Float32, Weights
from mind.milvus.collection import ITEM_ID, Fingerprint, wide_enough
from mind.milvus.filtered import IN_MEMORY, hits_to_fetch
from mind.milvus.journal import DELETED, journal_of, rows_between
from mind.milvus.store import Params, Store
from mind.nearest import Rows
from mind.vocabulary import Vocabulary

RECALL_AT = 50
"""Number of candidates per query when the recall of an index is measured."""
MIN_RECALL = 0.95
"""Minimum recall of an index that a build accepts by default."""
SAMPLE = 1000
"""Number of stored vectors that are compared with those of the model."""
SETTLE_S = 30
"""How long a wrong number of rows is counted again. Milvus may find some rows late when it has just started."""
BLOCK = 2**24
"""Number of scores that an exact search computes at once."""
ROUNDING = 1e-6
"""Rounding error of an inner product, relative to the lengths of its vectors."""
_BREADTH = {"HNSW": "ef", "DISKANN": "search_list", "IVF": "nprobe"}


@dataclass(frozen=True)
class Recall:
    """The measured recall of an index."""

    recall: float
    """Mean share of the exact best `limit` items that the index found."""
    limit: int
    """Number of items that each query asked for."""
    queries: int
    """Number of interest vectors that were searched for."""
    filtered: float | None = None
    """The recall with a filter that so many items match that servers search the index (`mind.milvus.filtered`).

    None if servers score in memory whatever matches any filter, which finds all.
    """


def check_contents(store: Store, name: str, weights: Weights) -> int:
    """Count a collection and compare a sample of its vectors.

    Returns:
        The number of vectors compared.

    Raises:
        VerificationError: a row is missing, duplicated or different, and the journal does not explain it.
    """
    check_count(store, name, len(weights.item_id))
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(len(weights.item_id), min(SAMPLE, len(weights.item_id)), replace=False))
    stored = store.vectors(name, weights.item_id[sample])
    missing = [item_id for item_id in weights.item_id[sample].tolist() if item_id not in stored]
    deleted = _deleted(store, name, missing)
    for row in sample.tolist():
        item_id, expected = int(weights.item_id[row]), weights.item_embedding[row + 1]
        if item_id in deleted:
            continue
        if item_id not in stored:
            raise VerificationError(f"{name}: item {item_id} is missing; drop the collection and build again")
        if not np.array_equal(stored[item_id].view(np.uint32), expected.view(np.uint32)):
            raise VerificationError(f"{name}: item {item_id} has another vector; drop the collection and build again")
    return len(sample)


def until_settled(check: Callable[[], None]) -> None:
    """Run a check. Repeat it for up to SETTLE_S seconds while it raises VerificationError."""
    wrong = retry_if_exception_type(VerificationError)
    Retrying(retry=wrong, stop=stop_after_delay(SETTLE_S), wait=wait_fixed(1), reraise=True)(check)


def check_count(store: Store, name: str, expected: int) -> None:
    """Count the rows of a loaded collection. Its build inserted `expected` rows.

    Raises:
        VerificationError: the collection has more or fewer rows, and its journal does not explain it.
    """
    before = store.changes(name)
    found = store.count(name)
    least, most = rows_between(before, store.changes(name), expected)
    if not least <= found <= most:
        because = "" if least == most == expected else f", and its journal explains {least:,} to {most:,} rows"
        raise VerificationError(
            f"{name}: holds {found:,} rows, but the model has {expected:,} items{because}; "
            "drop the collection and build again"
        )


def _deleted(store: Store, name: str, item_id: list[int]) -> set[int]:
    """Return the items that are deleted according to the journal, or whose change is pending."""
    if not item_id or journal_of(name) not in store.collections():
        return set()
    asked = f"{ITEM_ID} in {item_id} and ({DELETED})"
    return {row[ITEM_ID] for row in store.rows(journal_of(name), asked, len(item_id))}


def check_recall(store: Store, name: str, fingerprint: Fingerprint, weights: Weights, min_recall: float) -> Recall:
    """Search the collection `name` for the golden interest vectors of the model; compare with an exact search.

    Raises:
        VerificationError: the index finds less than `min_recall` of the exact result.
    """
    params = fingerprint.search_params
    recall = golden_recall(store, name, params, weights)
    among = _some_rows(len(weights.item_id))
    if among is not None:
        filtered = golden_recall(store, name, fingerprint.filter_search_params or params, weights, among).recall
        recall = replace(recall, filtered=filtered)
    for found, searched in ((recall.recall, ""), (recall.filtered, " with a filter")):
        if found is not None and not found >= min_recall:
            what = f"{fingerprint.index_type} finds {found:.3f} of the exact best {recall.limit}{searched}"
            raise VerificationError(
                f"{fingerprint.collection}: {what}, but the minimum is {min_recall:g} (--min-recall); "
                f"{_remedy(fingerprint)}"
            )
    return recall


def _some_rows(items: int) -> Rows | None:
    """Choose rows at random for a filter with which servers search the index; None if there is no such filter."""
    if items <= IN_MEMORY:
        return None
    chosen = np.random.default_rng(0).choice(items, (items + IN_MEMORY) // 2, replace=False) + 1
    return np.sort(chosen).astype(np.int32)


def golden_recall(
    store: Store, name: str, search_params: Params, weights: Weights, among: Rows | None = None
) -> Recall:
    """Measure the recall of a collection's index over the golden interest vectors of the model, one search for each.

    With `among`, [M] int32 rows, this is the recall of a filter that these items match: more hits are fetched, the
    others are left out, and a result that is too short counts as right, because servers then search exactly.

    Items that were added since the build displace others from a result, and deleted items are missing from it. Neither
    lowers the recall.

    Raises:
        VerificationError: the model has no golden interest vector.
    """
    vectors = weights.golden_interest_vectors.reshape(-1, weights.golden_interest_vectors.shape[-1])
    queries = vectors[np.any(vectors != 0, axis=1)]  # [Q, D]
    if not len(queries):
        raise VerificationError(f"{name}: its model has no golden interest vector to search with")
    vocabulary = Vocabulary(weights.item_id)
    rows = np.arange(1, len(vocabulary) + 1, dtype=np.int32) if among is None else among
    limit = min(RECALL_AT, len(rows))
    fetched = limit if among is None else hits_to_fetch(len(vocabulary), len(rows), limit)
    found = store.search(name, queries, fetched, wide_enough(search_params, fetched))
    best = _best(queries, limit, weights, rows)
    if among is not None:
        matching = set(weights.item_id[among - 1].tolist())
        found = [[item_id for item_id in hits if item_id in matching][:limit] for hits in found]
        found = [hits if len(hits) == limit else list(own) for hits, own in zip(found, best, strict=True)]
    gone = _deleted(store, name, sorted(set[int]().union(*best).difference(*found)))
    right = wanted = 0
    for exact, hits in zip(best, found, strict=True):
        added = int((vocabulary.item_index(np.unique(hits)) == 0).sum())
        right += min(limit, len(exact.intersection(hits)))
        wanted += min(limit - added, len(exact - gone))
    return Recall(right / wanted if wanted else 1.0, limit, len(queries))


def _best(queries: Float32, limit: int, weights: Weights, rows: Rows) -> list[set[int]]:
    """Return each exact result, and all items whose score equals that of its last item: any of them is right."""
    items = weights.item_embedding[rows]  # [M, D]
    rounding = ROUNDING * np.linalg.norm(items, axis=1).max() * np.linalg.norm(queries, axis=1)
    best: list[set[int]] = []
    for start in range(0, len(queries), step := max(1, BLOCK // len(rows))):
        scores = queries[start : start + step] @ items.T  # [S, M]
        last = np.partition(scores, -limit, axis=1)[:, -limit] - rounding[start : start + step]
        best += [set(weights.item_id[rows[own] - 1].tolist()) for own in scores >= last[:, None]]
    return best


def _remedy(fingerprint: Fingerprint) -> str:
    for family, parameter in _BREADTH.items():
        if fingerprint.index_type.startswith(family):
            value = fingerprint.search_params.get(parameter)
            return f"raise --search-param {parameter}=..." + (f" above {value}" if value is not None else "")
    return "choose another --index-type or raise its --search-param"

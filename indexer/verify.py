"""Checks a loaded collection against the model that it was built from.

There are three checks: all items are in the collection, stored vectors equal those of the model bit for bit, and the
index finds enough of what an exact search finds for real interest vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from indexer.errors import VerificationError
from mind.artifact import Float32
from mind.cell_search import nearest_in_cells
from mind.cells import EXACT_ROWS
from mind.milvus.collection import ITEM_ID, Fingerprint, wide_enough
from mind.milvus.journal import DELETED, journal_of, rows_between
from mind.milvus.store import Params, Store
from mind.nearest import nearest
from mind.vocabulary import Vocabulary
from mind.weights import Weights

RECALL_AT = 50
"""Number of candidates per query when the recall of an index is measured."""
MIN_RECALL = 0.95
"""Minimum recall of an index that a build accepts by default."""
FILTERED = 0.1
"""Share of the items that match the filter in `Recall.filtered`, or more, until servers search by cells."""
SAMPLE = 1000
"""Number of stored vectors that are compared with those of the model."""
SETTLE_S = 30
"""Time in seconds for which a wrong number of rows is counted again. A Milvus that has just started may find rows late.
"""
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
    """The recall of the search by cells (`mind.cells`) with a filter that `FILTERED` of the items match.

    None if the model has so few items that servers score all that match, which finds all.
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
    """Search a collection for the golden interest vectors of the model, and compare the hits with an exact search.

    Raises:
        VerificationError: the index finds less than `min_recall` of the exact result.
    """
    recall = golden_recall(store, name, fingerprint.search_params, weights)
    if not recall.recall >= min_recall:
        what = f"{fingerprint.index_type} finds {recall.recall:.3f} of the exact best {recall.limit}"
        raise VerificationError(
            f"{fingerprint.collection}: {what}, but the minimum is {min_recall:g} (--min-recall); "
            f"{_remedy(fingerprint)}"
        )
    return replace(recall, filtered=filtered_recall(weights))


def filtered_recall(weights: Weights) -> float | None:
    """Measure `Recall.filtered` over the golden interest vectors, with items that are chosen at random."""
    items, table = len(weights.item_id), weights.item_embedding
    matching = min(items, max(EXACT_ROWS + 1, round(FILTERED * items)))
    rows = np.sort(np.random.default_rng(0).choice(items, matching, replace=False) + 1).astype(np.int32)
    cells = weights.cells()
    members = cells.members(rows) if cells else None
    if members is None:
        return None
    queries = weights.golden_queries
    found, _ = nearest_in_cells(queries, table, [members] * len(queries), RECALL_AT)
    best, _ = nearest(queries, table, rows, RECALL_AT)
    return float(np.mean([np.isin(own, exact).mean() for own, exact in zip(found, best, strict=True)]))


def golden_recall(store: Store, name: str, search_params: Params, weights: Weights) -> Recall:
    """Measure the recall of a collection's index over the golden interest vectors of the model, one search for each.

    Items that were added since the build displace others from a result, and deleted items are missing from it. Neither
    lowers the recall.

    Raises:
        VerificationError: the model has no golden interest vector.
    """
    queries = weights.golden_queries
    if not len(queries):
        raise VerificationError(f"{name}: its model has no golden interest vector to search with")
    vocabulary = Vocabulary(weights.item_id)
    limit = min(RECALL_AT, len(vocabulary))
    found = store.search(name, queries, limit, wide_enough(search_params, limit))
    best = _best(queries, limit, weights)
    gone = _deleted(store, name, sorted(set[int]().union(*best).difference(*found)))
    right = wanted = 0
    for exact, hits in zip(best, found, strict=True):
        added = int((vocabulary.item_index(np.unique(hits)) == 0).sum())
        right += min(limit, len(exact.intersection(hits)))
        wanted += min(limit - added, len(exact - gone))
    return Recall(right / wanted if wanted else 1.0, limit, len(queries))


def _best(queries: Float32, limit: int, weights: Weights) -> list[set[int]]:
    """Return each exact result, with all items that have the score of its last item, because any of them is right."""
    items = weights.item_embedding[1:]  # [N, D]
    longest = np.sqrt(np.einsum("nd,nd->n", items, items).max())  # without a copy of the table
    rounding = ROUNDING * longest * np.linalg.norm(queries, axis=1)
    best: list[set[int]] = []
    for start in range(0, len(queries), step := max(1, BLOCK // len(items))):
        scores = queries[start : start + step] @ items.T  # [S, N]
        last = np.partition(scores, -limit, axis=1)[:, -limit] - rounding[start : start + step]
        best += [set(weights.item_id[own].tolist()) for own in scores >= last[:, None]]
    return best


def _remedy(fingerprint: Fingerprint) -> str:
    for family, parameter in _BREADTH.items():
        if fingerprint.index_type.startswith(family):
            value = fingerprint.search_params.get(parameter)
            return f"raise --search-param {parameter}=..." + (f" above {value}" if value is not None else "")
    return "choose another --index-type or raise its --search-param"

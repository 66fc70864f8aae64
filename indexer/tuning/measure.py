"""What an index finds and how fast, for histories of real users: the merged best 50 of a user against an exact search.

Searches as the server does (`mind.interests`), over columns, several batches in flight. Knows nothing of which index
to try; that is `indexer.tuning.tune`.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from indexer.build import Index
from indexer.errors import TuningError
from indexer.progress import Progress
from indexer.verify import RECALL_AT
from mind.artifact import Artifact, Float32
from mind.data.paddlerec import data_files, read_eval, read_train
from mind.encoder import NumpyEncoder
from mind.errors import DataError
from mind.evaluation.retrieval import encode_histories
from mind.hits import Hits
from mind.interests import OVERSEARCH, as_if_each_searched, leading
from mind.milvus.store import Store
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary

MIN_USERS = 20
"""Fewer say nothing about an index."""
BUCKETS = 1000
"""Values of the attribute `BUCKET`, all about equally frequent."""
BUCKET = "bucket"
FILTERS = {f"{BUCKET} < {BUCKETS // 100}": 0.01, f"{BUCKET} < {BUCKETS // 10}": 0.1}
"""Filters that are measured, and the share of the items that match."""
BATCH_USERS = 64
IN_FLIGHT = 2
_BLOCK = 2**24  # scores at a time of an exact search
_ROUNDING = 1e-6  # of an inner product, relative to the lengths of its vectors


@dataclass(frozen=True)
class Workload:
    """The interest vectors of U users, and what an exact search finds for them."""

    vectors: Float32
    """[U, K, D] float32; every user has one that is not zero."""
    vocabulary: Vocabulary
    """Of N items."""
    item_embedding: Float32
    """[N + 1, D] float32."""
    nearest: Int64
    """[U, K, P] int64, the rows nearest to each interest, in no order."""
    cut: dict[str, Float32]
    """By filter ("" is none), [U] float32: the score that an item of the exact merged best 50 has at least."""
    wanted: dict[str, int]
    """By filter, the length of that list: 50, or all matching items where there are fewer."""

    def share(self, user: int, rows: Int64, filter_: str = "") -> float:
        """How much of a user's exact list some distinct rows are; equally good ones are equally right."""
        interests = self.vectors[user][np.any(self.vectors[user], axis=1)]
        scores = np.max(interests @ self.item_embedding[rows].T, axis=0)
        return min(1.0, float((scores >= self.cut[filter_][user]).sum()) / self.wanted[filter_])


@dataclass(frozen=True)
class Measured:
    """What an index does for a workload."""

    index: Index
    searches: float
    """Mean searches for a user."""
    recall: float
    """Mean share of a user's exact best 50 in the merged list."""
    users_per_s: float


def read_histories(path: Path) -> Sequences:
    """Histories of an evaluation file, or all that the users of a training file clicked.

    Raises:
        DataError: the file is neither.
    """
    data_files(path)
    try:
        return read_eval(path).history
    except DataError as no_eval:
        try:
            return read_train(path)
        except DataError as no_train:
            raise DataError(f"{no_eval} (or, in training lines: {no_train})") from no_train


def prepare(model: Artifact, histories: Sequences, users: int, on_progress: Progress) -> Workload:
    """Encode histories, chosen evenly from those with a known item, and search for them exactly.

    Raises:
        TuningError: too few have one.
    """
    weights = model.weights
    known = np.append(0, np.cumsum(model.vocabulary.item_index(histories.item_id) > 0))[histories.offsets]
    usable = np.flatnonzero(np.diff(known))
    chosen = usable[np.linspace(0, len(usable) - 1, min(users, len(usable))).astype(np.int64)]
    encoder = NumpyEncoder(weights, model.hyper_parameters)
    vectors = np.zeros((0, 1, model.hyper_parameters.embedding_dim), np.float32)
    if len(chosen):
        maxlen = model.hyper_parameters.maxlen
        vectors = encode_histories(encoder, model.vocabulary, histories.take(chosen), maxlen, BATCH_USERS)
    vectors = vectors[np.any(vectors, axis=(1, 2))]
    if len(vectors) < MIN_USERS:
        raise TuningError(
            f"model {model.model_version} knows an item of {len(usable):,} of {len(histories):,} histories and has "
            f"{len(vectors)} to measure with, {MIN_USERS} are the least; does the file belong to the model?"
        )
    bucket = buckets(len(weights.item_id))
    matching = {"": np.arange(len(bucket))} | {
        f: np.flatnonzero(bucket < share * BUCKETS) for f, share in FILTERS.items()
    }
    wanted = {f: min(RECALL_AT, len(rows)) for f, rows in matching.items() if len(rows)}
    step = max(1, _BLOCK // len(bucket))
    nearest, cuts = [], []
    for start in range(0, len(vectors), step):
        on_progress("exact", start, len(vectors))
        block, cut = _exact(vectors[start : start + step], weights.item_embedding, matching, wanted)
        nearest.append(block)
        cuts.append(cut)
    rounding = (
        _ROUNDING * np.linalg.norm(vectors, axis=2).max(axis=1) * np.linalg.norm(weights.item_embedding, axis=1).max()
    )
    cut = {f: np.concatenate([block[f] for block in cuts]) - rounding for f in wanted}
    return Workload(vectors, model.vocabulary, weights.item_embedding, np.concatenate(nearest), cut, wanted)


def buckets(items: int) -> Int64:
    """The attribute `BUCKET`, [N] int64: which items a filter leaves has nothing to do with their vectors."""
    return np.random.default_rng(0).permutation(items).astype(np.int64) % BUCKETS


def exact_recall(workload: Workload, cosine: float) -> tuple[float, float]:
    """Recall of a search that misses nothing but what `interest_cosine` does not look for, and searches per user."""
    leads = leading(workload.vectors, cosine)
    shares = [workload.share(user, np.unique(workload.nearest[user, own])) for user, own in enumerate(leads)]
    return float(np.mean(shares)), float(leads.sum()) / len(leads)


def limit_of(cosine: float) -> int:
    """Hits that are fetched for a search."""
    return RECALL_AT * (OVERSEARCH if cosine < 1 else 1)


def measure(store: Store, name: str, workload: Workload, index: Index, seconds: float) -> Measured:
    """Search a loaded collection for all users, then again and again for some time to see how fast that is.

    Raises:
        StoreError: Milvus refuses the parameters.
    """
    recall = recall_of(store, name, workload, index)
    passes, started = 0, time.perf_counter()
    while not passes or time.perf_counter() - started < seconds:
        _search_all(store, name, workload, index, "")
        passes += 1
    took = time.perf_counter() - started
    users = len(workload.vectors)
    searches = float(leading(workload.vectors, index.interest_cosine).sum()) / users
    return Measured(index, searches, recall, passes * users / took)


def recall_of(store: Store, name: str, workload: Workload, index: Index, filter_: str = "") -> float:
    """Mean share of the users' exact merged best 50 in the merged lists that a loaded collection gives.

    Raises:
        StoreError: Milvus refuses the parameters.
    """
    shares = []
    for users, hits in _search_all(store, name, workload, index, filter_):
        rows = workload.vocabulary.item_index(hits.item_ids)
        interests = np.any(workload.vectors[users], axis=2).sum(axis=1)
        ends = np.append(0, np.cumsum(hits.lengths))[np.append(0, np.cumsum(interests))]  # of each user
        for user, (start, end) in enumerate(pairwise(ends.tolist()), users.start):
            shares.append(workload.share(user, _merged(rows[start:end], hits.scores[start:end]), filter_))
    return float(np.mean(shares))


def _search_all(store: Store, name: str, workload: Workload, index: Index, filter_: str) -> list[tuple[slice, Hits]]:
    """What all interests of the users find, searched in batches of users, `IN_FLIGHT` at a time."""
    ends = [*range(0, len(workload.vectors), BATCH_USERS), len(workload.vectors)]
    batches = [slice(start, end) for start, end in pairwise(ends)]
    pool = ThreadPoolExecutor(IN_FLIGHT)
    try:
        found = pool.map(lambda batch: _search(store, name, workload, index, workload.vectors[batch], filter_), batches)
        return list(zip(batches, found, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _exact(
    vectors: Float32, item_embedding: Float32, matching: dict[str, Int64], wanted: dict[str, int]
) -> tuple[Int64, dict[str, Float32]]:
    """`Workload.nearest` and `Workload.cut` of some users."""
    items = item_embedding[1:].T
    limit = min(limit_of(0), items.shape[1])
    nearest = []
    best = np.full((len(vectors), items.shape[1]), -np.inf, np.float32)  # [B, N]
    for interest in range(vectors.shape[1]):
        scores = vectors[:, interest] @ items  # [B, N]
        nearest.append(np.argpartition(scores, -limit, axis=1)[:, -limit:] + 1)
        np.maximum(best, scores, out=best, where=np.any(vectors[:, interest], axis=1)[:, None])
    cut = {f: np.partition(best[:, matching[f]], -n, axis=1)[:, -n] for f, n in wanted.items()}
    return np.stack(nearest, axis=1), cut


def _search(store: Store, name: str, workload: Workload, index: Index, vectors: Float32, filter_: str) -> Hits:
    """What the interests that are not zero, [B, K, D], find: as a server has it before it merges."""
    leads = leading(vectors, index.interest_cosine)
    params = (filter_ and index.filter_search_params) or index.search_params
    hits = store.search_columns(name, vectors[leads], limit_of(index.interest_cosine), params, filter_)
    if index.interest_cosine >= 1:
        return hits
    known = workload.vocabulary, workload.item_embedding
    return as_if_each_searched(hits, leads, vectors, *known, RECALL_AT)


def _merged(rows: Int64, scores: Float32) -> Int64:
    """The distinct rows of the best `RECALL_AT` scores."""
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(rows[order], return_index=True)
    merged: Int64 = rows[order][np.sort(first)[:RECALL_AT]]
    return merged

"""Measures the recall and the speed of an index for histories of real users.

Recall compares the merged best 50 of each user with an exact search. The searches are like those of the server
(`mind.interests`), with several batches in flight. Which index to try is the task of `indexer.tuning.tune`.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.build import Index
from indexer.errors import TuningError
from indexer.progress import Progress
from indexer.verify import BLOCK, RECALL_AT, ROUNDING
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

Float64 = npt.NDArray[np.float64]

MIN_USERS = 20
"""Minimum number of users to measure with."""
BATCH_USERS = 64
"""Number of users in one batch of searches."""
IN_FLIGHT = 2
"""Number of batches in flight at the same time."""


@dataclass(frozen=True)
class Workload:
    """The interest vectors of U users, and the results of an exact search for them."""

    vectors: Float32
    """[U, K, D] float32; every user has at least one vector that is not zero."""
    vocabulary: Vocabulary
    """The vocabulary of the N items."""
    item_embedding: Float32
    """[N + 1, D] float32; row 0 is padding."""
    nearest: Int64
    """[U, K, P] int64, the rows nearest to each interest, in no order."""
    cut: Float32
    """[U] float32, the lowest score in the user's exact merged best 50."""
    wanted: int
    """The length of the user's exact list: 50, or the number of items if there are fewer."""

    def share(self, user: int, rows: Int64) -> float:
        """Return the share of a user's exact list that distinct rows make up.

        A row with an equal score counts as equal.
        """
        interests = self.vectors[user][np.any(self.vectors[user], axis=1)]
        scores = np.max(interests @ self.item_embedding[rows].T, axis=0)
        return min(1.0, float((scores >= self.cut[user]).sum()) / self.wanted)


@dataclass(frozen=True)
class Measured:
    """The measured recall and speed of an index."""

    index: Index
    searches: float
    """Mean number of searches per user."""
    recall: float
    """Mean share of a user's exact best 50 that is in the merged list."""
    users_per_s: float
    """Throughput in users per second."""


def read_histories(path: Path) -> Sequences:
    """Read the histories of an evaluation file, or all interactions of each user of a training file.

    Raises:
        DataError: the file is neither an evaluation file nor a training file.
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
    """Encode histories and search for them exactly. The histories are chosen evenly from those with a known item.

    Raises:
        TuningError: too few histories have a known item.
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
            f"model {model.model_version} knows an item in {len(usable):,} of {len(histories):,} histories, which "
            f"leaves {len(vectors)} users to measure with; the minimum is {MIN_USERS}. "
            "Check that --histories holds ids of the items that the model was trained with"
        )
    return searched_exactly(model, vectors, on_progress)


def searched_exactly(model: Artifact, vectors: Float32, on_progress: Progress) -> Workload:
    """Search exactly for the interest vectors of users, [U, K, D] float32.

    Each user must have a vector that is not zero.
    """
    weights = model.weights
    wanted = min(RECALL_AT, len(weights.item_id))
    step = max(1, BLOCK // len(weights.item_id))
    nearest, cuts = [], []
    for start in range(0, len(vectors), step):
        on_progress("exact", start, len(vectors))
        block, cut = _exact(vectors[start : start + step], weights.item_embedding, wanted)
        nearest.append(block)
        cuts.append(cut)
    items = weights.item_embedding
    longest = np.sqrt(np.einsum("nd,nd->n", items, items).max())  # without a copy of the table
    rounding = ROUNDING * longest * np.linalg.norm(vectors, axis=2).max(axis=1)
    cut = np.concatenate(cuts) - rounding
    return Workload(vectors, model.vocabulary, weights.item_embedding, np.concatenate(nearest), cut, wanted)


def exact_recall(workload: Workload, cosine: float) -> tuple[Float64, float]:
    """Measure exact searches with an `interest_cosine`.

    Returns:
        [U] float64, the share of each user's exact list that is found, and the mean number of searches per user.
    """
    leads = leading(workload.vectors, cosine)
    shares = [workload.share(user, np.unique(workload.nearest[user, own])) for user, own in enumerate(leads)]
    return np.array(shares, np.float64), float(leads.sum()) / len(leads)


def limit_of(cosine: float) -> int:
    """Return the number of hits that each search asks for."""
    return RECALL_AT * (OVERSEARCH if cosine < 1 else 1)


def measure(store: Store, name: str, workload: Workload, index: Index, seconds: float) -> Measured:
    """Measure recall by searching a loaded collection for all users, and speed by repeating that for some seconds.

    Raises:
        StoreError: Milvus refuses the parameters.
    """
    recall = recall_of(store, name, workload, index)
    passes, started = 0, time.perf_counter()
    while not passes or time.perf_counter() - started < seconds:
        _search_all(store, name, workload, index)
        passes += 1
    took = time.perf_counter() - started
    users = len(workload.vectors)
    searches = float(leading(workload.vectors, index.interest_cosine).sum()) / users
    return Measured(index, searches, recall, passes * users / took)


def recall_of(store: Store, name: str, workload: Workload, index: Index) -> float:
    """Measure which share of the users' exact merged best 50 is in the merged lists of a loaded collection.

    Raises:
        StoreError: Milvus refuses the parameters.
    """
    shares = []
    for users, hits in _search_all(store, name, workload, index):
        rows = workload.vocabulary.item_index(hits.item_ids)
        interests = np.any(workload.vectors[users], axis=2).sum(axis=1)
        ends = np.append(0, np.cumsum(hits.lengths))[np.append(0, np.cumsum(interests))]  # of each user
        for user, (start, end) in enumerate(pairwise(ends.tolist()), users.start):
            shares.append(workload.share(user, _merged(rows[start:end], hits.scores[start:end])))
    return float(np.mean(shares))


def _search_all(store: Store, name: str, workload: Workload, index: Index) -> list[tuple[slice, Hits]]:
    """Search for all interests of all users, in batches of users, `IN_FLIGHT` batches at a time."""
    ends = [*range(0, len(workload.vectors), BATCH_USERS), len(workload.vectors)]
    batches = [slice(start, end) for start, end in pairwise(ends)]
    pool = ThreadPoolExecutor(IN_FLIGHT)
    try:
        found = pool.map(lambda batch: _search(store, name, workload, index, workload.vectors[batch]), batches)
        return list(zip(batches, found, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _exact(vectors: Float32, item_embedding: Float32, wanted: int) -> tuple[Int64, Float32]:
    """Compute `Workload.nearest` and `Workload.cut` for some users."""
    items = item_embedding[1:].T
    limit = min(limit_of(0), items.shape[1])
    nearest = []
    best = np.full((len(vectors), items.shape[1]), -np.inf, np.float32)  # [B, N]
    for interest in range(vectors.shape[1]):
        scores = vectors[:, interest] @ items  # [B, N]
        nearest.append(np.argpartition(scores, -limit, axis=1)[:, -limit:] + 1)
        np.maximum(best, scores, out=best, where=np.any(vectors[:, interest], axis=1)[:, None])
    return np.stack(nearest, axis=1), np.partition(best, -wanted, axis=1)[:, -wanted]


def _search(store: Store, name: str, workload: Workload, index: Index, vectors: Float32) -> Hits:
    """Search for the interests that are not zero, [B, K, D]. The hits are those that a server merges."""
    leads = leading(vectors, index.interest_cosine)
    hits = store.search_columns(name, vectors[leads], limit_of(index.interest_cosine), index.search_params)
    if index.interest_cosine >= 1:
        return hits
    return as_if_each_searched(hits, leads, vectors, workload.vocabulary, workload.item_embedding, RECALL_AT)


def _merged(rows: Int64, scores: Float32) -> Int64:
    """Return the distinct rows with the best `RECALL_AT` scores."""
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(rows[order], return_index=True)
    merged: Int64 = rows[order][np.sort(first)[:RECALL_AT]]
    return merged

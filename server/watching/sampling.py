"""Measures while serving how much the index finds: compares one user's hits with an exact search now and then.

A thread of its own computes the samples. A sample that comes while another is computed is dropped, and one that fails
is logged, so that requests never wait for samples nor fail because of them.
"""

import logging
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.nearest import Rows
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

CHUNK_ROWS = 16_384
"""Rows of the item table that are scored at a time: 4 MB at 64 numbers a row."""


class RecallSampling:
    """Compares the candidates of sampled users with the exact ones."""

    def __init__(self, rate: float, count: Callable[[float], None]) -> None:
        """`rate`: share of batches of which one user is sampled; `count`: called with the recall, on another thread."""
        self._rate = rate
        self._count = count
        self._random = random.Random()
        self._thread = ThreadPoolExecutor(1, "sample")
        self._busy = threading.Lock()

    def offer(
        self,
        vectors: Float32,
        user: Int64,
        hits: Hits,
        top_k: Int64,
        vocabulary: Vocabulary,
        item_embedding: Float32,
        among: Sequence[Rows] = (),
    ) -> None:
        """Sample one user of a batch, at random and unless a sample is in progress.

        Args:
            vectors: [Q, D] float32, the searched interests of all users.
            user: [Q] int64, ascending, the user of each interest.
            hits: the hits of every interest.
            top_k: [B] int64, candidates wanted for each user.
            vocabulary: of the model.
            item_embedding: [N + 1, D] float32, row 0 padding.
            among: for each user, the rows of items that match the filter; empty without filters.
        """
        if self._random.random() >= self._rate or not len(user) or not self._busy.acquire(blocking=False):
            return
        chosen = int(user[self._random.randrange(len(user))])
        own = np.flatnonzero(user == chosen)
        ends = np.cumsum(hits.lengths)
        found = slice(int(ends[own[0]] - hits.lengths[own[0]]), int(ends[own[-1]]))
        known = vocabulary, item_embedding, among[chosen] if among else None
        sample = vectors[own], hits.item_ids[found], hits.scores[found], int(top_k[chosen]), *known
        self._thread.submit(self._compare, *sample)

    def wait(self) -> None:
        """Return when no sample is in progress."""
        with self._busy:
            pass

    def close(self) -> None:
        """Return when no sample is in progress, and take no more samples."""
        self._busy.acquire()
        self._thread.shutdown()

    def _compare(self, *sample: object) -> None:
        try:
            self._count(recall(*sample))  # type: ignore[arg-type]
        except Exception:
            logger.exception("a sample of recall failed")
        finally:
            self._busy.release()


def recall(
    vectors: Float32,
    item_ids: Int64,
    scores: Float32,
    top_k: int,
    vocabulary: Vocabulary,
    item_embedding: Float32,
    among: Rows | None = None,
) -> float:
    """Share of a user's exact best items that are among the best of the hits.

    An item's score is its best over the interests. Items as good as the last of the exact ones count as found,
    whichever of them the index gave.

    Args:
        vectors: [K, D] float32, the user's interests.
        item_ids: [H] int64, the hits of all of them.
        scores: [H] float32, as the index gave them.
        top_k: how many items are compared, fewer if the table has fewer.
        vocabulary: of the model.
        item_embedding: [N + 1, D] float32, row 0 padding.
        among: the rows of the items that could be found; None if all could.
    """
    among = np.arange(1, len(item_embedding), dtype=np.int32) if among is None else among
    ranked = item_ids[np.argsort(-scores, kind="stable")]
    best = ranked[np.sort(np.unique(ranked, return_index=True)[1])][:top_k]
    rows = vocabulary.item_index(best)
    wanted = min(top_k - int((rows == 0).sum()), len(among))  # items that were added since take places
    if wanted < 1:
        return 1.0
    own = (item_embedding[rows[rows > 0]] @ vectors.T).max(axis=1)
    last = worst_of_best(vectors, item_embedding, among, wanted)
    return float((own >= last - 1e-5 * abs(last)).sum() / wanted)


def worst_of_best(vectors: Float32, item_embedding: Float32, among: Rows, wanted: int) -> float:
    """The score of the item at place `wanted` of an exact search among some rows, a chunk of them at a time."""
    best = np.full(wanted, -np.inf, np.float32)
    for start in range(0, len(among), CHUNK_ROWS):
        score = (item_embedding[among[start : start + CHUNK_ROWS]] @ vectors.T).max(axis=1)
        score = np.concatenate([best, score[score > best[0]]])
        best = np.partition(score, len(score) - wanted)[-wanted:]
    return float(best[0])

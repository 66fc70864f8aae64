"""Measures the recall of the index while serving: compares the hits of a sampled user with an exact search.

A separate thread computes the samples. A sample that arrives during another one is dropped, and a failed sample is
logged, so samples never delay or fail requests.
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
"""Number of rows of the item table that are scored at a time: 4 MB at 64 numbers per row."""


class RecallSampling:
    """Compares the candidates of sampled users with the exact candidates."""

    def __init__(self, rate: float, count: Callable[[float, str], None]) -> None:
        """Prepare the samples of users.

        `rate`: the share of batches with a sampled user; `count`: called with the recall and
        the channel, on another thread.
        """
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
        channel: str = "",
    ) -> None:
        """Sample a random user of a batch, unless a sample is in progress.

        Args:
            vectors: [Q, D] float32, the searched interests of all users.
            user: [Q] int64, ascending, the user of each interest.
            hits: the hits of every interest.
            top_k: [B] int64, the number of candidates for each user.
            vocabulary: the vocabulary of the model.
            item_embedding: [N + 1, D] float32; row 0 is padding.
            among: for each user, the rows of the items that match the filter; empty without filters.
            channel: the channel of the batch; of its first request if another channel has the same release.
        """
        if self._random.random() >= self._rate or not len(user) or not self._busy.acquire(blocking=False):
            return
        chosen = int(user[self._random.randrange(len(user))])
        own = np.flatnonzero(user == chosen)
        ends = np.cumsum(hits.lengths)
        found = slice(int(ends[own[0]] - hits.lengths[own[0]]), int(ends[own[-1]]))
        known = vocabulary, item_embedding, among[chosen] if among else None
        sample = vectors[own], hits.item_ids[found], hits.scores[found], int(top_k[chosen]), *known
        self._thread.submit(self._compare, channel, *sample)

    def wait(self) -> None:
        """Wait until no sample is in progress."""
        with self._busy:
            pass

    def close(self) -> None:
        """Wait until no sample is in progress, and accept no more samples."""
        self._busy.acquire()
        self._thread.shutdown()

    def _compare(self, channel: str, *sample: object) -> None:
        try:
            self._count(recall(*sample), channel)  # type: ignore[arg-type]
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
    """Return the share of a user's exact best items that are among the best of the hits.

    The score of an item is its best over the interests. All items with the score of the last exact one count as found,
    whichever of them the index returned.

    Args:
        vectors: [K, D] float32, the user's interests.
        item_ids: [H] int64, the hits of all interests.
        scores: [H] float32, the scores that the index returned.
        top_k: the number of items to compare, or fewer if the table has fewer.
        vocabulary: the vocabulary of the model.
        item_embedding: [N + 1, D] float32; row 0 is padding.
        among: the rows of the items that could be found; None for all rows.
    """
    among = np.arange(1, len(item_embedding), dtype=np.int32) if among is None else among
    ranked = item_ids[np.argsort(-scores, kind="stable")]
    best = ranked[np.sort(np.unique(ranked, return_index=True)[1])][:top_k]
    rows = vocabulary.item_index(best)
    wanted = min(top_k - int((rows == 0).sum()), len(among))  # items that were added later take places
    if wanted < 1:
        return 1.0
    own = (item_embedding[rows[rows > 0]] @ vectors.T).max(axis=1)
    last = worst_of_best(vectors, item_embedding, among, wanted)
    return float((own >= last - 1e-5 * abs(last)).sum() / wanted)


def worst_of_best(vectors: Float32, item_embedding: Float32, among: Rows, wanted: int) -> float:
    """Return the score at place `wanted` of an exact search among some rows, computed in chunks of rows."""
    best = np.full(wanted, -np.inf, np.float32)
    for start in range(0, len(among), CHUNK_ROWS):
        score = (item_embedding[among[start : start + CHUNK_ROWS]] @ vectors.T).max(axis=1)
        score = np.concatenate([best, score[score > best[0]]])
        best = np.partition(score, len(score) - wanted)[-wanted:]
    return float(best[0])

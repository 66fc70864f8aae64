"""Recall of sampled users against an exact search, and that sampling holds nobody up."""

import asyncio
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Float32
from mind.evaluation.retrieval import nearest_items
from mind.hits import Hits
from mind.vocabulary import Vocabulary
from protos.recall.v1 import recall_pb2
from server.instrumentation import make_metrics
from server.watching import sampling
from server.watching.sampling import RecallSampling, recall, worst_of_best
from server.watching.telemetry import Telemetry
from tests.server.test_server import USER
from tests.watched_server import watched

VOCABULARY = Vocabulary(np.array([10, 20, 30, 40, 50]))
TABLE = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [0, 4], [0, 5]], np.float32)  # row 0 is padding
INTERESTS = np.array([[1, 0], [0, 1]], np.float32)  # so the best are 50 (5), 40 (4), 30 (3), 20 (2), 10 (1)


@pytest.mark.parametrize(
    ("item_ids", "scores", "top_k", "expected"),
    [
        ([30, 20, 50, 40], [3, 2, 5, 4], 3, 1),  # 50, 40, 30
        ([20, 10, 50, 40], [2, 1, 5, 4], 3, 2 / 3),  # 30 is missed, 20 takes its place
        ([30, 30, 50, 40], [3, 1, 5, 4], 3, 1),  # one item for two interests
        ([50], [5], 4, 1 / 4),
        ([50, 40, 30, 20, 10], [5, 4, 3, 2, 1], 9, 1),  # no more than there are
        ([], [], 2, 0),
    ],
)
def test_recall(item_ids: list[int], scores: list[float], top_k: int, expected: float) -> None:
    found = np.array(item_ids, np.int64), np.array(scores, np.float32)
    assert recall(INTERESTS, *found, top_k, VOCABULARY, TABLE) == pytest.approx(expected)


def test_of_equal_items_any_counts() -> None:
    table = np.array([[0, 0], [1, 0], [1, 0], [1, 0], [0, 0], [0, 0]], np.float32)
    found = np.array([20], np.int64), np.array([1], np.float32)
    assert recall(INTERESTS[:1], *found, 1, VOCABULARY, table) == 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(101, 8)).astype(np.float32)
    vectors = rng.normal(size=(4, 8)).astype(np.float32)
    monkeypatch.setattr(sampling, "CHUNK_ROWS", 7)
    for wanted in (1, 20, 100):
        row = nearest_items(vectors[None], table, wanted)[0, -1]
        rows = np.arange(1, 101, dtype=np.int32)
        assert worst_of_best(vectors, table, rows, wanted) == pytest.approx((vectors @ table[row]).max(), rel=1e-6)


def test_with_a_filter_the_exact_best_are_among_the_items_that_match() -> None:
    among = np.array([1, 2, 4], np.int32)  # 10, 20 and 40
    best, scores = np.array([40, 20, 10]), np.array([4, 2, 1], np.float32)
    for found, top_k, expected in ((3, 2, 1), (3, 9, 1), (1, 2, 1 / 2), (2, 9, 2 / 3)):
        assert recall(INTERESTS, best[:found], scores[:found], top_k, VOCABULARY, TABLE, among) == expected
    added = np.array([99, 40]), np.array([9, 4], np.float32)
    assert recall(INTERESTS, *added, 9, VOCABULARY, TABLE, among[2:]) == 1


def offer(sampler: RecallSampling, table: Float32 = TABLE) -> None:
    """A batch of two users: the first has both interests, the second one of them; all that is best was found."""
    hits = Hits(np.array([30, 20, 50, 40, 50, 40]), np.array([3, 2, 5, 4, 5, 4], np.float32), np.array([2, 2, 2]))
    sampler.offer(INTERESTS[[0, 1, 1]], np.array([0, 0, 1]), hits, np.array([2, 2]), VOCABULARY, table)


def test_a_user_of_a_batch_is_compared() -> None:
    counted: list[float] = []
    sampler = RecallSampling(1, lambda found, _: counted.append(found))
    for _ in range(20):
        offer(sampler)
    sampler.close()
    assert counted and set(counted) == {1}


def test_items_added_since_the_training_do_not_count_against_the_index() -> None:
    item_ids, scores = np.array([99, 50, 40]), np.array([9, 5, 4], np.float32)
    assert recall(INTERESTS, item_ids, scores, 3, VOCABULARY, TABLE) == 1
    assert recall(INTERESTS, item_ids[:1], scores[:1], 1, VOCABULARY, TABLE) == 1


def test_what_comes_while_one_is_computed_is_dropped() -> None:
    started, go_on, counted = threading.Event(), threading.Event(), []

    def count(found: float, channel: str) -> None:
        started.set()
        assert go_on.wait(10)
        counted.append(found)

    sampler = RecallSampling(1, count)
    offer(sampler)
    assert started.wait(10)
    offer(sampler)
    offer(sampler)
    go_on.set()
    sampler.close()
    offer(sampler)  # of a batch that outlived the server
    assert counted == [1]


def test_a_sample_that_fails_is_logged_and_the_next_one_counts(caplog: pytest.LogCaptureFixture) -> None:
    done, counted = threading.Semaphore(0), []

    def count(found: float, channel: str) -> None:
        counted.append(found)
        done.release()
        if len(counted) == 1:
            raise ZeroDivisionError("odd")

    sampler = RecallSampling(1, count)
    for _ in range(2):
        offer(sampler)
        assert done.acquire(timeout=10)
        sampler.wait()
    sampler.close()
    assert counted == [1, 1]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_rate_zero_samples_nothing() -> None:
    counted: list[float] = []
    sampler = RecallSampling(0, lambda found, _: counted.append(found))
    offer(sampler)
    sampler.close()
    assert not counted


async def test_the_server_counts_what_its_index_misses(tmp_path: Path) -> None:
    metrics = make_metrics()
    sampler = RecallSampling(1, metrics.count_recall)
    async with watched(tmp_path, Telemetry(metrics, sampling=sampler)) as server:

        async def sampled(**ask: object) -> tuple[float, float]:
            """Samples and their sum, after one more request."""
            await server.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=200, **ask))
            await asyncio.to_thread(sampler.wait)
            names = (f"recall_sampled_recall_ratio_{kind}" for kind in ("count", "sum"))
            return tuple(metrics.registry.get_sample_value(name, {"channel": "live"}) for name in names)

        assert await sampled() == (1, 1)
        assert await sampled(filter="item_id < 1070") == (2, 2)
        there = server.store.collections[server.collection]
        there.item_ids, there.vectors = there.item_ids[:150], there.vectors[:150]  # of 200
        assert await sampled() == (3, pytest.approx(2 + 150 / 200))

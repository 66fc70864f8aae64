"""What the hooks for metrics and traces cost by themselves, without a server, Milvus or neighbours."""

import time
from typing import Any

import numpy as np

from mind.artifact import Float32
from mind.vocabulary import Vocabulary
from protos.recall.v1 import recall_pb2
from server.edge.calls import Calls
from server.watching.sampling import recall
from server.watching.telemetry import CALL_SPAN, Telemetry

CALLS, ROUNDS, BATCH = 3_200, 15, 32
"""Calls of a round, and how many share a batch, as they do under load."""

_USER = recall_pb2.User(hist_item=range(12))
_REQUEST, _ANSWER = recall_pb2.RecallRequest(users=[_USER], top_k=50), recall_pb2.RecallResponse()
_HISTORY, _NOTHING = np.arange(12), np.zeros(0, np.int64)


class _Context:
    """As much of a gRPC context as the hooks look at."""

    def invocation_metadata(self) -> Any:
        """What gRPC for Python sends."""
        return (("user-agent", "grpc-python-asyncio/1.80.0 grpc-c/50.0.0 (linux; chttp2)"),)


def microseconds(telemetry: Telemetry) -> float:
    """For one call of one user: the fastest round, which neighbours disturbed least."""
    calls, context = Calls(telemetry, access_log=False), _Context()
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS // BATCH):
            _batch(calls, context, telemetry)
        spent.append(time.perf_counter() - started)
    return min(spent) / CALLS * 1e6


def sample_microseconds(item_embedding: Float32) -> float:
    """For one comparison with an exact search, in [N + 1, D] float32 items: the fastest of a few."""
    vocabulary = Vocabulary(np.arange(len(item_embedding) - 1))
    vectors, found = item_embedding[1:5], (vocabulary.item_id[:50], np.ones(50, np.float32))
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        recall(vectors, *found, 50, vocabulary, item_embedding)
        spent.append(time.perf_counter() - started)
    return min(spent) * 1e6


def _batch(calls: Calls, context: Any, telemetry: Telemetry) -> None:
    begun, spans = [], []
    for _ in range(BATCH):
        begun.append(calls.begin("recall.v1.RecallService.Recall", context))
        begun[-1].received(_REQUEST)
        spans.append(CALL_SPAN.get())
    arrived = [time.perf_counter()] * BATCH
    with telemetry.batch(spans, arrived, BATCH, "0123456789ab", "items_0123456789ab_01234567") as watched:
        watched.enter("search")
        watched.enter("merge")
        statuses = [("OK", BATCH), ("EMPTY_HISTORY", 0), ("ALL_UNKNOWN", 0), ("INVALID", 0)]
        watched.searched("milvus", BATCH)
        telemetry.answered(statuses, [_HISTORY] * BATCH, [_NOTHING] * BATCH)
    for call in begun:
        call.done(_ANSWER)

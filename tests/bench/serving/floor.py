"""The floor: encode and search in a loop that does nothing else, no RPC, no merge, nobody waiting.

    Worker("tests.bench.serving.floor", DIRECTORY, ARTIFACT, MILVUS_URI, COLLECTION)

No service on this machine and this Milvus can be faster with the same vectors and the same index.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import MilvusClient
from pymilvus.client.prepare import Prepare

from mind.artifact import load_artifact
from mind.encoder import NumpyEncoder
from mind.milvus import internals
from mind.milvus.collection import EMBEDDING, METRIC
from tests.bench.serving.article import merge
from tests.bench.serving.world import SEARCH_PARAMS, TOP_K, answer_lines, pad_histories, read_histories, watching


class Floor:
    """Answers questions; see `answer`."""

    def __init__(self, directory: Path, artifact: Path, milvus_uri: str, collection: str) -> None:
        """Load the model, connect to Milvus, pad the histories."""
        model = load_artifact(artifact)
        histories = read_histories(directory)
        self._encoder = NumpyEncoder(model.weights, model.hyper_parameters)
        self._hist_index, self._seq_len = pad_histories(model.vocabulary, histories, len(histories))
        self._collection = collection
        client = MilvusClient(milvus_uri)
        self._stub, self._metadata = internals.stub(client), internals.metadata(client)  # which names the database

    def answer(self, question: dict[str, Any]) -> Any:
        """Search for batches of users.

        Args:
            question: with `check`, the number of users whose candidates are wanted; or else `users` of a batch,
                `in_flight` batches at a time, `seconds`, and `watch`, processes whose processor time is wanted.

        Returns:
            The candidates, or `users_per_s`, `p50_ms`, `p95_ms`, `p99_ms` of a batch, `watched_cpu_s` and `seconds`.
        """
        if users := question.get("check"):
            return self._candidates(users)
        size, in_flight, seconds = question["users"], question["in_flight"], question["seconds"]
        end = time.perf_counter() + seconds

        def loop(turn: int) -> list[float]:
            took = []
            while (started := time.perf_counter()) < end:
                self._search(turn * size % (len(self._seq_len) - size), size)
                turn += in_flight
                took.append(time.perf_counter() - started)
            return took

        started = time.perf_counter()
        with ThreadPoolExecutor(in_flight) as threads, watching(question["watch"]) as watched_cpu_s:
            latency_s = np.concatenate(list(threads.map(loop, range(in_flight))))
        spent = time.perf_counter() - started
        p50, p95, p99 = (np.percentile(latency_s, [50, 95, 99]) * 1000).tolist()
        rate = len(latency_s) * size / spent
        times = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "seconds": spent}
        return {"users_per_s": rate, **times, "watched_cpu_s": watched_cpu_s}

    def _search(self, start: int, users: int) -> tuple[Any, Any, Any]:
        """Columns of ids and scores, and hits of each query."""
        rows = slice(start, start + users)
        vectors = self._encoder.encode(self._hist_index[rows], self._seq_len[rows])
        request = Prepare.search_requests_with_expr(
            self._collection,
            anns_field=EMBEDDING,
            param={"metric_type": METRIC, "params": SEARCH_PARAMS},
            limit=TOP_K,
            data=vectors.reshape(-1, vectors.shape[-1]),
            consistency_level=2,
        )
        answer = self._stub.Search(request, timeout=30, metadata=self._metadata)
        if answer.status.code or answer.status.error_code:
            raise RuntimeError(f"Milvus refused the search: {answer.status.reason}")
        found = answer.results
        return np.array(found.ids.int_id.data), np.array(found.scores), np.array(found.topks)

    def _candidates(self, users: int) -> list[list[int]]:
        lists = []
        for user in range(users):
            item_ids, scores, lengths = self._search(user, 1)
            hits = [{"id": i, "distance": s} for i, s in zip(item_ids.tolist(), scores.tolist(), strict=True)]
            ends = np.cumsum(lengths)
            parts = [hits[end - length : end] for end, length in zip(ends, lengths, strict=True)]
            lists.append([item_id for item_id, _ in merge(parts, TOP_K)])
        return lists


if __name__ == "__main__":
    answer_lines(Floor(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]).answer)

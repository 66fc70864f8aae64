"""The article's stack, as a competent user writes it: FastAPI, the Paddle network, MilvusClient, a dictionary.

    python -m tests.bench.serving.article ARTIFACT MILVUS_URI PORT

It knows nothing of `server`. Endpoint and body are the article's: POST /rec/recall {"top_k": 50, "hist_item": [[...]]}.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from pymilvus import MilvusClient

from mind.artifact import load_artifact
from mind.milvus.collection import ALIAS, EMBEDDING, METRIC
from mind.paddle_encoder import PaddleEncoder
from tests.bench.serving.world import SEARCH_PARAMS


class RecallBody(BaseModel):
    """What is asked."""

    top_k: int = Field(gt=0, le=1_000)
    hist_item: list[list[int]] = Field(min_length=1, max_length=256)


class Recommender:
    """Histories to candidates, one request at a time."""

    def __init__(self, artifact: Path, milvus_uri: str) -> None:
        """Load the model, connect to Milvus."""
        model = load_artifact(artifact)
        self._row = {item_id: row + 1 for row, item_id in enumerate(model.weights.item_id.tolist())}
        self._maxlen = model.hyper_parameters.maxlen
        self._encoder = PaddleEncoder.from_artifact(model)
        self._encoding = threading.Lock()  # requests run in many threads, the network is not made for that
        self._milvus = MilvusClient(milvus_uri)

    def recall(self, histories: list[list[int]], top_k: int) -> tuple[list[list[int]], list[list[float]]]:
        """Item ids and scores of every user, best first."""
        vectors = self._encode(histories)
        users, interests, dim = vectors.shape
        found = self._milvus.search(
            ALIAS,
            data=vectors.reshape(-1, dim).tolist(),
            anns_field=EMBEDDING,
            limit=top_k,
            search_params={"metric_type": METRIC, "params": SEARCH_PARAMS},
            consistency_level="Bounded",
        )
        item_ids, scores = [], []
        for user in range(users):
            best = merge(found[user * interests : (user + 1) * interests], top_k)
            item_ids.append([item_id for item_id, _ in best])
            scores.append([score for _, score in best])
        return item_ids, scores

    def _encode(self, histories: list[list[int]]) -> Any:
        hist_index = np.zeros((len(histories), self._maxlen), np.int64)
        seq_len = np.zeros(len(histories), np.int64)
        for user, history in enumerate(histories):
            rows = [row for item_id in history if (row := self._row.get(item_id))][-self._maxlen :]
            hist_index[user, : len(rows)] = rows
            seq_len[user] = len(rows)
        with self._encoding:
            return self._encoder.encode(hist_index, seq_len)


def merge(found: Any, top_k: int) -> list[tuple[int, float]]:
    """The best score of every item over a user's interests, the highest first."""
    best: dict[int, float] = {}
    for hits in found:
        for hit in hits:
            item_id, score = hit["id"], hit["distance"]
            if item_id not in best or score > best[item_id]:
                best[item_id] = score
    return sorted(best.items(), key=lambda pair: pair[1], reverse=True)[:top_k]


def make_app(recommender: Recommender) -> FastAPI:
    """The web application."""
    app = FastAPI()

    @app.post("/rec/recall")
    def recall(body: RecallBody) -> JSONResponse:
        item_ids, scores = recommender.recall(body.hist_item, body.top_k)
        return JSONResponse({"item_ids": item_ids, "scores": scores})  # as it is: FastAPI's own encoder is slower

    return app


if __name__ == "__main__":
    app = make_app(Recommender(Path(sys.argv[1]), sys.argv[2]))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), loop="uvloop", http="httptools", log_level="warning")

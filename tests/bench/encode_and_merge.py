"""Our two hot loops against the obvious way of writing them: `python -m tests.bench.encode_and_merge`."""

import numpy as np

from mind.artifact import Artifact
from mind.encoder import NumpyEncoder
from mind.hits import Hits
from mind.paddle_encoder import PaddleEncoder
from server.serving.merge import Exclusions, merge
from server.serving.question import Strategy
from tests.artifacts import hyper_parameters_of, make_weights
from tests.bench.machine import compare, console, describe
from tests.server.test_merge import plain_merge

ITEMS, DIM, INTERESTS, MAXLEN, TOP_K = 100_000, 64, 4, 20, 50


def encode(users: int, rounds: int) -> None:
    """Paddle in dygraph against NumPy, histories of 1 to 20 items."""
    rng = np.random.default_rng(users)
    weights = make_weights(items=ITEMS, dim=DIM, interests=INTERESTS, maxlen=MAXLEN)
    hyper = hyper_parameters_of(weights)
    seq_len = rng.integers(1, MAXLEN + 1, users)
    hist_index = rng.integers(1, ITEMS + 1, (users, MAXLEN)) * (np.arange(MAXLEN) < seq_len[:, None])
    paddle, ours = PaddleEncoder.from_artifact(Artifact("bench", hyper, weights)), NumpyEncoder(weights, hyper)

    def by_paddle() -> object:
        """Paddle network"""
        return paddle.encode(hist_index, seq_len)

    def by_numpy() -> object:
        """NumPy encoder"""
        return ours.encode(hist_index, seq_len)

    console.print(compare("encode histories", users, by_paddle, by_numpy, rounds))


def merge_hits(users: int, rounds: int) -> None:
    """A dictionary a user against sorted columns, four interests with 50 hits each."""
    rng = np.random.default_rng(users)
    item_ids = np.stack([rng.choice(1_000, TOP_K, replace=False) for _ in range(users * INTERESTS)])
    scores = -np.sort(-rng.normal(size=item_ids.shape).astype(np.float32), axis=1)
    hits = Hits(item_ids.ravel(), scores.ravel(), np.full(len(item_ids), TOP_K))
    user, interest = np.divmod(np.arange(len(item_ids)), INTERESTS)
    nothing = Exclusions(*(np.zeros(0, np.int64) for _ in range(3)))

    def plain() -> object:
        """one dictionary a user"""
        lists = {
            u: {k: list(zip(item_ids[u * 4 + k].tolist(), scores[u * 4 + k].tolist(), strict=True)) for k in range(4)}
            for u in range(users)
        }
        return plain_merge(lists, range(users), TOP_K, Strategy.BEST_SCORE, set())

    def columns() -> object:
        """columns, whole batch"""
        return merge(hits, user, interest, np.full(users, TOP_K), np.zeros(users, bool), nothing)

    console.print(compare(f"merge 4 x {TOP_K} hits", users, plain, columns, rounds))


if __name__ == "__main__":
    console.print(describe())
    console.print(f"{ITEMS:,} items x {DIM}, {INTERESTS} interests, newest {MAXLEN} of a history, seeded")
    for users in (1, 64, 256):
        encode(users, 200)
    for users in (1, 64, 256):
        merge_hits(users, 100)

"""Measures two models on the same test users: the candidate for the next release, and the live model.

A user without an item that the model knows gets the popular list, as a service would answer. So both models are
measured on all users, and a model that knows fewer users does not look better. The module draws nothing and writes no
files.
"""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Artifact, Float32
from mind.encoder import NumpyEncoder
from mind.evaluation import analysis, metrics
from mind.evaluation.analysis import Float64, Mean
from mind.evaluation.retrieval import LeftOut, encode_histories, item_ids, knows, nearest_items, top_rows
from mind.joining import cosines, counts
from mind.sequences import EvalCases, Int64

TOP_N = 50
"""The length of the lists."""
SHOWN_ITEMS = 15
"""Number of items of a list and of a history that are shown for an example user."""
_BATCH = 256


@dataclass(frozen=True)
class Side:
    """The figures of one model."""

    model_version: str
    items: int
    recall: Mean
    """The recall@`TOP_N` of the model."""
    ndcg: float
    hit_rate: float
    fallback: float
    """Share of the users who get the popular list because the model knows no item of their history."""
    coverage: float
    """Share of the model's items that are in at least one list."""
    cosine: float
    """Median over users of the mean cosine between two interests of a user; 1 for a user with one interest."""
    interests: float
    """Mean number of interests of the users with an item that the model knows."""


@dataclass(frozen=True)
class Example:
    """An example user. Lists and history hold item ids."""

    user_id: int
    history: list[int]
    """The newest `SHOWN_ITEMS` items of the history, newest first."""
    wanted: list[int]
    """The items that the user clicked afterwards."""
    candidate: list[int]
    live: list[int]


@dataclass(frozen=True)
class Comparison:
    """Both models on the same users; only the candidate if there is no live model."""

    users: int
    candidate: Side
    live: Side | None
    difference: Mean | None
    """The recall@`TOP_N` of the candidate minus that of the live model, for each user."""
    in_common: float | None
    """Mean over users of the share of the candidate's list that is also in the live model's list."""
    new_items: float | None
    """Share of the candidate's items that the live model does not know."""
    examples: list[Example]


def compare(cases: EvalCases, candidate: Artifact, live: Artifact | None, examples: int, seed: int = 0) -> Comparison:
    """Measure both models. Lists leave out items of the history if the candidate was chosen that way.

    Args:
        cases: the test users.
        candidate: the model to release next.
        live: the live model; None if there is none.
        examples: the number of example users.
        seed: the seed for drawing them.
    """
    exclude = bool(candidate.data.get("exclude_history"))
    own, ranked, recall = _side(cases, candidate, exclude)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(cases))[:examples])
    if live is None:
        return Comparison(len(cases), own, None, None, None, None, _examples(cases, drawn, ranked, None))
    other, live_ranked, live_recall = _side(cases, live, exclude)
    return Comparison(
        users=len(cases),
        candidate=own,
        live=other,
        difference=analysis.mean(recall - live_recall),
        in_common=float(np.mean(analysis.in_common(_numbered(ranked, candidate), _numbered(live_ranked, candidate)))),
        new_items=float(np.mean(live.vocabulary.item_index(candidate.weights.item_id) == 0)),
        examples=_examples(cases, drawn, ranked, live_ranked),
    )


def _side(cases: EvalCases, model: Artifact, exclude_history: bool) -> tuple[Side, Int64, Float64]:
    """Return the figures of a model, its lists [U, N], and the recall of each user [U]."""
    weights, hyper = model.weights, model.hyper_parameters
    encoder = NumpyEncoder(weights, hyper)
    vectors = encode_histories(encoder, model.vocabulary, cases.history, hyper.maxlen, _BATCH)
    known = knows(model.vocabulary, cases.history)
    left_out = LeftOut.history(model.vocabulary, cases.history) if exclude_history else None
    rows = nearest_items(vectors, weights.item_embedding, TOP_N, _BATCH, left_out)
    rows[~known] = top_rows(weights.popularity[None, :].astype(np.float32), TOP_N)
    ranked = item_ids(model.vocabulary, rows)
    hit, wanted = analysis.hit_matrix(ranked, cases.target), metrics.distinct_targets(cases.target)
    recall = analysis.user_recall(hit, wanted)
    reached = np.count_nonzero(np.bincount(model.vocabulary.item_index(ranked).ravel())[1:])
    side = Side(
        model_version=model.model_version,
        items=len(model.vocabulary),
        recall=analysis.mean(recall),
        ndcg=metrics.ndcg(hit, wanted),
        hit_rate=metrics.hit_rate(hit),
        fallback=float(np.mean(~known)),
        coverage=float(reached / len(model.vocabulary)),
        cosine=_median_cosine(vectors[known]),
        interests=float(counts(vectors[known]).mean()) if known.any() else 0.0,
    )
    return side, ranked, recall


def _median_cosine(vectors: Float32) -> float:
    """Return the median over users of the mean cosine between two of a user's interests; 1 for one interest."""
    number = counts(vectors)
    pairs = number * (number - 1) / 2
    total = np.triu(cosines(vectors), 1).sum(axis=(1, 2), dtype=np.float64)
    mean = np.where(pairs > 0, total / np.maximum(pairs, 1), 1.0)
    return float(np.median(mean)) if len(mean) else 1.0


def _numbered(ranked: Int64, model: Artifact) -> Int64:
    """Return lists as rows of a model, which are small enough for `in_common`; 0 for items that it does not know."""
    return model.vocabulary.item_index(ranked)


def _examples(cases: EvalCases, users: Int64, ranked: Int64, live: Int64 | None) -> list[Example]:
    def listed(ids: Int64) -> list[int]:
        return [int(item) for item in ids[:SHOWN_ITEMS] if item != -1]

    return [
        Example(
            user_id=int(cases.history.user_id[user]),
            history=listed(cases.history[user][::-1]),
            wanted=sorted(set(cases.target[user].tolist())),
            candidate=listed(ranked[user]),
            live=[] if live is None else listed(live[user]),
        )
        for user in users.tolist()
    ]

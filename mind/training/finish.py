"""Makes the choices after training, on validation users: how much items are smoothed with their neighbours, the bonus
of the neighbours of the newest clicks, and which interests are joined.

These choices are cheap to try, because nothing is trained again. This module knows nothing of files.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from mind.artifact import Artifact, Float32
from mind.config import HyperParameters
from mind.encoder import NumpyEncoder
from mind.evaluation import metrics
from mind.evaluation.metrics import CUTOFFS, SELECTED_BY
from mind.evaluation.retrieval import LeftOut, encode_histories, item_ids, near_histories, nearest_items
from mind.joining import cosines, counts, joined
from mind.neighbours import ItemNeighbours
from mind.sequences import EvalCases
from mind.training.smoothing import smoothed
from mind.vocabulary import Mask
from mind.weights import Weights

SMOOTHINGS = (0.0, 0.2, 0.4, 0.8)
"""Shares of the neighbours' mean that are tried. More than 1 was worse on all data that we measured."""
WORTH = 1.005
"""Smoothing, or a bonus, is chosen if it multiplies the accuracy by this much at least."""
JOIN_COSINES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.5, -1.0)
"""Cosines that are tried for joining interests, from none joined to all. The lowest that costs little is chosen."""
KEPT = 0.99
"""The share of accuracy that joining must keep. The reference is the better of none joined and all joined."""
WITHOUT_USERS = 0.95
"""The cosine that is used without validation users."""
BONUSES = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Bonuses that are tried for neighbours of the newest clicks. They are added to the inner product for a weight of 1."""
MAX_USERS = 2_000
"""Most validation users that are used to choose."""
CLEAR = 1e-4
"""Least distance of golden histories from the chosen cosine, so that rounding cannot change what is joined."""
MIN_GOLDEN = 8
"""Least number of golden histories that stay."""


@dataclass(frozen=True)
class Choices:
    """What was chosen for a model."""

    smoothing: float = 0.0
    """The share of the neighbours' mean that is added to every item (`mind.training.smoothing`)."""
    join_cosine: float = WITHOUT_USERS
    """The cosine from which interests of a user become one (`mind.joining`)."""
    interests: float | None = None
    """Mean number of interests of a validation user; None without validation users."""
    neighbour_bonus: float = 0.0
    """The bonus of neighbours of the newest clicks on their inner product (`mind.neighbours`). With 0 none are used."""
    neighbour_gain: float = 0.0
    """By which share `SELECTED_BY` of validation users is higher with the bonus."""


@dataclass(frozen=True)
class _Served:
    """What validation users find with some interests and the bonus that suits them."""

    bonus: float
    gain: float
    """By which share this is more than without a bonus."""
    accuracy: float
    """The metric `SELECTED_BY` with the bonus."""


class Finish:
    """Tries choices on validation users; `hyper` and `weights` are those of the best epoch."""

    def __init__(
        self,
        hyper: HyperParameters,
        weights: Weights,
        shares: sparse.csr_array,
        neighbours: ItemNeighbours,
        exclude_history: bool,
        batch_size: int,
    ) -> None:
        self._hyper, self._weights, self._shares, self._neighbours = hyper, weights, shares, neighbours
        self._exclude, self._batch = exclude_history, batch_size
        self._vocabulary = Artifact("", hyper, weights).vocabulary

    def choose(self, valid: EvalCases) -> Choices:
        """Choose smoothing for accuracy by `SELECTED_BY`, and the fewest interests that keep `KEPT` of it.

        Each number of interests is compared with the bonus that suits it, because fewer interests are as good with
        neighbours among the candidates. The reference is the better of none joined and all joined. The best of all
        cosines would be a matter of chance, the more so the more are tried.
        """
        users = valid.take(np.unique(np.linspace(0, len(valid) - 1, min(len(valid), MAX_USERS)).astype(np.int64)))
        tables = {much: smoothed(self._weights.item_embedding, self._shares, much) for much in SMOOTHINGS}
        vectors = {much: self._encoded(table, users) for much, table in tables.items()}
        smooth = {much: self._accuracy(vectors[much], table, users) for much, table in tables.items()}
        best = max(smooth, key=lambda much: smooth[much])
        much = best if smooth[best] >= WORTH * smooth[0.0] else 0.0
        cosines = JOIN_COSINES if self._hyper.join_cosine is None else (self._hyper.join_cosine,)
        together = {cosine: joined(vectors[much], cosine) for cosine in cosines}
        found = {cosine: self._with_bonus(together[cosine], tables[much], users) for cosine in cosines}
        needed = KEPT * max(found[cosines[0]].accuracy, found[cosines[-1]].accuracy)
        cosine = min(cosine for cosine in cosines if found[cosine].accuracy >= needed)
        served = found[cosine]
        return Choices(much, cosine, float(counts(together[cosine]).mean()), served.bonus, served.gain)

    def apply(self, choices: Choices) -> Weights:
        """Return the weights with these choices; the golden vectors must be computed again."""
        table = smoothed(self._weights.item_embedding, self._shares, choices.smoothing)
        return replace(
            self._weights,
            item_embedding=table,
            join_cosine=np.array([choices.join_cosine], np.float32),
            neighbour_offsets=self._neighbours.offsets,
            neighbour_row=self._neighbours.row,
            neighbour_weight=self._neighbours.weight,
            neighbour_bonus=np.array([choices.neighbour_bonus], np.float32),
        )

    def measured(self, weights: Weights, valid: EvalCases) -> dict[str, float]:
        """Measure finished weights on the validation users."""
        vectors = joined(self._encoded(weights.item_embedding, valid), weights.joins_from)
        bonus = weights.neighbours.bonus if weights.neighbours else 0.0
        return self._report(vectors, weights.item_embedding, valid, bonus)

    def _with_bonus(self, vectors: Float32, table: Float32, users: EvalCases) -> _Served:
        """Return what is found with the best bonus, unless a bonus is given or none is worth it."""
        given = self._hyper.neighbour_bonus
        tried = BONUSES if given is None else {0.0, given}
        found = {bonus: self._accuracy(vectors, table, users, bonus) for bonus in tried}
        bonus = given
        if bonus is None:
            best = max(found, key=lambda bonus: found[bonus])
            bonus = best if found[best] >= WORTH * found[0.0] else 0.0
        return _Served(bonus, found[bonus] / found[0.0] - 1 if found[0.0] else 0.0, found[bonus])

    def _encoded(self, table: Float32, cases: EvalCases) -> Float32:
        weights = replace(self._weights, item_embedding=table, join_cosine=None)
        encoder = NumpyEncoder(weights, self._hyper)
        return encode_histories(encoder, self._vocabulary, cases.history, self._hyper.maxlen, self._batch)

    def _accuracy(self, vectors: Float32, table: Float32, cases: EvalCases, bonus: float = 0) -> float:
        return self._report(vectors, table, cases, bonus)[SELECTED_BY]

    def _report(self, vectors: Float32, table: Float32, cases: EvalCases, bonus: float = 0) -> dict[str, float]:
        left_out = LeftOut.history(self._vocabulary, cases.history) if self._exclude else None
        clicks = self._vocabulary, cases.history, self._hyper.maxlen
        near = near_histories(self._neighbours, *clicks, bonus) if bonus else None
        rows = nearest_items(vectors, table, max(CUTOFFS), self._batch, left_out, near)
        return metrics.report(item_ids(self._vocabulary, rows), cases.target, CUTOFFS)


def clear_golden(vectors: Float32, cosine: float) -> Mask:
    """Return which golden histories no rounding error could join differently, [G] bool; at least `MIN_GOLDEN` of them.

    Args:
        vectors: [G, K, D] float32, not joined.
        cosine: from which interests are joined.
    """
    pairs = cosines(vectors)[:, *np.triu_indices(vectors.shape[1], 1)]
    apart = np.abs(pairs - cosine).min(axis=1, initial=2)
    kept: Mask = apart > CLEAR
    if kept.sum() < MIN_GOLDEN:
        kept[np.argsort(-apart)[:MIN_GOLDEN]] = True
    return kept

"""What is chosen once a model is trained, on validation users: how far items lean on neighbours, the bonus of the
neighbours of the newest clicks, and what is joined.

All are cheap to try, for nothing is trained again. Knows nothing of files.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from mind.artifact import Artifact, Float32, Weights
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

SMOOTHINGS = (0.0, 0.2, 0.4, 0.8)
"""How much of the neighbours' mean may be added to items; more than 1 hurts everywhere that was measured."""
WORTH = 1.005
"""How many times the accuracy without neighbours must be reached with them."""
JOIN_COSINES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.5, -1.0)
"""Cosines from which interests may be joined, from none to all of them. The lowest that costs little is taken."""
KEPT = 0.99
"""The share of the accuracy, of none joined or of all joined, that must be kept."""
WITHOUT_USERS = 0.95
"""The cosine where no validation users choose."""
BONUSES = (0.0, 1.0, 2.0, 3.0, 4.0)
"""What the neighbours of the newest clicks may get on top of their inner products, for a weight of 1."""
MAX_USERS = 2_000
"""The most validation users that choose."""
CLEAR = 1e-4
"""How far the cosines of golden histories are from the one that joins: rounding must neither join nor part them."""
MIN_GOLDEN = 8
"""Golden histories that stay in any case."""


@dataclass(frozen=True)
class Choices:
    """What was chosen for a model."""

    smoothing: float = 0.0
    """How much of the neighbours' mean is added to every item (`mind.training.smoothing`)."""
    join_cosine: float = WITHOUT_USERS
    """Cosine from which interests of a user become one (`mind.joining`)."""
    interests: float | None = None
    """Mean number of interests of a validation user; None without any."""
    neighbour_bonus: float = 0.0
    """What neighbours of the newest clicks get on top of their inner product (`mind.neighbours`); 0: none are used."""
    neighbour_gain: float = 0.0
    """How many times higher `SELECTED_BY` of validation users is with them, less 1."""


@dataclass(frozen=True)
class _Served:
    """What validation users find with some interests and the bonus that suits them."""

    bonus: float
    gain: float
    """How many times more it finds than no bonus, less 1."""
    accuracy: float
    """`SELECTED_BY` with the bonus."""


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

        Interests are compared each with the bonus that suits them: with neighbours among the candidates, fewer
        interests are as good. The yardstick is the better of none joined and all joined, for the best of all cosines
        owes the more to chance the more are tried.
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
        """The weights with these choices; golden vectors are left to be given anew."""
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
        """The validation metrics of finished weights."""
        vectors = joined(self._encoded(weights.item_embedding, valid), weights.joins_from)
        bonus = weights.neighbours.bonus if weights.neighbours else 0.0
        return self._report(vectors, weights.item_embedding, valid, bonus)

    def _with_bonus(self, vectors: Float32, table: Float32, users: EvalCases) -> _Served:
        """What is found with the bonus that finds most, unless it is given or none is worth it."""
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
    """The golden histories whose interests no rounding could join or part, [G] bool; at least `MIN_GOLDEN`.

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

"""EASE, a linear model of items in closed form: a strong baseline that trains in seconds.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (arXiv 1905.03375). Newer items of a history
count more here, as in the other baselines. Validation users choose the regularisation and the weight of older items.
This module knows nothing of the command line.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from mind.artifact import Float32
from mind.evaluation import metrics
from mind.evaluation.baselines import RECENCY, Pairs, recency_matrix
from mind.evaluation.retrieval import LeftOut, item_ids, top_rows
from mind.sequences import EvalCases, Int64, Sequences

MAX_ITEMS = 20_000
"""Maximum number of items for EASE, because it inverts a matrix of items by items. This many take 1.6 GB."""
REGULARISATIONS = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""The values of lambda that are tried."""
RECENCIES = (0.8, 0.9, 1.0)
"""The tried weights of a history item, relative to the weight of the item after it."""
UNCHOSEN = 300.0
"""The value of lambda if there are no validation users."""
MAX_VALID = 2_000
"""Maximum number of validation users for the choice."""
_BLOCK = 1024

OnStep = Callable[[int, int], None]
"""A callback with two arguments: the number of inverted matrices, and the total."""


@dataclass(frozen=True)
class Ease:
    """Lists by EASE, with the chosen settings."""

    ranked: Int64
    """[U, top_n] int64 item ids, best first, -1 where there are fewer items."""
    regularisation: float
    recency: float


def ease(
    pairs: Pairs,
    valid: EvalCases | None,
    histories: Sequences,
    top_n: int,
    batch_size: int = 256,
    exclude_history: bool = False,
    on_step: OnStep = lambda done, of: None,
) -> Ease:
    """Rank items for users by EASE, with the settings that have the highest Recall@50 on validation users.

    Args:
        pairs: the pairs of items that training users had together.
        valid: held-out users that choose the settings; None uses `UNCHOSEN` and `RECENCY`.
        histories: the histories of the users to rank for.
        top_n: the number of items of a list.
        batch_size: the number of users that are scored at a time.
        exclude_history: whether lists, including those of the validation users, leave out items of the history.
        on_step: called with the progress.
    """
    known = valid.take(np.arange(len(valid))[:: -(-len(valid) // MAX_VALID)]) if valid else None
    tried = REGULARISATIONS if known else (UNCHOSEN,)
    best, chosen = -1.0, None
    for number, regularisation in enumerate(tried):
        on_step(number, len(tried))
        weights = item_weights(pairs, regularisation)

        def ranked(users: Sequences, recency: float, length: int, weights: Float32 = weights) -> Int64:
            return _ranked(pairs, weights, users, recency, length, batch_size, exclude_history)

        better = None
        for recency in RECENCIES if known else ():
            assert known is not None  # noqa: S101 - there are recencies to try only then
            found = ranked(known.history, recency, max(metrics.CUTOFFS))
            score = metrics.report(found, known.target, metrics.CUTOFFS)[metrics.SELECTED_BY]
            if score > best:
                best, better = score, recency
        if better is not None or chosen is None:
            recency = RECENCY if better is None else better
            chosen = Ease(ranked(histories, recency, top_n), regularisation, recency)
    on_step(len(tried), len(tried))
    assert chosen is not None  # noqa: S101 - something is tried
    return chosen


def item_weights(pairs: Pairs, regularisation: float) -> Float32:
    """Return the weight of each history item for each item: B_ij = -P_ij / P_jj, B_jj = 0, P = (X'X + lambda I)^-1.

    Returns:
        [N, N] float32; the scores of a history x, [N], are x B.
    """
    inverse: Float32 = pairs.together.toarray()  # X'X, except for the diagonal
    diagonal = np.arange(len(inverse))
    inverse[diagonal, diagonal] = pairs.users + np.float32(regularisation)
    factor, failed = lapack.spotrf(inverse.T, lower=1, overwrite_a=1)  # Cholesky, in place: it is symmetric
    factor, failed_too = lapack.spotri(factor, lower=1, overwrite_c=1)
    assert not failed and not failed_too  # noqa: S101 - X'X has no negative eigenvalue, and lambda is positive
    inverse = factor.T
    for start in range(0, len(inverse), _BLOCK):  # LAPACK gives one triangle, the upper one of the transpose
        end = start + _BLOCK
        inverse[end:, start:end] = inverse[start:end, end:].T
        square = inverse[start:end, start:end]
        square[:] = np.triu(square) + np.triu(square, 1).T
    inverse /= -inverse[diagonal, diagonal]
    inverse[diagonal, diagonal] = 0
    return inverse


def _ranked(
    pairs: Pairs,
    weights: Float32,
    histories: Sequences,
    recency: float,
    top_n: int,
    batch_size: int,
    exclude_history: bool,
) -> Int64:
    left_out = LeftOut.history(pairs.vocabulary, histories) if exclude_history else None
    recent, rows = recency_matrix(pairs.vocabulary, histories, recency), []
    for start in range(0, len(histories), batch_size):
        scores: Float32 = recent[start : start + batch_size] @ weights
        if left_out:
            left_out.hide(scores, start)
        rows.append(top_rows(scores, top_n))
    return item_ids(pairs.vocabulary, np.concatenate(rows))

"""Computes Recall, NDCG and hit rate of ranked lists, as ComiRec defines them (arXiv 2005.09347, section 4.1.3)."""

import numpy as np
import numpy.typing as npt

from mind.sequences import Int64, Sequences

TITLES = {"recall": "Recall", "ndcg": "NDCG", "hit_rate": "HitRate"}
"""The metrics, with their names in tables and plots."""
CUTOFFS = (20, 50)
"""The list lengths for which training measures validation metrics."""
SELECTED_BY = "recall@50"
"""The validation metric that chooses the best epoch and, by default, the best model."""
SHOWN = {"recall@20": "R@20", "recall@50": "R@50", "ndcg@50": "NDCG@50", "hit_rate@50": "Hit@50"}
"""The validation metrics in tables of epochs and models, with their headings."""

Hits = npt.NDArray[np.bool_]


def hits(candidates: Int64, targets: Sequences) -> Hits:
    """Return which candidates the user clicked afterwards, as a mask.

    Args:
        candidates: [U, N] int64 item ids, best first, -1 where a list is shorter, without repeats within a row.
        targets: the held-out items of the U users, in the same order.

    Returns:
        [U, N] bool, whether the user clicked the candidate.
    """
    known, target = np.unique(targets.item_id, return_inverse=True)
    users = np.arange(len(targets))
    wanted = np.repeat(users, targets.lengths) * len(known) + target
    position = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
    asked = users[:, None] * len(known) + position
    found: Hits = (known[position] == candidates) & np.isin(asked, wanted)
    return found


def distinct_targets(targets: Sequences) -> Int64:
    """Count the different items that each user clicked afterwards, [U] int64."""
    pairs = np.unique(np.stack([np.repeat(np.arange(len(targets)), targets.lengths), targets.item_id]), axis=1)
    return np.bincount(pairs[0], minlength=len(targets))


def recall(hit: Hits, wanted: Int64) -> float:
    """Return the mean over users of hits / wanted. `hit`: [U, N] bool; `wanted`: [U] int64, positive."""
    return float(np.mean(hit.sum(axis=1) / wanted))


def ndcg(hit: Hits, wanted: Int64) -> float:
    """Return the mean over users of DCG / ideal DCG, with gain 1 / log2(rank + 1), ideal over min(N, wanted) places."""
    gain = 1 / np.log2(np.arange(hit.shape[1]) + 2)
    ideal = np.cumsum(gain)[np.minimum(wanted, hit.shape[1]) - 1]
    return float(np.mean(hit @ gain / ideal))


def hit_rate(hit: Hits) -> float:
    """Return the share of users with at least one hit."""
    return float(np.mean(hit.any(axis=1)))


def names(cutoffs: tuple[int, ...]) -> list[str]:
    """Return the names of the metrics at some cutoffs, in the order of `report`."""
    return [f"{name}@{n}" for n in cutoffs for name in TITLES]


def title(name: str) -> str:
    """Return the name of a metric in tables, such as `HitRate@50` for `hit_rate@50`."""
    metric, _, cutoff = name.partition("@")
    return f"{TITLES[metric]}@{cutoff}"


def report(candidates: Int64, targets: Sequences, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Compute `recall@n`, `ndcg@n` and `hit_rate@n` for every cutoff n, as fractions.

    The arguments are those of `hits`.
    """
    hit, wanted = hits(candidates, targets), distinct_targets(targets)
    values = [
        f(hit[:, :n]) for n in cutoffs for f in (lambda h: recall(h, wanted), lambda h: ndcg(h, wanted), hit_rate)
    ]
    return dict(zip(names(cutoffs), values, strict=True))

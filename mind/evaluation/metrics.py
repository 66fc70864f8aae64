"""Recall, NDCG and hit rate of ranked lists: pure functions, as ComiRec defines them (arXiv 2005.09347, 4.1.3)."""

import numpy as np
import numpy.typing as npt

from mind.sequences import Int64, Sequences

TITLES = {"recall": "Recall", "ndcg": "NDCG", "hit_rate": "HitRate"}
"""The metrics, and what they are called in tables and plots."""
CUTOFFS = (20, 50)
"""Lengths of the lists that training validates."""
SELECTED_BY = "recall@50"
"""The validation metric that chooses the best epoch and, unless another one is named, the best model."""
SHOWN = {"recall@20": "R@20", "recall@50": "R@50", "ndcg@50": "NDCG@50", "hit_rate@50": "Hit@50"}
"""The validation metrics that tables of epochs and models show, and their headings."""

Hits = npt.NDArray[np.bool_]


def hits(candidates: Int64, targets: Sequences) -> Hits:
    """Which candidates the user clicked afterwards.

    Args:
        candidates: [U, N] int64 item ids, best first, -1 where the list is shorter; no repeats within a row.
        targets: the U users' held-out items, in the same order.

    Returns:
        [U, N] bool.
    """
    known, target = np.unique(targets.item_id, return_inverse=True)
    users = np.arange(len(targets))
    wanted = np.repeat(users, targets.lengths) * len(known) + target
    position = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
    asked = users[:, None] * len(known) + position
    found: Hits = (known[position] == candidates) & np.isin(asked, wanted)
    return found


def distinct_targets(targets: Sequences) -> Int64:
    """Different items each user clicked afterwards, [U] int64: repeats count once."""
    pairs = np.unique(np.stack([np.repeat(np.arange(len(targets)), targets.lengths), targets.item_id]), axis=1)
    return np.bincount(pairs[0], minlength=len(targets))


def recall(hit: Hits, wanted: Int64) -> float:
    """Mean over users of hits / wanted. hit: [U, N] bool; wanted: [U] int64, positive."""
    return float(np.mean(hit.sum(axis=1) / wanted))


def ndcg(hit: Hits, wanted: Int64) -> float:
    """Mean over users of DCG / ideal DCG, gain 1 / log2(rank + 1), ideal over min(N, wanted) places."""
    gain = 1 / np.log2(np.arange(hit.shape[1]) + 2)
    ideal = np.cumsum(gain)[np.minimum(wanted, hit.shape[1]) - 1]
    return float(np.mean(hit @ gain / ideal))


def hit_rate(hit: Hits) -> float:
    """Share of users with at least one hit."""
    return float(np.mean(hit.any(axis=1)))


def names(cutoffs: tuple[int, ...]) -> list[str]:
    """The names of the metrics at some cutoffs, in the order of `report`."""
    return [f"{name}@{n}" for n in cutoffs for name in TITLES]


def title(name: str) -> str:
    """What tables call a metric: `HitRate@50` for `hit_rate@50`."""
    metric, _, cutoff = name.partition("@")
    return f"{TITLES[metric]}@{cutoff}"


def report(candidates: Int64, targets: Sequences, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Measure `recall@n`, `ndcg@n` and `hit_rate@n` for every cutoff n, as fractions. Arguments as for `hits`."""
    hit, wanted = hits(candidates, targets), distinct_targets(targets)
    values = [
        f(hit[:, :n]) for n in cutoffs for f in (lambda h: recall(h, wanted), lambda h: ndcg(h, wanted), hit_rate)
    ]
    return dict(zip(names(cutoffs), values, strict=True))

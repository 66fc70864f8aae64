"""What the figures of an evaluation show, as numbers: pure functions of ranked lists, targets and interest vectors.

Knows no files, no plots and no Paddle. No function loops over users in Python; what is wide goes in batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.evaluation import metrics
from mind.evaluation.metrics import Hits
from mind.sequences import Int64, Sequences

Float64 = npt.NDArray[np.float64]

CELLS = 4_000_000
"""The most values (users times candidates) that are worked on at a time, which bounds temporaries to 200 MB."""
LENGTH_BUCKETS = 5
"""The number of groups that users are put into by the length of their history."""
POPULARITY_BUCKETS = ("head", "torso", "tail")
"""Groups of items, each with a third of the interactions in the training data, the most popular items first."""
RESAMPLES = 2_000
"""The number of times that as many users are drawn, with replacement, to see how far a mean over users may be off."""
TOP_SHARE = 0.01
"""The most popular items, as a share of the catalogue, whose part in all recommendations is measured."""


@dataclass(frozen=True)
class Curves:
    """Metrics as fractions for every list length k = 1..N: three lists of N."""

    recall: list[float]
    ndcg: list[float]
    hit_rate: list[float]

    def at(self, cutoffs: tuple[int, ...]) -> dict[str, float]:
        """What `metrics.report` gives, `recall@n`, `ndcg@n` and `hit_rate@n` for every cutoff n."""
        values = [curve[n - 1] for n in cutoffs for curve in (self.recall, self.ndcg, self.hit_rate)]
        return dict(zip(metrics.names(cutoffs), values, strict=True))


@dataclass(frozen=True)
class Mean:
    """A mean over users and half the width of its 95 % interval (normal approximation; None for fewer than 2 users)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Lead:
    """How far one method is ahead of another, and its 95 % interval by a bootstrap over users (Efron 1979)."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether one of the two is ahead by more than the choice of the users explains."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class LengthBucket:
    """Users whose history has `low` to `high` items."""

    low: int
    high: int
    users: int


@dataclass(frozen=True)
class PopularityBucket:
    """Some of the items by popularity. `targets` counts different (user, item) pairs to be found."""

    name: str
    items: int
    targets: int


@dataclass(frozen=True)
class Spread:
    """How a method's lists, N candidates a user, spread over the catalogue."""

    coverage: list[float]
    """[N]: share of the catalogue that is in at least one user's top k, for k = 1..N."""
    top_share: float
    """Share of all places in the lists that the most popular items take, `TOP_SHARE` of the catalogue."""
    gini: float
    """Gini coefficient of how often each item is recommended: 0 all alike, near 1 a few items take everything."""
    seen: float
    """Share of all places in the lists that items of the user's own history take."""


@dataclass(frozen=True)
class Agreement:
    """How far served lists are those of exact search."""

    found: dict[int, float]
    """By cutoff n: mean over users of the share of the exact top n that is in the served top n."""
    identical: float
    """Share of users whose whole list is the same, in the same order."""


def hit_matrix(ranked: Int64, targets: Sequences) -> Hits:
    """Which candidates the user clicked afterwards, as `metrics.hits` says, in batches of users: [U, N] bool."""
    hit = np.zeros(ranked.shape, np.bool_)
    for users in batches(ranked):
        part = targets.take(np.arange(len(targets))[users])
        if len(part.item_id):
            hit[users] = metrics.hits(ranked[users], part)
    return hit


def curves(hit: Hits, wanted: Int64) -> Curves:
    """Recall, NDCG and hit rate for every list length up to N, means over users as `metrics` defines them.

    Args:
        hit: [U, N] bool.
        wanted: [U] int64, positive: different targets of each user.
    """
    length = hit.shape[1]
    gain = 1 / np.log2(np.arange(length) + 2)
    ideal = np.cumsum(gain)
    total = np.zeros((3, length))
    for users in batches(hit):
        found, want = np.cumsum(hit[users], axis=1), wanted[users, None]
        best = ideal[np.minimum(np.arange(1, length + 1), want) - 1]
        total[0] += (found / want).sum(axis=0)
        total[1] += (np.cumsum(hit[users] * gain, axis=1) / best).sum(axis=0)
        total[2] += (found > 0).sum(axis=0)
    recall, ndcg, hit_rate = (total / len(hit)).tolist()
    return Curves(recall, ndcg, hit_rate)


def user_recall(hit: Hits, wanted: Int64) -> Float64:
    """Recall of each user: [U] float64."""
    recall: Float64 = hit.sum(axis=1) / wanted
    return recall


def mean(values: Float64) -> Mean:
    """The mean of [U] float64 and its uncertainty; for a paired comparison, give the differences of two methods."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(float(values.mean()), half)


def lead(differences: Float64, seed: int) -> Lead:
    """The mean of a paired comparison over users and how sure it is.

    Args:
        differences: [U] float64, one method's recall minus the other's, user by user.
        seed: of the users that are drawn.
    """
    rng, users = np.random.default_rng(seed), len(differences)
    means = np.sort([differences[rng.integers(0, users, users)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Lead(float(differences.mean()), float(low), float(high))


def length_buckets(lengths: Int64) -> tuple[list[LengthBucket], Int64]:
    """Users in groups of about equal size by history length; equal lengths stay together, so there may be fewer.

    Args:
        lengths: [U] int64.

    Returns:
        The groups, and the group of each user, [U] int64.
    """
    ordered = np.sort(lengths)
    last = -(-np.arange(1, LENGTH_BUCKETS + 1) * len(lengths) // LENGTH_BUCKETS) - 1
    upper = np.unique(ordered[np.maximum(last, 0)])
    bucket = np.searchsorted(upper, lengths)
    groups = [lengths[bucket == number] for number in range(len(upper))]
    return [LengthBucket(int(group.min()), int(group.max()), len(group)) for group in groups], bucket


def by_length(recall: Float64, bucket: Int64) -> list[Mean]:
    """Mean recall of each group of users. recall: [U] float64; bucket: [U] int64, no group empty."""
    return [mean(recall[bucket == number]) for number in range(int(bucket.max()) + 1)]


def popularity_order(popularity: Int64) -> Int64:
    """Rows of the item table, the most popular first, ties by the lower row: [N] int64."""
    return np.argsort(-popularity, kind="stable") + 1


def popularity_buckets(popularity: Int64) -> Int64:
    """Bucket of each row of the item table, [N + 1] int64: 0 to 2 as in `POPULARITY_BUCKETS`, 3 for row 0, unknown."""
    order = popularity_order(popularity)
    before = np.cumsum(popularity[order - 1]) - popularity[order - 1]
    bucket = np.full(len(popularity) + 1, len(POPULARITY_BUCKETS), np.int64)
    share = len(POPULARITY_BUCKETS) * before // max(int(popularity.sum()), 1)
    bucket[order] = np.minimum(share, len(POPULARITY_BUCKETS) - 1)
    return bucket


def distinct_pairs(targets: Sequences, item_index: Int64) -> Int64:
    """Rows of the different targets of every user, one after the other: [T] int64, 0 for unknown items.

    Args:
        targets: U users.
        item_index: [len(targets.item_id)] int64, their rows.
    """
    user = np.repeat(np.arange(len(targets)), targets.lengths)
    order = np.lexsort((targets.item_id, user))
    item, owner = targets.item_id[order], user[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (item[1:] != item[:-1]) | (owner[1:] != owner[:-1])
    return item_index[order][first]


def by_popularity(rows: Int64, hit: Hits, wanted_rows: Int64, bucket: Int64) -> list[float | None]:
    """Share of the targets in each popularity bucket that were found; None where there is no target.

    Args:
        rows: [U, N] int64, candidates as rows of the item table.
        hit: [U, N] bool.
        wanted_rows: [T] int64, see `distinct_pairs`.
        bucket: [I + 1] int64, see `popularity_buckets`.
    """
    kinds = len(POPULARITY_BUCKETS)
    found = np.bincount(bucket[rows[hit]], minlength=kinds)
    wanted = np.bincount(bucket[wanted_rows], minlength=kinds)
    return [float(found[kind] / wanted[kind]) if wanted[kind] else None for kind in range(kinds)]


def spread(rows: Int64, seen: Hits, popularity: Int64) -> Spread:
    """How lists spread over the catalogue.

    Args:
        rows: [U, N] int64, candidates as rows of the item table, 0 where there is none.
        seen: [U, N] bool, candidates that are in the user's history.
        popularity: [I] int64.
    """
    items, length = len(popularity), rows.shape[1]
    times = np.bincount(rows.ravel(), minlength=items + 1)[1:]
    places = max(int(times.sum()), 1)
    first = np.full(items + 1, length)
    for position in range(length - 1, -1, -1):
        first[rows[:, position]] = position
    reached = np.bincount(first[1:], minlength=length + 1)[:length]
    top = popularity_order(popularity)[: -(-items // round(1 / TOP_SHARE))]
    return Spread(
        coverage=(np.cumsum(reached) / items).tolist(),
        top_share=float(times[top - 1].sum() / places),
        gini=gini(times),
        seen=float(seen.sum() / places),
    )


def gini(times: Int64) -> float:
    """Gini coefficient of [I] int64 counts; 0 if all are 0."""
    total, items = int(times.sum()), len(times)
    if not total:
        return 0.0
    return float(2 * (np.sort(times) @ np.arange(1, items + 1)) / (items * total) - (items + 1) / items)


def agreement(exact: Int64, served: Int64, cutoffs: tuple[int, ...]) -> Agreement:
    """How far served lists are those of exact search. Both: [U, N] int64 rows, 0 where a list is shorter."""
    found = {n: float(np.mean(in_common(exact[:, :n], served[:, :n]))) for n in cutoffs}
    return Agreement(found, float(np.mean((exact == served).all(axis=1))))


def example_users(recall: Float64, seed: int, each: int = 4) -> dict[str, list[int]]:
    """Users to look at: `each` with the highest recall, nearest to the median, and with no hit; ties drawn by `seed`.

    Args:
        recall: [U] float64.
        seed: of the order in which ties are taken.
        each: users in a group, at most; nobody is in two.
    """
    drawn = np.random.default_rng(seed).permutation(len(recall))
    none = drawn[recall[drawn] == 0][:each]
    rest = drawn[~np.isin(drawn, none) & (recall[drawn] > 0)]
    high = rest[np.argsort(-recall[rest], kind="stable")][:each]
    rest = rest[~np.isin(rest, high)]
    middle = rest[np.argsort(np.abs(recall[rest] - np.median(recall)), kind="stable")][:each]
    return {"highest recall": high.tolist(), "nearest to the median": middle.tolist(), "no hit": none.tolist()}


def in_common(first: Int64, second: Int64) -> Float64:
    """Share of the items of the first list that are in the second, by user: [U] float64; 1 for an empty list."""
    stride = int(max(first.max(initial=0), second.max(initial=0))) + 1
    share = np.ones(len(first))
    for users in batches(first):
        owner = np.arange(len(first[users]))[:, None] * stride
        there = np.isin(owner + first[users], (owner + second[users])[second[users] > 0]) & (first[users] > 0)
        length = (first[users] > 0).sum(axis=1)
        share[users] = np.where(length > 0, there.sum(axis=1) / np.maximum(length, 1), 1)
    return share


def batches(wide: npt.NDArray[np.generic], width: int = 0) -> Iterator[slice]:
    """Slices of users of which each has at most `CELLS` values, `width` a user or as many as the array is wide."""
    step = max(1, CELLS // max(width or wide.shape[1], 1))
    return (slice(start, start + step) for start in range(0, len(wide), step))

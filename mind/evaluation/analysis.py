"""Computes the figures of an evaluation from ranked lists, targets and interest vectors.

The functions read no files and know nothing of plots or Paddle. None loops over users in Python; wide arrays are
processed in batches.
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
"""Maximum number of values (users times candidates) that are processed at a time. It limits temporaries to 200 MB."""
LENGTH_BUCKETS = 5
"""Number of groups of users by the length of their history."""
POPULARITY_BUCKETS = ("head", "torso", "tail")
"""Groups of items, each with a third of the interactions in the training data, the most popular items first."""
RESAMPLES = 2_000
"""Number of random samples of users, drawn with replacement, from which the interval of a mean is computed."""
TOP_SHARE = 0.01
"""Share of the catalogue that counts as the most popular items, whose part in all recommendations is measured."""


@dataclass(frozen=True)
class Curves:
    """Metrics as fractions for every list length k = 1..N; each is a list of N."""

    recall: list[float]
    ndcg: list[float]
    hit_rate: list[float]

    def at(self, cutoffs: tuple[int, ...]) -> dict[str, float]:
        """Return `recall@n`, `ndcg@n` and `hit_rate@n` for every cutoff n, as `metrics.report` does."""
        values = [curve[n - 1] for n in cutoffs for curve in (self.recall, self.ndcg, self.hit_rate)]
        return dict(zip(metrics.names(cutoffs), values, strict=True))


@dataclass(frozen=True)
class Mean:
    """A mean over users, and half the width of its 95 % interval (normal approximation; None for one user)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Lead:
    """The lead of one method over another, and its 95 % interval by a bootstrap over users (Efron 1979)."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Return whether the lead is larger than the choice of the users explains."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class LengthBucket:
    """Users whose history has `low` to `high` items."""

    low: int
    high: int
    users: int


@dataclass(frozen=True)
class PopularityBucket:
    """Some of the items by popularity. `targets` counts the different (user, item) pairs to find."""

    name: str
    items: int
    targets: int


@dataclass(frozen=True)
class Spread:
    """The spread of a method's lists, N candidates per user, over the catalogue."""

    coverage: list[float]
    """[N]: share of the catalogue that is in the top k of at least one user, for k = 1..N."""
    top_share: float
    """Share of all places in the lists that the most popular `TOP_SHARE` of the catalogue take."""
    gini: float
    """Gini coefficient of the items' numbers of recommendations: 0 if all are equal, near 1 if a few items take all."""
    seen: float
    """Share of all places in the lists that are taken by items of the user's own history."""


@dataclass(frozen=True)
class Agreement:
    """The agreement of served lists with exact search."""

    found: dict[int, float]
    """Mean over users of the share of the exact top n that is in the served top n, by cutoff n."""
    identical: float
    """Share of users whose whole served list equals the exact list, in the same order."""


def hit_matrix(ranked: Int64, targets: Sequences) -> Hits:
    """Return which candidates the user clicked afterwards, as `metrics.hits` does, in batches of users: [U, N] bool."""
    hit = np.zeros(ranked.shape, np.bool_)
    for users in batches(ranked):
        part = targets.take(np.arange(len(targets))[users])
        if len(part.item_id):
            hit[users] = metrics.hits(ranked[users], part)
    return hit


def curves(hit: Hits, wanted: Int64) -> Curves:
    """Compute recall, NDCG and hit rate for every list length up to N, as means over users as `metrics` defines them.

    Args:
        hit: [U, N] bool.
        wanted: [U] int64, positive: the number of different targets of each user.
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
    """Return the recall of each user: [U] float64."""
    recall: Float64 = hit.sum(axis=1) / wanted
    return recall


def mean(values: Float64) -> Mean:
    """Return the mean of [U] float64 with its interval.

    For a paired comparison, pass the differences of two methods.
    """
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(float(values.mean()), half)


def lead(differences: Float64, seed: int) -> Lead:
    """Return the mean lead of one method over another, with its interval.

    Args:
        differences: [U] float64, the recall of one method minus that of the other, for each user.
        seed: the seed for drawing users.
    """
    rng, users = np.random.default_rng(seed), len(differences)
    means = np.sort([differences[rng.integers(0, users, users)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Lead(float(differences.mean()), float(low), float(high))


def length_buckets(lengths: Int64) -> tuple[list[LengthBucket], Int64]:
    """Group users by history length, in groups of about equal size.

    Equal lengths stay together, so there may be fewer groups.

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
    """Return the mean recall of each group of users.

    `recall`: [U] float64; `bucket`: [U] int64, with no empty group.
    """
    return [mean(recall[bucket == number]) for number in range(int(bucket.max()) + 1)]


def popularity_order(popularity: Int64) -> Int64:
    """Return the rows of the item table, most popular first, ties by the lower row: [N] int64."""
    return np.argsort(-popularity, kind="stable") + 1


def popularity_buckets(popularity: Int64) -> Int64:
    """Return the bucket of each row of the item table, [N + 1] int64: an index of `POPULARITY_BUCKETS`, 3 for row 0."""
    order = popularity_order(popularity)
    before = np.cumsum(popularity[order - 1]) - popularity[order - 1]
    bucket = np.full(len(popularity) + 1, len(POPULARITY_BUCKETS), np.int64)
    share = len(POPULARITY_BUCKETS) * before // max(int(popularity.sum()), 1)
    bucket[order] = np.minimum(share, len(POPULARITY_BUCKETS) - 1)
    return bucket


def distinct_pairs(targets: Sequences, item_index: Int64) -> Int64:
    """Return the rows of the different targets of every user, user by user: [T] int64, 0 for unknown items.

    Args:
        targets: the targets of U users.
        item_index: [len(targets.item_id)] int64, the rows of the targets.
    """
    user = np.repeat(np.arange(len(targets)), targets.lengths)
    order = np.lexsort((targets.item_id, user))
    item, owner = targets.item_id[order], user[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (item[1:] != item[:-1]) | (owner[1:] != owner[:-1])
    return item_index[order][first]


def by_popularity(rows: Int64, hit: Hits, wanted_rows: Int64, bucket: Int64) -> list[float | None]:
    """Return the share of the targets in each popularity bucket that were found; None for a bucket without targets.

    Args:
        rows: [U, N] int64, candidates as rows of the item table.
        hit: [U, N] bool.
        wanted_rows: [T] int64, as from `distinct_pairs`.
        bucket: [I + 1] int64, as from `popularity_buckets`.
    """
    kinds = len(POPULARITY_BUCKETS)
    found = np.bincount(bucket[rows[hit]], minlength=kinds)
    wanted = np.bincount(bucket[wanted_rows], minlength=kinds)
    return [float(found[kind] / wanted[kind]) if wanted[kind] else None for kind in range(kinds)]


def spread(rows: Int64, seen: Hits, popularity: Int64) -> Spread:
    """Measure the spread of lists over the catalogue.

    Args:
        rows: [U, N] int64, candidates as rows of the item table, 0 where a list is shorter.
        seen: [U, N] bool, whether a candidate is in the user's history.
        popularity: [I] int64, the number of clicks of each item.
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
    """Return the Gini coefficient of [I] int64 counts; 0 if all are 0."""
    total, items = int(times.sum()), len(times)
    if not total:
        return 0.0
    return float(2 * (np.sort(times) @ np.arange(1, items + 1)) / (items * total) - (items + 1) / items)


def agreement(exact: Int64, served: Int64, cutoffs: tuple[int, ...]) -> Agreement:
    """Compare served lists with exact search. Both: [U, N] int64 rows, 0 where a list is shorter."""
    found = {n: float(np.mean(in_common(exact[:, :n], served[:, :n]))) for n in cutoffs}
    return Agreement(found, float(np.mean((exact == served).all(axis=1))))


def example_users(recall: Float64, seed: int, each: int = 4) -> dict[str, list[int]]:
    """Choose example users: `each` with the highest recall, nearest to the median, and without a hit.

    `seed` breaks ties.

    Args:
        recall: [U] float64.
        seed: the seed of the order in which ties are taken.
        each: the maximum number of users of a group. No user is in two groups.
    """
    drawn = np.random.default_rng(seed).permutation(len(recall))
    none = drawn[recall[drawn] == 0][:each]
    rest = drawn[~np.isin(drawn, none) & (recall[drawn] > 0)]
    high = rest[np.argsort(-recall[rest], kind="stable")][:each]
    rest = rest[~np.isin(rest, high)]
    middle = rest[np.argsort(np.abs(recall[rest] - np.median(recall)), kind="stable")][:each]
    return {"highest recall": high.tolist(), "nearest to the median": middle.tolist(), "no hit": none.tolist()}


def in_common(first: Int64, second: Int64) -> Float64:
    """Return the share of the first list that is in the second, by user: [U] float64; 1 for an empty list."""
    stride = int(max(first.max(initial=0), second.max(initial=0))) + 1
    share = np.ones(len(first))
    for users in batches(first):
        owner = np.arange(len(first[users]))[:, None] * stride
        there = np.isin(owner + first[users], (owner + second[users])[second[users] > 0]) & (first[users] > 0)
        length = (first[users] > 0).sum(axis=1)
        share[users] = np.where(length > 0, there.sum(axis=1) / np.maximum(length, 1), 1)
    return share


def batches(wide: npt.NDArray[np.generic], width: int = 0) -> Iterator[slice]:
    """Yield slices of users with at most `CELLS` values. A user has `width` values (0: the width of the array)."""
    step = max(1, CELLS // max(width or wide.shape[1], 1))
    return (slice(start, start + step) for start in range(0, len(wide), step))

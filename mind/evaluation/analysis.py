"""What the figures of an evaluation show, as numbers: pure functions of ranked lists, targets and interest vectors.

Knows no files, no plots and no Paddle. No function loops over users in Python; what is wide goes in batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.artifact import Float32
from mind.evaluation import metrics
from mind.evaluation.metrics import Hits
from mind.sequences import Int64, Sequences

Float64 = npt.NDArray[np.float64]

CELLS = 4_000_000
"""Users times candidates worked on at a time; bounds the memory of 64-bit temporaries to about 200 MB."""
LENGTH_BUCKETS = 5
"""Groups of users by history length."""
POPULARITY_BUCKETS = ("head", "torso", "tail")
"""Groups of items, each with a third of the interactions in the training data, the most popular items first."""
HISTOGRAM_BINS = 20
"""Bins of the cosines between a user's interests, from the lowest one, rounded down to a tenth, to 1."""
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
class Interests:
    """How distinct the K interests of the users are. Users without a known item in their history are left out."""

    users: int
    cosine: list[list[float]]
    """[K, K]: mean over users of the cosine between two interests."""
    cosine_quartiles: list[float]
    """[3]: quartiles over users of a user's mean cosine between different interests."""
    histogram_edges: list[float]
    """[B + 1]: bins of that mean cosine."""
    histogram_users: list[int]
    """[B]: users in each bin."""
    found: list[float]
    """[K]: share of all candidates that each interest found, that is, scored highest."""
    contributing: list[float]
    """[K]: share of users whose list draws on exactly 1, 2, ... K interests."""
    largest_part: float
    """Mean over users of the part of the list that comes from the interest that found most."""
    sampled_users: int
    """Users whose interests were searched for one by one."""
    overlap: list[list[float]]
    """[K, K]: mean over sampled users of the share that the N nearest items of two interests have in common."""
    own_recall: list[float]
    """[K]: recall@N over sampled users of each interest's N nearest items alone."""
    merged_recall: float
    """recall@N over the same users of the merged list."""


@dataclass(frozen=True)
class Agreement:
    """How far served lists are those of exact search."""

    found: dict[int, float]
    """By cutoff n: mean over users of the share of the exact top n that is in the served top n."""
    identical: float
    """Share of users whose whole list is the same, in the same order."""


def hit_matrix(ranked: Int64, targets: Sequences) -> Hits:
    """`metrics.hits` in batches of users: [U, N] bool."""
    hit = np.zeros(ranked.shape, np.bool_)
    for users in _batches(ranked):
        part = _users(targets, users)
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
    for users in _batches(hit):
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
    """Mean of [U] float64 and its uncertainty; give differences of two methods for a paired comparison."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return Mean(float(values.mean()), half)


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


def cosines(interest_vectors: Float32) -> Float32:
    """Cosines between all pairs of a user's interests: [U, K, D] to [U, K, K] float32; 0 with a zero vector."""
    norm = np.linalg.norm(interest_vectors, axis=2, keepdims=True)
    unit = interest_vectors / np.maximum(norm, 1e-12)
    cosine: Float32 = unit @ unit.transpose(0, 2, 1)
    return cosine


def found_by(interest_vectors: Float32, item_embedding: Float32, rows: Int64) -> Int64:
    """The interest that scores each candidate highest, the lower number on ties: [U, N] int64, -1 where row is 0.

    Args:
        interest_vectors: [U, K, D] float32.
        item_embedding: [I + 1, D] float32.
        rows: [U, N] int64.
    """
    interest = np.full(rows.shape, -1, np.int64)
    for users in _batches(rows, width=rows.shape[1] * item_embedding.shape[1]):
        scores = item_embedding[rows[users]] @ interest_vectors[users].transpose(0, 2, 1)  # [B, N, K]
        interest[users] = np.where(rows[users] > 0, scores.argmax(axis=2), -1)
    return interest


def interests(
    interest_vectors: Float32, interest: Int64, own_rows: Int64, sample: Int64, own_recall: list[float], merged: float
) -> Interests:
    """How distinct the interests are.

    Args:
        interest_vectors: [U, K, D] float32.
        interest: [U, N] int64, see `found_by`.
        own_rows: [S, K, N] int64, the nearest items of each interest alone, for a sample of the users.
        sample: [S] int64, these users.
        own_recall: [K], recall of these lists.
        merged: recall of the merged lists of the same users.
    """
    active = interest_vectors.any(axis=(1, 2))
    count = interest_vectors.shape[1]
    cosine = cosines(interest_vectors[active])
    pairs = max(count * (count - 1), 1)
    same = np.trace(cosine, axis1=1, axis2=2)
    distinct = np.clip((cosine.sum(axis=(1, 2), dtype=np.float64) - same) / pairs, -1, 1)
    lowest = np.floor(10 * distinct.min(initial=0.9)) / 10
    users, edges = np.histogram(distinct, np.linspace(lowest, 1, HISTOGRAM_BINS + 1))
    parts = _parts(interest[active], count)
    contributing = np.bincount((parts > 0).sum(axis=1), minlength=count + 1)[1:]
    return Interests(
        users=int(active.sum()),
        cosine=cosine.mean(axis=0, dtype=np.float64).tolist() if len(cosine) else np.zeros((count, count)).tolist(),
        cosine_quartiles=np.quantile(distinct, [0.25, 0.5, 0.75]).tolist() if len(distinct) else [0.0] * 3,
        histogram_edges=edges.tolist(),
        histogram_users=users.tolist(),
        found=(parts.sum(axis=0) / max(int(parts.sum()), 1)).tolist(),
        contributing=(contributing / max(int(contributing.sum()), 1)).tolist(),
        largest_part=float(np.mean(parts.max(axis=1) / np.maximum(parts.sum(axis=1), 1))) if len(parts) else 0.0,
        sampled_users=len(sample),
        overlap=overlap(own_rows),
        own_recall=own_recall,
        merged_recall=merged,
    )


def overlap(rows: Int64) -> list[list[float]]:
    """Mean over users of the share of items that the lists of two interests have in common: [K, K].

    Args:
        rows: [S, K, N] int64, no repeats within a list, 0 where a list is shorter.
    """
    count = rows.shape[1]
    shared = np.ones((count, count))
    for i in range(count):
        for j in range(i):
            shared[i, j] = shared[j, i] = np.mean(_in_common(rows[:, i], rows[:, j])) if len(rows) else 0
    return [[float(value) for value in row] for row in shared]


def agreement(exact: Int64, served: Int64, cutoffs: tuple[int, ...]) -> Agreement:
    """How far served lists are those of exact search. Both: [U, N] int64 rows, 0 where a list is shorter."""
    found = {n: float(np.mean(_in_common(exact[:, :n], served[:, :n]))) for n in cutoffs}
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


def _in_common(first: Int64, second: Int64) -> Float64:
    """Share of the items of the first list that are in the second, by user: [U] float64; 1 for an empty list."""
    stride = int(max(first.max(initial=0), second.max(initial=0))) + 1
    share = np.ones(len(first))
    for users in _batches(first):
        owner = np.arange(len(first[users]))[:, None] * stride
        there = np.isin(owner + first[users], (owner + second[users])[second[users] > 0]) & (first[users] > 0)
        length = (first[users] > 0).sum(axis=1)
        share[users] = np.where(length > 0, there.sum(axis=1) / np.maximum(length, 1), 1)
    return share


def _parts(interest: Int64, count: int) -> Int64:
    """Candidates that each interest found, by user: [U, N] int64 to [U, K] int64."""
    owner = np.arange(len(interest))[:, None] * count
    return np.bincount((owner + interest)[interest >= 0], minlength=len(interest) * count).reshape(-1, count)


def _batches(wide: npt.NDArray[np.generic], width: int = 0) -> Iterator[slice]:
    step = max(1, CELLS // max(width or wide.shape[1], 1))
    return (slice(start, start + step) for start in range(0, len(wide), step))


def _users(sequences: Sequences, users: slice) -> Sequences:
    offsets = sequences.offsets[users.start : users.stop + 1]
    items = sequences.item_id[offsets[0] : offsets[-1]]
    return Sequences(sequences.user_id[users], offsets - offsets[0], items)

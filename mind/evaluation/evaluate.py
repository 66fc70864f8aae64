"""Computes all numbers of the report from ranked lists. Draws nothing and writes no files."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mind.artifact import Artifact, Float32
from mind.evaluation import analysis, metrics
from mind.evaluation.analysis import Agreement, Curves, Float64, Lead, LengthBucket, Mean, PopularityBucket, Spread
from mind.evaluation.candidates import Served
from mind.evaluation.interests import Interests, found_by, interests, mean_cosine
from mind.evaluation.metrics import Hits
from mind.evaluation.retrieval import LeftOut, item_ids, nearest_items
from mind.sequences import EvalCases, Int64

OnStep = Callable[[str, int, int], None]
"""A callback with three arguments: the present step, the number of users done, and the total."""

EXACT = "MIND, exact search"
ALONE = "MIND, without neighbours"
"""The name of exact search without neighbours of the newest clicks. `EXACT` is as served, with neighbours if they are
used.
"""
SHOWN_ITEMS = 20
"""Number of candidates and of history items that are shown for an example user."""
SAMPLED_USERS = 2000
"""Maximum number of users whose interests are searched for separately."""


@dataclass(frozen=True)
class Lists:
    """The ranked lists to compare, by name: [U, N] int64 item ids each, -1 where a list is shorter."""

    ranked: dict[str, Int64]
    baselines: tuple[str, ...]
    """The names of the baselines, which any model must beat."""
    interest_vectors: Float32
    """[U, K, D] float32, the interest vectors of the search for `EXACT`."""
    served: dict[str, Served] = field(default_factory=dict)
    """The releases of the lists that a service returned, by the names of the lists."""
    exclude_history: bool = False
    """Whether no list has an item of the user's history."""
    left_out: int = 0
    """Number of test users that are in none of the lists."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the users and the sources of the lists that a reader of the report needs."""


@dataclass(frozen=True)
class Measured:
    """The hits of one method's lists, and the metrics computed from them."""

    hit: Hits
    """[U, N] bool, whether the user clicked the candidate afterwards."""
    recall: Float64
    """[U] float64, the recall of each user with the whole list."""
    curves: Curves


@dataclass(frozen=True)
class Candidate:
    """One place in the list of an example user."""

    item_id: int
    interest: int
    hit: bool
    """Whether the user clicked the item afterwards."""
    seen: bool
    """Whether the item is in the user's history."""


@dataclass(frozen=True)
class Example:
    """An example user of the report."""

    group: str
    user_id: int
    history: list[int]
    """The newest `SHOWN_ITEMS` items of the history, newest first."""
    history_items: int
    """Number of items in the whole history."""
    wanted: int
    """Number of different items that the user clicked afterwards."""
    candidates: list[Candidate]
    cosine: float | None
    """The mean cosine between two of the user's interests; None for a user with one interest."""


@dataclass(frozen=True)
class Evaluation:
    """All numbers of the report. All shares are fractions; N is the largest cutoff."""

    model_version: str
    created_at: str
    """The time at which the model was written."""
    users: int
    """Number of test users that are compared. They are the same in every row."""
    left_out: int
    """Number of test users that are left out. The notes say why."""
    items: int
    """Number of items in the catalogue, which are the items that the model knows."""
    targets: int
    """Number of different (user, item) pairs to find."""
    unknown_targets: int
    """Number of these pairs whose item is not in the training data, so that no method here can find them."""
    cutoffs: tuple[int, ...]
    metrics: dict[str, dict[str, float]]
    baselines: tuple[str, ...]
    best_baseline: str
    """The baseline with the highest recall@N."""
    exclude_history: bool
    """Whether no list has an item of the user's history."""
    lead: Lead
    """The recall@N of `EXACT` minus that of the best baseline, user by user."""
    verdict: str
    """A sentence that says whether the model beats the baselines on these data."""
    training: dict[str, Any]
    """The artifact's metrics: the epoch that was kept and, in newer artifacts, the curves."""
    data: dict[str, Any]
    """The artifact's fingerprint of the training data."""
    notes: list[str]
    """The notes of the lists."""
    curves: dict[str, Curves]
    length_buckets: list[LengthBucket]
    length_recall: dict[str, list[Mean]]
    """The recall@N of each method in each bucket of history lengths."""
    popularity_buckets: list[PopularityBucket]
    popularity_recall: dict[str, list[float | None]]
    """The share of the targets in each bucket of popularity that each method found with N candidates."""
    spread: dict[str, Spread]
    interests: Interests
    served: dict[str, Served]
    """The releases of the lists that a service returned, by the names of the lists."""
    agreement: dict[str, Agreement]
    """The agreement of each served list with `EXACT`."""
    examples: list[Example]


def measure(ranked: Int64, cases: EvalCases) -> Measured:
    """Measure the lists of one method, [U, N] int64 item ids."""
    wanted = metrics.distinct_targets(cases.target)
    hit = analysis.hit_matrix(ranked, cases.target)
    return Measured(hit, analysis.user_recall(hit, wanted), analysis.curves(hit, wanted))


def evaluate(
    model: Artifact,
    cases: EvalCases,
    lists: Lists,
    measured: dict[str, Measured],
    cutoffs: tuple[int, ...],
    seed: int,
    on_step: OnStep,
) -> Evaluation:
    """Compute every number of the report.

    Args:
        model: the model to evaluate.
        cases: the test users.
        lists: the lists for the test users.
        measured: the result of `measure` for each of these lists.
        cutoffs: the list lengths of the metrics, ascending; the last is N.
        seed: the seed for drawing samples.
        on_step: called with the progress.
    """
    vocabulary, popularity = model.vocabulary, model.weights.popularity
    rows = {name: vocabulary.item_index(ranked) for name, ranked in lists.ranked.items()}
    wanted_rows = analysis.distinct_pairs(cases.target, vocabulary.item_index(cases.target.item_id))
    best, lead = compared_with_best(lists, measured, seed)
    lengths, length_bucket = analysis.length_buckets(cases.history.lengths)
    item_bucket = analysis.popularity_buckets(popularity)
    found = found_by(lists.interest_vectors, model.weights.item_embedding, rows[EXACT])
    return Evaluation(
        model_version=model.model_version,
        created_at=model.created_at,
        users=len(cases),
        left_out=lists.left_out,
        items=len(vocabulary),
        targets=len(wanted_rows),
        unknown_targets=int((wanted_rows == 0).sum()),
        cutoffs=cutoffs,
        metrics={name: found.curves.at(cutoffs) for name, found in measured.items()},
        baselines=lists.baselines,
        best_baseline=best,
        exclude_history=lists.exclude_history,
        lead=lead,
        verdict=verdict(best, lead, cutoffs[-1], len(cases)),
        training=model.metrics,
        data=model.data,
        notes=lists.notes,
        curves={name: found.curves for name, found in measured.items()},
        length_buckets=lengths,
        length_recall={name: analysis.by_length(found.recall, length_bucket) for name, found in measured.items()},
        popularity_buckets=_popularity_buckets(item_bucket, wanted_rows),
        popularity_recall={
            name: analysis.by_popularity(rows[name], found.hit, wanted_rows, item_bucket)
            for name, found in measured.items()
        },
        spread={
            name: analysis.spread(rows[name], analysis.hit_matrix(ranked, cases.history), popularity)
            for name, ranked in lists.ranked.items()
        },
        interests=_interests(model, cases, lists, measured[EXACT], found, seed, on_step),
        served=lists.served,
        agreement=agreements(model, lists, cutoffs),
        examples=_examples(cases, lists, measured[EXACT].hit, found, seed),
    )


def compared_with_best(lists: Lists, measured: dict[str, Measured], seed: int) -> tuple[str, Lead]:
    """Return the baseline with the highest recall, and the lead of `EXACT` over it. `seed` is for drawing users."""
    best = max(lists.baselines, key=lambda name: measured[name].curves.recall[-1])
    return best, analysis.lead(measured[EXACT].recall - measured[best].recall, seed)


def verdict(best: str, lead: Lead, length: int, users: int) -> str:
    """Return a sentence that says whether the model beats the best baseline."""
    if not lead.sure:
        says = "Whether MIND is worth it on these data is open"
    else:
        says = "MIND is worth it on these data" if lead.mean > 0 else "MIND is not worth it on these data"
    points = f"{abs(100 * lead.mean):.2f} points {'above' if lead.mean >= 0 else 'below'}"
    interval = f"95 % interval {100 * lead.low:+.2f} to {100 * lead.high:+.2f}"
    return (
        f"{says}: its Recall@{length} is {points} that of {best}, the best baseline "
        f"({interval}, paired bootstrap over {users:,} users)."
    )


def agreements(model: Artifact, lists: Lists, cutoffs: tuple[int, ...]) -> dict[str, Agreement]:
    """Return the agreement of each served list with `EXACT`."""
    rows = {name: model.vocabulary.item_index(lists.ranked[name]) for name in (EXACT, *lists.served)}
    return {name: analysis.agreement(rows[EXACT], rows[name], cutoffs) for name in lists.served}


def _popularity_buckets(item_bucket: Int64, wanted_rows: Int64) -> list[PopularityBucket]:
    items, targets = np.bincount(item_bucket[1:], minlength=3), np.bincount(item_bucket[wanted_rows], minlength=3)
    return [
        PopularityBucket(name, int(items[number]), int(targets[number]))
        for number, name in enumerate(analysis.POPULARITY_BUCKETS)
    ]


def _interests(
    model: Artifact, cases: EvalCases, lists: Lists, merged: Measured, found: Int64, seed: int, on_step: OnStep
) -> Interests:
    """Measure how distinct the interests are.

    What needs a search for each interest is measured on a sample of the users.
    """
    vectors, length = lists.interest_vectors, merged.hit.shape[1]
    active = np.flatnonzero(vectors.any(axis=(1, 2)))
    size = min(len(active), SAMPLED_USERS)
    sample = np.sort(np.random.default_rng(seed).choice(active, size, replace=False))
    targets = cases.target.take(sample)
    left_out = LeftOut.history(model.vocabulary, cases.history.take(sample)) if lists.exclude_history else None
    count = vectors.shape[1]
    own_rows, own_recall = np.zeros((size, count, length), np.int64), []
    for interest in range(count if size else 0):
        on_step("interests, one by one", interest * size // count, size)
        own_vector = vectors[sample, interest : interest + 1]
        own = nearest_items(own_vector, model.weights.item_embedding, length, left_out=left_out)
        own[~own_vector.any(axis=(1, 2))] = 0
        own_rows[:, interest] = own
        hit = analysis.hit_matrix(item_ids(model.vocabulary, own), targets)
        own_recall.append(float(analysis.user_recall(hit, metrics.distinct_targets(targets)).mean()))
    on_step("interests, one by one", size, size)
    together = float(merged.recall[sample].mean()) if size else 0.0
    return interests(vectors, found, own_rows, sample, own_recall or [0.0] * count, together)


def _examples(cases: EvalCases, lists: Lists, hit: Hits, found: Int64, seed: int) -> list[Example]:
    wanted = metrics.distinct_targets(cases.target)
    hit, ranked = hit[:, :SHOWN_ITEMS], lists.ranked[EXACT][:, :SHOWN_ITEMS]
    chosen = analysis.example_users(analysis.user_recall(hit, wanted), seed)
    examples = []
    for group, users in chosen.items():
        for user in users:
            history = cases.history[user]
            places = zip(ranked[user], found[user], hit[user], np.isin(ranked[user], history), strict=False)
            examples.append(
                Example(
                    group=group,
                    user_id=int(cases.history.user_id[user]),
                    history=history[::-1][:SHOWN_ITEMS].tolist(),
                    history_items=len(history),
                    wanted=int(wanted[user]),
                    candidates=[
                        Candidate(int(item), int(interest), bool(is_hit), bool(seen))
                        for item, interest, is_hit, seen in places
                        if interest >= 0
                    ],
                    cosine=mean_cosine(lists.interest_vectors[user]),
                )
            )
    return examples

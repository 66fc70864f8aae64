"""One evaluation from ranked lists to every number that the report shows. Draws nothing and writes nothing."""

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
"""A function that is told what is under way, how many users are done, and of how many."""

EXACT = "MIND, exact search"
ALONE = "MIND, without neighbours"
"""Exact search where neighbours of the newest clicks are no candidates; `EXACT` is as served, with them if so."""
SHOWN_ITEMS = 20
"""The number of candidates and of history items that are shown of an example user."""
SAMPLED_USERS = 2000
"""The most users whose interests are searched for one by one."""


@dataclass(frozen=True)
class Lists:
    """What is compared: ranked lists by name, [U, N] int64 item ids each, -1 where a list is shorter."""

    ranked: dict[str, Int64]
    baselines: tuple[str, ...]
    """The names of the baselines, which any model must beat."""
    interest_vectors: Float32
    """[U, K, D] float32, the interest vectors that `EXACT` was searched with."""
    served: dict[str, Served] = field(default_factory=dict)
    """The lists that a service gave, by name, and the release that gave them."""
    exclude_history: bool = False
    """Whether no list has an item of the user's history."""
    left_out: int = 0
    """The number of test users that are in none of the lists."""
    notes: list[str] = field(default_factory=list)
    """Sentences about whom the lists are for and what they were made from, where a reader would expect otherwise."""


@dataclass(frozen=True)
class Measured:
    """The hits of one method's lists, and the metrics that follow from them."""

    hit: Hits
    """[U, N] bool, whether the user clicked the candidate afterwards."""
    recall: Float64
    """[U] float64, each user's recall with the whole list."""
    curves: Curves


@dataclass(frozen=True)
class Candidate:
    """A place in an example user's list."""

    item_id: int
    interest: int
    hit: bool
    """The user clicked it afterwards."""
    seen: bool
    """It is in the user's history."""


@dataclass(frozen=True)
class Example:
    """A user to look at."""

    group: str
    user_id: int
    history: list[int]
    """The newest `SHOWN_ITEMS` items of the history, the newest first."""
    history_items: int
    """The number of items in the whole history."""
    wanted: int
    """The number of different items that the user clicked afterwards."""
    candidates: list[Candidate]
    cosine: float | None
    """The mean cosine between two of the user's interests; None for a user with one."""


@dataclass(frozen=True)
class Evaluation:
    """Everything the report shows. All shares are fractions; N is the largest cutoff."""

    model_version: str
    created_at: str
    """When the model was written."""
    users: int
    """The number of test users that are compared, the same ones in every row."""
    left_out: int
    """The number of test users that are not; the notes say why."""
    items: int
    """The number of items in the catalogue, which are those that the model knows."""
    targets: int
    """The number of different (user, item) pairs that are to be found."""
    unknown_targets: int
    """The number of these pairs whose item is not in the training data: no method here can find them."""
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
    """A sentence that says whether the model is worth it on these data."""
    training: dict[str, Any]
    """The artifact's metrics: the epoch that was kept and, in newer artifacts, the curves."""
    data: dict[str, Any]
    """The artifact's fingerprint of the training data."""
    notes: list[str]
    """The notes of the lists."""
    curves: dict[str, Curves]
    length_buckets: list[LengthBucket]
    length_recall: dict[str, list[Mean]]
    """The recall@N of each method in each bucket."""
    popularity_buckets: list[PopularityBucket]
    popularity_recall: dict[str, list[float | None]]
    """The share of the targets in each bucket that each method found with N candidates."""
    spread: dict[str, Spread]
    interests: Interests
    served: dict[str, Served]
    """The lists that a service gave, by name, and the release that gave them."""
    agreement: dict[str, Agreement]
    """How far each served list is `EXACT`."""
    examples: list[Example]


def measure(ranked: Int64, cases: EvalCases) -> Measured:
    """Measure one method's lists, [U, N] int64 item ids."""
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
        model: what is evaluated.
        cases: the test users.
        lists: what was found for them.
        measured: `measure` of each of these lists.
        cutoffs: list lengths of the metrics, ascending; the last is N.
        seed: draws the samples.
        on_step: told of progress.
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
    """The baseline with the highest recall, and how far `EXACT` is ahead of it; `seed` draws the users."""
    best = max(lists.baselines, key=lambda name: measured[name].curves.recall[-1])
    return best, analysis.lead(measured[EXACT].recall - measured[best].recall, seed)


def verdict(best: str, lead: Lead, length: int, users: int) -> str:
    """Say whether the model is worth it, against the best baseline `best`."""
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
    """How far each served list is `EXACT`."""
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
    """How distinct the interests are. What needs a search for each interest is measured on a sample of the users."""
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

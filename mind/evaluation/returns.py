"""Whether people return to items: it decides whether lists have items of the history, unless the user says so.

A shop or a cinema leaves out what somebody has; a player of music should not. Held-out users tell the two apart.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mind.evaluation import metrics
from mind.evaluation.baselines import Pairs, co_occurrence
from mind.evaluation.metrics import SELECTED_BY
from mind.evaluation.retrieval import LeftOut, knows
from mind.sequences import EvalCases, Int64, Sequences, distinct
from mind.vocabulary import Vocabulary

MAX_USERS = 2_000
"""The most held-out users that are looked at."""
MAX_PAIRS = 10_000_000
"""Pairs of items in the training users' clicks that are counted: a second or two, and 300 MB."""
LEFT_OUT = "items of the history left out"
"""What a heading says of lists without items of the history."""
KEPT = "items of the history kept in the lists"
"""What a heading says of other lists."""


@dataclass(frozen=True)
class Returns:
    """How far held-out users return to items, and what that means for lists. Shares are fractions."""

    users: int
    """The number of held-out users that were looked at."""
    returning: float
    """The share of their later clicks, each item once, that are on items of their history."""
    without: float
    """Recall@50 of item co-occurrence, items of the history left out."""
    within: float
    """Recall@50 of item co-occurrence, items of the history kept."""

    @property
    def exclude_history(self) -> bool:
        """Whether lists are better without the items of the history."""
        return self.without >= self.within

    def sentence(self) -> str:
        """What was measured and what follows, for people."""
        without, within = (f"{100 * value:.1f} %" for value in (self.without, self.within))
        return (
            f"{100 * self.returning:.1f} % of the later clicks of {self.users:,} validation users are on items of "
            f"their history. Item co-occurrence has a Recall@50 of {without} with {LEFT_OUT} and of {within} with "
            f"them, so they are {'left out' if self.exclude_history else 'kept'}"
        )

    def recorded(self) -> dict[str, Any]:
        """The figures for a manifest."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def measure_returns(train: Sequences, cases: EvalCases) -> Returns | None:
    """Measure held-out users, `MAX_USERS` at most; None if the training data know no item of anybody's history."""
    vocabulary = Vocabulary(distinct(train.item_id))
    known = np.flatnonzero(knows(vocabulary, cases.history))
    if not len(known):
        return None
    rng = np.random.default_rng(0)  # the same users whatever the seed: models of all seeds are measured alike
    users = cases.take(np.sort(rng.choice(known, min(len(known), MAX_USERS), replace=False)))
    pairs = Pairs.of(vocabulary, train, most=MAX_PAIRS)
    cutoff = max(metrics.CUTOFFS)
    scores = []
    for left_out in (LeftOut.history(vocabulary, users.history), None):
        ranked = co_occurrence(pairs, users.history, cutoff, 64, left_out)
        scores.append(metrics.report(ranked, users.target, metrics.CUTOFFS)[SELECTED_BY])
    return Returns(len(users), share_returning(users), *scores)


def share_returning(cases: EvalCases) -> float:
    """The share of the later clicks, each item of a user once, that are on items of the user's history."""
    items = distinct(np.concatenate([cases.history.item_id, cases.target.item_id]))
    had, later = (_pairs(part, items) for part in (cases.history, cases.target))
    return float(np.isin(later, had).mean())


def _pairs(sequences: Sequences, items: Int64) -> Int64:
    """A number for each different pair of a user and an item of theirs; `items` are all items, ascending."""
    user = np.repeat(np.arange(len(sequences)), sequences.lengths)
    return distinct(user * len(items) + np.searchsorted(items, sequences.item_id))

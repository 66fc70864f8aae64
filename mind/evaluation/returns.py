"""Measures whether users return to items. By default this decides whether lists leave out items of the history.

A shop or a cinema should leave out what a user already has; a music player should not. Held-out users show which case
applies.
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
"""Maximum number of held-out users that are measured."""
MAX_PAIRS = 10_000_000
"""Maximum number of pairs of items in the training users' clicks that are counted; it takes 1 to 2 s and 300 MB."""
LEFT_OUT = "items of the history left out"
"""The words for lists without items of the history, in headings."""
KEPT = "items of the history kept in the lists"
"""The words for lists with items of the history, in headings."""


@dataclass(frozen=True)
class Returns:
    """How often held-out users return to items, and which lists are better. Shares are fractions."""

    users: int
    """Number of held-out users that were measured."""
    returning: float
    """The share of their later clicks, counting each item once, that are on items of their history."""
    without: float
    """Recall@50 of item co-occurrence with items of the history left out."""
    within: float
    """Recall@50 of item co-occurrence with items of the history kept."""

    @property
    def exclude_history(self) -> bool:
        """Return whether lists are better without the items of the history."""
        return self.without >= self.within

    def sentence(self) -> str:
        """Return a sentence about the measurement and its consequence."""
        without, within = (f"{100 * value:.1f} %" for value in (self.without, self.within))
        return (
            f"{100 * self.returning:.1f} % of the later clicks of {self.users:,} validation users are on items of "
            f"their history. Item co-occurrence has a Recall@50 of {without} with {LEFT_OUT} and of {within} with "
            f"them, so they are {'left out' if self.exclude_history else 'kept'}"
        )

    def recorded(self) -> dict[str, Any]:
        """Return the figures to record in a manifest."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def measure_returns(train: Sequences, cases: EvalCases) -> Returns | None:
    """Measure at most `MAX_USERS` held-out users. Return None if the training data have no item of any history."""
    vocabulary = Vocabulary(distinct(train.item_id))
    known = np.flatnonzero(knows(vocabulary, cases.history))
    if not len(known):
        return None
    rng = np.random.default_rng(0)  # the same users for every seed, so that models of all seeds are measured alike
    users = cases.take(np.sort(rng.choice(known, min(len(known), MAX_USERS), replace=False)))
    pairs = Pairs.of(vocabulary, train, most=MAX_PAIRS)
    cutoff = max(metrics.CUTOFFS)
    scores = []
    for left_out in (LeftOut.history(vocabulary, users.history), None):
        ranked = co_occurrence(pairs, users.history, cutoff, 64, left_out)
        scores.append(metrics.report(ranked, users.target, metrics.CUTOFFS)[SELECTED_BY])
    return Returns(len(users), share_returning(users), *scores)


def share_returning(cases: EvalCases) -> float:
    """Return the share of the later clicks, each item of a user counting once, that are on items of the history."""
    items = distinct(np.concatenate([cases.history.item_id, cases.target.item_id]))
    had, later = (_pairs(part, items) for part in (cases.history, cases.target))
    return float(np.isin(later, had).mean())


def _pairs(sequences: Sequences, items: Int64) -> Int64:
    """Return a number for each different pair of a user and an item. `items` are all items, ascending."""
    user = np.repeat(np.arange(len(sequences)), sequences.lengths)
    return distinct(user * len(items) + np.searchsorted(items, sequences.item_id))

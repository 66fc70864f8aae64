"""Chooses the test users of an evaluation. They are the same in every row, and every method gives them a personal list.

If the model knows no item of a history, exact search has nothing to search with, and a service returns the popular
list. Neither result says anything about the model, and the two cannot be compared.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mind.errors import DataError
from mind.evaluation.candidates import PERSONAL, Candidates
from mind.evaluation.retrieval import knows
from mind.sequences import EvalCases
from mind.vocabulary import Mask, Vocabulary


@dataclass(frozen=True)
class Compared:
    """The test users of every row, and the reasons why others are left out."""

    cases: EvalCases
    given: dict[Path, Candidates]
    """The lists of these users that other programs made, by file."""
    left_out: int
    """Number of test users that are in no row."""
    notes: list[str]
    """A sentence for each reason to leave users out."""


def compared(cases: EvalCases, vocabulary: Vocabulary, given: dict[Path, Candidates]) -> Compared:
    """Leave out the test users to whom at least one method gives no personal list.

    Raises:
        DataError: no user is left.
    """
    known = knows(vocabulary, cases.history)
    empty = cases.history.lengths == 0
    reasons, kept = [], known
    if count := int((~known).sum()):
        reasons.append(
            f"the model knows no item of the history of {count:,} (without any history: {int(empty.sum()):,}), "
            "and a service gives them the popular list"
        )
    for file, candidates in given.items():
        out = kept & ~np.isin(candidates.status, PERSONAL)
        kept = kept & ~out
        if out.any():
            reasons.append(f"{file.name} has no personal list for {int(out.sum()):,} ({_statuses(candidates, out)})")
    left_out = int((~kept).sum())
    if left_out == len(cases):
        raise DataError(f"none of {len(cases):,} test users can be compared: {'; '.join(reasons)}")
    notes = [f"Users in no row: {left_out:,} of {len(cases):,}; {'; '.join(reasons)}."] if left_out else []
    users = np.flatnonzero(kept)
    return Compared(cases.take(users), {file: one.take(users) for file, one in given.items()}, left_out, notes)


def _statuses(candidates: Candidates, out: Mask) -> str:
    """Return the statuses of the users who are left out, their numbers, and the first reason of the service."""
    words = []
    for status, count in Counter(candidates.status[out].tolist()).most_common():
        said = next((text for text in candidates.detail[out & (candidates.status == status)] if text), "")
        words.append(f"{count:,} {status}" + (f": {said}" if said else ""))
    return ", ".join(words)

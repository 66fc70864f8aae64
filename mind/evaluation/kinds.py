"""Restricts an evaluation to targets of some kinds, such as purchases."""

from collections.abc import Sequence

import numpy as np

from mind.errors import DataError
from mind.sequences import EvalCases, Int64


def of_kinds(cases: EvalCases, kinds: Sequence[str]) -> tuple[EvalCases, Int64]:
    """Return the test users who have targets of some kinds, with only these targets, and the positions of these users.

    Raises:
        DataError: the data have no kinds, no target has one of these kinds, or the data do not have a given kind.
    """
    role, roles = cases.target.role, cases.target.roles
    if role is None or roles is None:
        raise DataError(
            "--targets-of: the test data have no kinds of clicks; prepare them with --event, the column of the kinds"
        )
    of_target = np.array(roles.kinds)[role]
    names, counts = np.unique(of_target, return_counts=True)
    if unknown := [kind for kind in kinds if kind not in names]:
        there = ", ".join(f"{name} ({count:,})" for name, count in zip(names, counts.tolist(), strict=True))
        raise DataError(f"--targets-of names {unknown[0]}, which no target of the test users is; there are: {there}")
    target = cases.target.where(np.isin(of_target, kinds))
    users = np.flatnonzero(target.lengths)
    return EvalCases(cases.history, target).take(users), users

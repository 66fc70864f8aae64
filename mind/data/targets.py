"""Assigns a role to every click by its kind, and removes the clicks that have no role."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mind.data.columns import Mask
from mind.data.events import Kind, repeats
from mind.data.interactions import Interactions
from mind.events import Roles
from mind.sequences import Int64

EXCLUDING, LEFT_OUT, EXCLUDED = "of kinds that exclude", "of kinds left out", "excluded targets"


@dataclass(frozen=True)
class KindCount:
    """The result for the clicks of one kind."""

    kind: Kind
    clicks: int
    folded: int
    """Number of repeats within the span of --once-per."""
    excluded: int
    """Number of clicks that are no targets because the user did something else with the item, such as returning it."""
    targets: int
    """Number of clicks that are targets."""


@dataclass(frozen=True)
class Assigned:
    """Clicks with their roles."""

    interactions: Interactions
    left_out: dict[str, Interactions]
    """The clicks that have no role, by cause."""
    counts: list[KindCount]
    """The count of each kind, the most frequent kind first; empty without kinds."""


def assign(interactions: Interactions, kinds: Sequence[Kind], once_per: str | None, span: int) -> Assigned:
    """Assign roles to clicks.

    Args:
        interactions: the interactions, sorted by user and time, with kinds if the data have them.
        kinds: the use of each kind; empty without kinds.
        once_per: the span in which a repeat of a click on an item does not count, as text for messages; None for none.
        span: the same span in the unit of the timestamps.
    """
    if interactions.code is None and not once_per:
        return Assigned(interactions, {}, [])  # without a copy, because memory use is highest here
    folded = np.zeros(len(interactions), np.bool_)
    if once_per:
        folded = repeats(_same(interactions), interactions.timestamp, span)
    left_out = {f"repeated within {once_per}": interactions.take(folded)} if once_per else {}
    if interactions.code is None:
        return Assigned(interactions.take(~folded), left_out, [])
    history, excludes = (np.array([getattr(kind, name) for kind in kinds]) for name in ("is_history", "excludes"))
    weight = np.array([kind.weight for kind in kinds])
    code = interactions.code
    excluded = (weight[code] > 0) & _of_pairs(interactions, excludes[code])
    target = (weight[code] > 0) & ~excluded
    kept = ~folded & (history[code] | target)
    gone = ~folded & ~kept
    for cause, among in ((EXCLUDING, excludes[code]), (EXCLUDED, excluded), (LEFT_OUT, ~(excludes[code] | excluded))):
        if (gone & among).any():
            left_out[cause] = interactions.take(gone & among)
    clicks, folds, *others = (
        np.bincount(code[mask], minlength=len(kinds))
        for mask in (np.ones(len(code), np.bool_), folded, excluded & ~folded, target & ~folded)
    )
    numbers = np.stack([clicks, folds, *others], axis=1).tolist()
    counts = [KindCount(kinds[at], *numbers[at]) for at in np.argsort(-clicks, kind="stable")]
    return Assigned(_with_roles(interactions, kinds, target).take(kept), left_out, counts)


def _with_roles(interactions: Interactions, kinds: Sequence[Kind], target: Mask) -> Interactions:
    """Replace the kind of each click by its role.

    A kind has a second role for clicks that are not targets after all.
    """
    rows = [(kind.name, kind.is_history, kind.weight) for kind in kinds]
    code = interactions.code
    assert code is not None  # noqa: S101 - the caller has kinds
    other = ~target & (np.array([kind.weight for kind in kinds]) > 0)[code]
    used = np.unique(code[other])
    number = np.zeros(len(kinds), np.uint8)
    number[used] = len(rows) + np.arange(len(used))
    rows += [(kinds[at].name, kinds[at].is_history, 0.0) for at in used]
    return replace(interactions, code=np.where(other, number[code], code), roles=Roles.of(rows))


def _same(interactions: Interactions) -> tuple[Int64, ...]:
    columns = (interactions.item_id, interactions.user_id)
    return columns if interactions.code is None else (interactions.code.astype(np.int64), *columns)


def _of_pairs(interactions: Interactions, excludes: Mask) -> Mask:
    """Return which clicks have a user and an item with a click that excludes the item: [N] bool."""
    order = np.lexsort((interactions.item_id, interactions.user_id))
    user, item = interactions.user_id[order], interactions.item_id[order]
    start = np.append(True, (user[1:] != user[:-1]) | (item[1:] != item[:-1]))[: len(order)]
    pair = np.cumsum(start) - 1
    found = np.zeros(len(order), np.bool_)
    found[order] = np.isin(pair, pair[excludes[order]])
    return found

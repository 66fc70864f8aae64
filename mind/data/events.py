"""Kinds of clicks in files: reads a column of them, gives every click its role, and folds repeats.

Works on whole columns: Python code runs for every kind, not for every row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mind.data.columns import Float64, Mask, parse_numbers
from mind.data.tables import Columns
from mind.errors import DataError
from mind.events import MAX_KINDS, OTHER, EventRules, Events, Role, any_holds, condition_of
from mind.sequences import Int64

_SHOWN = 20
"""The most kinds that an error lists."""


@dataclass(frozen=True)
class Kind:
    """What clicks of one kind are for."""

    name: str
    """The text in the file, or the condition that holds."""
    is_history: bool
    weight: float
    """Of such a click as a target; 0 if it is none."""
    excludes: bool
    """Whether it takes the item out of the user's targets."""


@dataclass(frozen=True)
class KindColumn:
    """The kind of each of N rows."""

    code: Role
    """[N] position in `kinds`; 0 where there is none."""
    valid: Mask
    """[N] bool, where there is one."""
    kinds: tuple[Kind, ...]
    rules: EventRules
    """What is to be remembered of them."""


def read_kinds(path: Path, found: Columns, name: str, wish: Events, known: EventRules | None = None) -> KindColumn:
    """Read a column of kinds.

    Args:
        path: the file, for messages.
        found: its columns.
        name: which of them.
        wish: what the kinds are for.
        known: the rules of a model, whose data had all kinds; None for the data themselves.

    Raises:
        DataError: a kind that is named does not occur, or no kind is a target; or a kind is not known; or the column
            holds something else.
    """
    column = found.table.column(name)
    if pa.types.is_list(column.type):
        raise DataError(f"{path}: {name} has lists; kinds of events are texts, or numbers such as ratings")
    named = [*(wish.history or ()), *(wish.target or {}), *wish.exclude]
    if any(map(condition_of, named)):
        return _by_conditions(path, name, column, wish, known is None)
    return _by_name(path, name, column, wish, known)


def _by_name(path: Path, name: str, column: pa.ChunkedArray, wish: Events, known: EventRules | None) -> KindColumn:
    coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    names, valid = coded.dictionary.to_pylist(), coded.is_valid().to_numpy(zero_copy_only=False)
    code = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    counts = np.bincount(code[valid], minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{names[at]} ({counts[at]:,})" for at in order[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
    if len(names) > MAX_KINDS:
        raise DataError(
            f"{path}: {name} has {len(names):,} different values, kinds of events are at most {MAX_KINDS}; for numbers "
            "give a condition such as --target '>=4', or name another column"
        )
    if known is None:
        _check_names(path, name, wish, names, shown)
    elif others := [one for one in names if one not in known.known]:
        raise DataError(f"{path}: {name} has {others[0]}; the model knows {', '.join(known.known)}; there are: {shown}")
    history = wish.history if wish.history is not None else tuple(one for one in names if one not in wish.exclude)
    target = wish.target if wish.target is not None else {one: 1.0 for one in history if one not in wish.exclude}
    kinds = tuple(Kind(one, one in history, target.get(one, 0.0), one in wish.exclude) for one in names)
    if known is None:
        _check_targets(path, name, kinds, shown)
    left_out = tuple(one for one in names if one not in (*history, *target, *wish.exclude))
    rules = EventRules(
        column=name,
        history=tuple(one for one in names if one in history),
        target={one: target[one] for one in names if one in target},
        exclude=wish.exclude,
        left_out=left_out,
        once_per=wish.once_per,
    )
    return KindColumn(code.astype(np.uint8), valid, kinds, rules)


def _check_names(path: Path, name: str, wish: Events, names: Sequence[str], shown: str) -> None:
    """Raise DataError if a kind that is named does not occur."""
    for option, wanted in (("history", wish.history), ("target", wish.target), ("exclude", wish.exclude)):
        for kind in wanted or ():
            if kind not in names:
                raise DataError(f"{path}: --{option} names {kind}, which no row has in {name}; there are: {shown}")


def _by_conditions(path: Path, name: str, column: pa.ChunkedArray, wish: Events, strict: bool) -> KindColumn:
    """Tell kinds by the first condition of the targets that holds, else of the exclusions, else of the histories."""
    values, valid = parse_numbers(column)
    excludes = any_holds(wish.exclude, values)
    history = ~excludes if wish.history is None else any_holds(wish.history, values)
    if wish.target is None:
        weights, target = {}, np.where(history & ~excludes, 1.0, 0.0)
    else:
        weights, target = wish.target, np.zeros(len(values))
    named = np.full(len(values), len(weights) + len(wish.exclude) + len(wish.history or ()), np.int64)
    labels = [*weights, *wish.exclude, *(wish.history or ()), OTHER]
    for number in range(len(labels) - 2, -1, -1):  # the first one that holds is written last
        holds = any_holds((labels[number],), values)
        named[holds] = number
        if number < len(weights):
            target[holds] = weights[labels[number]]
    target[excludes] = 0.0
    key = (named * 2 + history) * 2 + excludes
    different, first, code = np.unique(key[valid], return_index=True, return_inverse=True)
    at = np.flatnonzero(valid)[first]
    kinds = tuple(
        Kind(labels[named[row]], bool(history[row]), float(target[row]), bool(excludes[row])) for row in at.tolist()
    )
    reach = f"from {values[valid].min():g} to {values[valid].max():g}" if valid.any() else "not there"
    if len(different) > MAX_KINDS:
        raise DataError(f"{path}: the conditions part {name} into {len(different)} kinds, at most are {MAX_KINDS}")
    if strict and len(different):
        _check_targets(path, name, kinds, f"numbers {reach}")
    whole = np.zeros(len(values), np.uint8)
    whole[valid] = code
    target_rules = weights or {one: 1.0 for one in wish.history or () if one not in wish.exclude}
    rules = EventRules(
        column=name, history=wish.history, target=target_rules, exclude=wish.exclude, once_per=wish.once_per
    )
    return KindColumn(whole, valid, kinds, rules)


def _check_targets(path: Path, name: str, kinds: tuple[Kind, ...], shown: str) -> None:
    if not any(kind.weight for kind in kinds):
        raise DataError(f"{path}: no row is a target by {name}; there are: {shown}")
    if not any(kind.is_history for kind in kinds):
        raise DataError(f"{path}: no row is history by {name}; there are: {shown}")


def repeats(columns: tuple[Int64 | Role, ...], time: Int64 | Float64, span: int) -> Mask:
    """Which clicks repeat one of less than a span before, the first of a span counting: [N] bool.

    Args:
        columns: [N] each; clicks that are equal in all of them are the same.
        time: [N], in the unit of `span`.
        span: how long a click stands for those after it.
    """
    order = np.lexsort((time, *columns))
    sorted_time = time[order]
    same = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    close = same & (np.diff(sorted_time) < span)
    # A click that is not close to the one before begins a run; only inside of runs anything repeats.
    run = np.append(0, np.cumsum(~close))[: len(order)]
    kept = np.append(True, ~close)[: len(order)]
    following = _first_from(run, sorted_time, span)
    current = np.flatnonzero(kept)
    while len(current):
        after = following[current]
        inside = after < len(order)
        inside[inside] &= run[after[inside]] == run[current[inside]]
        current = after[inside]
        kept[current] = True
    repeated = np.zeros(len(order), np.bool_)
    repeated[order[~kept]] = True
    return repeated


def _first_from(run: Int64, time: Int64 | Float64, span: int) -> Int64:
    """Where the first click stands that is a span or more after each in a run, or where the next run begins: [N]."""
    count = len(run)
    is_click = np.repeat([False, True], count)
    order = np.lexsort((is_click, np.concatenate([time + span, time]), np.tile(run, 2)))
    before = np.cumsum(is_click[order])
    following = np.zeros(count, np.int64)
    asked = order < count
    following[order[asked]] = before[asked]
    return np.maximum(following, np.arange(1, count + 1))  # a time so large that the span is lost in it

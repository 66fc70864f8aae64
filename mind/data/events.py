"""Reads the kinds of clicks from a column of a file, gives every click its role, and drops repeated clicks.

The module works on whole columns: Python code runs for every kind, not for every row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mind.data.columns import Float64, Mask, parse_numbers
from mind.data.tables import Columns
from mind.errors import DataError
from mind.events import MAX_KINDS, OTHER, EventRules, Events, Role, any_holds, condition_of
from mind.sequences import Int64

_SHOWN = 20
"""Maximum number of kinds that an error lists."""


@dataclass(frozen=True)
class Kind:
    """The use of the clicks of one kind."""

    name: str
    """The text in the file, or the condition that is true."""
    is_history: bool
    weight: float
    """Weight of such a click as a target; 0 if it is not a target."""
    excludes: bool
    """Whether such a click removes the item from the user's targets."""


@dataclass(frozen=True)
class Kinds:
    """The kinds of a column. The code of a row is the position of its kind."""

    kinds: tuple[Kind, ...]
    rules: EventRules
    """The rules to record in the prepared data."""


class KindColumn:
    """A column of kinds that is read piece by piece."""

    def __init__(self, wish: Events, known: EventRules | None = None) -> None:
        """Begin with no values.

        Args:
            wish: the name of the column, and the use of its kinds.
            known: the rules of a model, whose data had all kinds; None when data are prepared.
        """
        self.name = wish.column or ""
        self._wish, self._known = wish, known
        self._conditions = [*(wish.target or {}), *wish.exclude, *(wish.history or ())]
        self._has_numbers = any(map(condition_of, self._conditions))
        self.expected = "a number" if self._has_numbers else "a text"
        """The expected form of a value, in words, for messages."""
        self.begin_again()

    def begin_again(self) -> None:
        """Forget the values that were read."""
        self._codes: dict[Any, int] = {}  # the code of each text, or of each key that says which conditions are true
        self._counts = np.zeros(0, np.int64)  # the number of rows by code
        self._lowest, self._highest = np.inf, -np.inf

    def read(self, found: Columns) -> tuple[Role, Mask]:
        """Read a piece. Return the code of each row, [N] uint8, 0 if it has no kind; and whether it has one, [N] bool.

        Raises:
            DataError: the column has too many kinds, or it has lists.
        """
        column = found.table.column(self.name)
        if pa.types.is_list(column.type):
            raise DataError(
                f"{found.file}: {self.name} has lists; kinds of events are texts, or numbers such as ratings"
            )
        coded = (self._keys(column) if self._has_numbers else column.cast(pa.string())).combine_chunks()
        coded = coded.dictionary_encode()
        valid = coded.is_valid().to_numpy(zero_copy_only=False)
        of_value = [self._codes.setdefault(value, len(self._codes)) for value in coded.dictionary.to_pylist()]
        if len(self._codes) > MAX_KINDS:
            raise DataError(f"{found.file}: {self._too_many()}")
        code = np.array([*of_value, 0], np.uint8)[coded.indices.fill_null(len(of_value)).to_numpy()]
        counts = np.bincount(code[valid], minlength=len(self._codes))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        return code, valid

    def _keys(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return a key for each number that says which conditions are true; null if none is.

        A kind is the first condition that is true: first the targets, then the exclusions, then the histories.
        """
        values, valid = parse_numbers(column)
        if valid.any():
            self._lowest = min(self._lowest, values[valid].min())
            self._highest = max(self._highest, values[valid].max())
        excludes = any_holds(self._wish.exclude, values)
        history = ~excludes if self._wish.history is None else any_holds(self._wish.history, values)
        named = np.full(len(values), len(self._conditions), np.int64)
        for number in range(len(self._conditions) - 1, -1, -1):  # the first condition that is true is written last
            named[any_holds((self._conditions[number],), values)] = number
        return pa.chunked_array([pa.array((named * 2 + history) * 2 + excludes, mask=~valid)])

    def _too_many(self) -> str:
        if self._has_numbers:
            return f"the conditions part {self.name} into {len(self._codes)} kinds, at most are {MAX_KINDS}"
        return (
            f"{self.name} has {len(self._codes):,} different values, kinds of events are at most {MAX_KINDS}; for "
            "numbers give a condition such as --target '>=4', or name another column"
        )

    def settled(self, where: str) -> Kinds:
        """Return the kinds of all pieces, with their uses.

        Args:
            where: the input, for messages.

        Raises:
            DataError: a kind that is named does not occur, no kind is a target, no kind is history, or the model does
                not know a kind.
        """
        return self._by_conditions(where) if self._has_numbers else self._by_name(where)

    def _by_name(self, where: str) -> Kinds:
        wish, known, names, counts = self._wish, self._known, list(self._codes), self._counts
        order = np.argsort(-counts, kind="stable")
        shown = ", ".join(f"{names[at]} ({counts[at]:,})" for at in order[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
        if known is None:
            _check_names(where, self.name, wish, names, shown)
        elif others := [one for one in names if one not in known.known]:
            raise DataError(
                f"{where}: {self.name} has {others[0]}; the model knows {', '.join(known.known)}; there are: {shown}"
            )
        history = wish.history if wish.history is not None else tuple(one for one in names if one not in wish.exclude)
        target = wish.target if wish.target is not None else {one: 1.0 for one in history if one not in wish.exclude}
        kinds = tuple(Kind(one, one in history, target.get(one, 0.0), one in wish.exclude) for one in names)
        if known is None:
            _check_targets(where, self.name, kinds, shown)
        rules = EventRules(
            column=self.name,
            history=tuple(one for one in names if one in history),
            target={one: target[one] for one in names if one in target},
            exclude=wish.exclude,
            left_out=tuple(one for one in names if one not in (*history, *target, *wish.exclude)),
            once_per=wish.once_per,
        )
        return Kinds(kinds, rules)

    def _by_conditions(self, where: str) -> Kinds:
        wish = self._wish
        kinds = tuple(self._kind(*divmod(key, 4)) for key in self._codes)
        if self._known is None and kinds:
            _check_targets(where, self.name, kinds, f"numbers from {self._lowest:g} to {self._highest:g}")
        target = wish.target or {one: 1.0 for one in wish.history or () if one not in wish.exclude}
        rules = EventRules(
            column=self.name, history=wish.history, target=target, exclude=wish.exclude, once_per=wish.once_per
        )
        return Kinds(kinds, rules)

    def _kind(self, named: int, roles: int) -> Kind:
        """Return the kind of a key.

        `named` is the position of its condition. `roles` is 2 for history, plus 1 if it excludes.
        """
        is_history, excludes = bool(roles & 2), bool(roles & 1)
        targets = list((self._wish.target or {}).values())
        weight = targets[named] if named < len(targets) else 0.0
        if self._wish.target is None:
            weight = float(is_history)
        return Kind([*self._conditions, OTHER][named], is_history, 0.0 if excludes else weight, excludes)


def _check_names(where: str, name: str, wish: Events, names: Sequence[str], shown: str) -> None:
    """Raise DataError if a kind that is named does not occur in the data."""
    for option, wanted in (("history", wish.history), ("target", wish.target), ("exclude", wish.exclude)):
        for kind in wanted or ():
            if kind not in names:
                raise DataError(f"{where}: --{option} names {kind}, which no row has in {name}; there are: {shown}")


def _check_targets(where: str, name: str, kinds: tuple[Kind, ...], shown: str) -> None:
    if not any(kind.weight for kind in kinds):
        raise DataError(f"{where}: no row is a target by {name}; there are: {shown}")
    if not any(kind.is_history for kind in kinds):
        raise DataError(f"{where}: no row is history by {name}; there are: {shown}")


def repeats(columns: tuple[Int64 | Role, ...], time: Int64 | Float64, span: int) -> Mask:
    """Return which clicks repeat a click less than a span before, counted from the first click of the span: [N] bool.

    Args:
        columns: [N] each; two clicks are the same if they are equal in all columns.
        time: [N], the time of each click, in the unit of `span`.
        span: the time after a click in which the same click is a repeat.
    """
    order = np.lexsort((time, *columns))
    sorted_time = time[order]
    same = np.all([column[order[1:]] == column[order[:-1]] for column in columns], axis=0)
    close = same & (np.diff(sorted_time) < span)
    # A click that is not close to the one before begins a run. Repeats occur only within runs.
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
    """Return the position of the first click of the same run at least a span later, or of the next run: [N]."""
    count = len(run)
    is_click = np.repeat([False, True], count)
    order = np.lexsort((is_click, np.concatenate([time + span, time]), np.tile(run, 2)))
    before = np.cumsum(is_click[order])
    following = np.zeros(count, np.int64)
    asked = order < count
    following[order[asked]] = before[asked]
    return np.maximum(following, np.arange(1, count + 1))  # for a time so large that adding the span does not change it

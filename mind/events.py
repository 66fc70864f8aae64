"""Kinds of clicks: which are history, and which are targets with what weight. Knows nothing of files.

A kind is a text, such as view or buy, or a condition on a number, such as >=4 for ratings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator

from mind.errors import DataError

MAX_KINDS = 100
"""Maximum number of kinds of a column. A column with more values does not hold kinds."""
MAX_WEIGHT = 1_000.0
"""Maximum weight of a target."""
OTHER = "other"
"""The name for a number that matches no condition."""

SPAN = re.compile("([0-9]{1,6})([smhdw])")
"""A span of time, such as 30m: a number of seconds, minutes, hours, days or weeks."""

_CONDITION = re.compile(r"(>=|<=|>|<)\s*(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+))")
_SIGNS = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less}

Mask = npt.NDArray[np.bool_]
Role = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Condition:
    """A condition on a number, such as >=4."""

    sign: str
    number: float

    def holds(self, values: npt.NDArray[np.float64]) -> Mask:
        """Return for which values the condition is true: [N] bool."""
        found: Mask = _SIGNS[self.sign](values, self.number)
        return found


def condition_of(kind: str) -> Condition | None:
    """Return a kind as a condition, or None if it is a text."""
    found = _CONDITION.fullmatch(kind)
    return Condition(found[1], float(found[2])) if found else None


def begins_as_condition(text: str) -> str:
    """Return the condition at the beginning of a text such as `>=4=2`; empty if there is none."""
    found = _CONDITION.match(text)
    return found[0] if found else ""


@dataclass(frozen=True)
class Roles:
    """The roles of clicks. Data files name a role by its position here, 0 to R - 1."""

    kinds: tuple[str, ...]
    """[R]: the kind of the clicks with this role. A kind has two roles if some of its clicks are targets and others are
    not, because their item is excluded.
    """
    is_history: Mask
    """[R]: whether a click with this role belongs to the history of later clicks."""
    weight: npt.NDArray[np.float32]
    """[R]: the weight of a click with this role as a target; 0 if it is not a target."""

    @classmethod
    def of(cls, rows: Sequence[tuple[str, bool, float]]) -> "Roles":
        """Make roles from the kind, history and weight of each."""
        kinds, is_history, weight = zip(*rows, strict=True)
        return cls(tuple(kinds), np.array(is_history, np.bool_), np.array(weight, np.float32))

    def rows(self) -> list[tuple[str, bool, float]]:
        """Return the kind, history and weight of each role, as plain data."""
        weights = [round(weight, 6) for weight in self.weight.tolist()]
        return list(zip(self.kinds, self.is_history.tolist(), weights, strict=True))


class Events(BaseModel):
    """The section `events`: what clicks of each kind are for. `mind.prepare -m` reads it; training does not."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    column: str | None = None
    """Column of the kind of every click, such as view or buy; or of its rating."""
    history: tuple[str, ...] | None = None
    """Kinds that histories consist of, or conditions such as >=3; null: every kind that is not excluded."""
    target: dict[str, float] | None = None
    """Kinds that a model learns to predict, with weights, or conditions such as >=4; null: those of the histories."""
    exclude: tuple[str, ...] = ()
    """Kinds such as return or dislike: the item is none of this user's targets."""
    once_per: str | None = None
    """Span such as 30m, in which the same click of a user on the same item counts once."""

    @field_validator("history", "exclude", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _list_of(value)

    @field_validator("target", mode="before")
    @classmethod
    def _weighted(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(kind): weight for kind, weight in value.items()}
        return value if value is None else _weights_of(_list_of(value))

    @model_validator(mode="after")
    def _make_sense(self) -> "Events":
        kinds = [*(self.history or ()), *(self.target or {}), *self.exclude]
        if kinds and not self.column:
            raise ValueError("history, target and exclude need --event, the column of kinds (`column` in a YAML file)")
        if "" in kinds:
            raise ValueError("a kind is empty")
        if self.history == () or self.target == {}:
            raise ValueError("history and target name at least one kind each, or are left out")
        for kind, weight in (self.target or {}).items():
            if not 0 < weight <= MAX_WEIGHT:
                raise ValueError(
                    f"target: the weight of {kind} is {weight:g}, must be above 0 and at most {MAX_WEIGHT:g}"
                )
            if kind in self.exclude:
                raise ValueError(f"{kind} is in target and in exclude")
        span = SPAN.fullmatch(self.once_per or "1s")
        if span is None or not int(span[1]):
            raise ValueError(f"once_per is {self.once_per!r}, must be a span such as 30m: a number of s, m, h, d or w")
        conditions = [kind for kind in kinds if condition_of(kind)]
        if conditions and len(conditions) < len(kinds):
            text = next(kind for kind in kinds if kind not in conditions)
            raise ValueError(f"{conditions[0]} is a condition on numbers and {text} is not: all kinds are of one sort")
        return self


def _list_of(value: Any) -> Any:
    """Return kinds as a list; the kinds of a text are separated by commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, list):
        value = [str(one) if isinstance(one, int | float) and not isinstance(one, bool) else one for one in value]
        if len(set(map(str, value))) < len(value):
            raise ValueError("a kind is named twice")
    return value


def _weights_of(kinds: Any) -> Any:
    """Return the weights of kinds such as buy=3, cart or >=4=2. A kind without a weight has 1."""
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        return kinds
    weights = {}
    for one in kinds:
        condition = begins_as_condition(one)
        name, equals, weight = (
            (condition, *one[len(condition) :].partition("=")[1:]) if condition else one.partition("=")
        )
        if condition and one != condition + equals + weight:
            raise ValueError(f"{one} is not a condition such as >=4, or >=4=2 with a weight")
        if name.strip() in weights:
            raise ValueError(f"{name.strip()} is named twice")
        try:
            weights[name.strip()] = float(weight) if equals else 1.0
        except ValueError:
            raise ValueError(f"the weight of {name.strip()} is {weight!r}, must be a number") from None
    return weights


class EventRules(BaseModel):
    """The use of kinds that the data of a model recorded."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    column: str
    """The column of kinds in the prepared file."""
    history: tuple[str, ...] | None = None
    """Kinds that belong to histories; None for every number that is not excluded."""
    target: dict[str, float] = {}
    """Kinds that are targets, with their weights."""
    exclude: tuple[str, ...] = ()
    """Kinds that exclude an item from the user's targets."""
    left_out: tuple[str, ...] = ()
    """Other kinds in the data."""
    once_per: str | None = None
    """The span in which a repeat of a user's click on an item does not count."""

    def as_events(self) -> Events:
        """Return the rules as options, to prepare another file."""
        return Events(column=self.column, history=self.history, target=self.target or None, exclude=self.exclude)

    @property
    def has_numbers(self) -> bool:
        """Return whether kinds are conditions on numbers."""
        return any(map(condition_of, (*self.target, *self.exclude, *(self.history or ()))))

    def is_history(self, kind: str) -> bool:
        """Return whether clicks of a kind belong to histories.

        Args:
            kind: the text in the file, or a number if kinds are conditions.

        Raises:
            DataError: the kind is not known. The message names the known kinds.
        """
        if not self.has_numbers:
            if kind in (self.history or ()):
                return True
            if kind in self.target or kind in self.exclude or kind in self.left_out:
                return False
            raise DataError(f"is {kind[:50]!r}, known are: {', '.join(self.known)}")
        try:
            number = np.array([float(kind)])
        except ValueError:
            number = np.array([np.nan])
        if not np.isfinite(number[0]):
            raise DataError(f"is {kind[:50]!r}, must be a number, as the kinds of the model are")
        if self.history is None:
            return not any_holds(self.exclude, number)[0]
        return bool(any_holds(self.history, number)[0])

    @property
    def known(self) -> list[str]:
        """Return all known kinds that are texts, those of histories first."""
        return list(dict.fromkeys([*(self.history or ()), *self.target, *self.exclude, *self.left_out]))


def any_holds(kinds: Sequence[str], values: npt.NDArray[np.float64]) -> Mask:
    """Return for which values at least one condition is true: [N] bool."""
    found = np.zeros(len(values), np.bool_)
    for kind in kinds:
        if condition := condition_of(kind):
            found |= condition.holds(values)
    return found


def rules_of(recorded: dict[str, Any] | None) -> EventRules | None:
    """Read the rules that data or a model recorded; None if they have no kinds. Raises DataError."""
    if not recorded or "column" not in recorded:
        return None
    try:
        return EventRules.model_validate(recorded)
    except ValidationError as error:
        raise DataError(f"events: {error.errors()[0]['msg']}; prepare the data again") from error


_ROWS = TypeAdapter(list[tuple[str, bool, float]])


def roles_of(recorded: dict[str, Any]) -> Roles | None:
    """Read the roles that data recorded; None if their clicks have no roles. Raises DataError."""
    if "roles" not in recorded:
        return None
    try:
        rows = _ROWS.validate_python(recorded["roles"])
    except ValidationError as error:
        raise DataError(f"roles: {error.errors()[0]['msg']}") from error
    if not 1 <= len(rows) <= 2 * MAX_KINDS:
        raise DataError(f"roles: there are {len(rows)}, must be 1 to {2 * MAX_KINDS}")
    return Roles.of(rows)

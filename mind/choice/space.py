"""Reads the settings that a search tries, written on the command line as `KEY=[a, b, c]` or `KEY=low..high`.

Every key and value is checked against the configuration before the first trial. This module knows nothing of how values
are chosen.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mind.config import FOLLOWERS as FOLLOWING
from mind.config import Config, Effect, flatten, load_config, runner_keys
from mind.errors import ConfigError

FOLLOWERS = {f"hyper_parameters.{leader}": f"hyper_parameters.{follower}" for leader, follower in FOLLOWING.items()}
"""Dotted keys that always equal another key, with that other key."""
FIXED = {f"runner.{key}" for key in runner_keys(Effect.NOTHING, Effect.ROUNDING)}
"""Dotted keys that are not settings of the model. They are the same in all trials."""
LOG_FROM = 10.0
"""Minimum ratio of the ends of a range of fractions for a search on a logarithmic scale."""

Scalar = bool | int | float | str | None
"""A value that a study can store. Lists, such as the names of item features, are stored as JSON."""


@dataclass(frozen=True)
class Choice:
    """One of several given values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return json.dumps(list(self.values))


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; only whole numbers if both ends are whole."""

    low: int | float
    high: int | float

    @property
    def whole(self) -> bool:
        """Return whether the range holds only whole numbers."""
        return isinstance(self.low, int)

    @property
    def log(self) -> bool:
        """Return whether the search is on a logarithmic scale, where 0.001 to 0.01 is as wide as 0.01 to 0.1."""
        return not self.whole and self.low > 0 and self.high / self.low >= LOG_FROM

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


Space = dict[str, Choice | Range]


def parse_space(specs: list[str]) -> Space:
    """Read the settings to search, each written as `KEY=[a, b, c]` or `KEY=low..high`.

    Raises:
        ConfigError: a text has neither form, is empty, or repeats a key.
    """
    space: Space = {}
    for spec in specs:
        key, _, text = spec.partition("=")
        if key in space:
            raise ConfigError(f"--space {spec}: {key} is given twice")
        space[key] = _parse_values(spec, text.strip())
    return space


def _parse_values(spec: str, text: str) -> Choice | Range:
    low, dots, high = text.partition("..")
    if dots and not text.startswith("["):
        return _parse_range(spec, low.strip(), high.strip())
    try:
        values = yaml.safe_load(text) if text.startswith("[") else None
    except yaml.YAMLError as error:
        raise ConfigError(f"--space {spec}: the list is not YAML") from error
    if not isinstance(values, list):
        raise ConfigError(f"--space {spec}: expected KEY=[a, b, c] or KEY=low..high, such as runner.epochs=5..20")
    try:
        different = {json.dumps(value) for value in values}
    except TypeError as error:
        raise ConfigError(f"--space {spec}: {error}") from error
    if not values or len(different) < len(values):
        raise ConfigError(f"--space {spec}: {'a value is given twice' if values else 'the list is empty'}")
    return Choice(tuple(values))


def _parse_range(spec: str, low: str, high: str) -> Range:
    if all(re.fullmatch(r"[+-]?\d+", end) for end in (low, high)):
        found = Range(int(low), int(high))
    else:
        try:
            found = Range(float(low), float(high))
        except ValueError as error:
            raise ConfigError(f"--space {spec}: the ends of a range are numbers") from error
    if not float("-inf") < found.low < found.high < float("inf"):
        raise ConfigError(f"--space {spec}: a range goes from a number to a larger one")
    return found


def check_space(space: Space, config: Path, overrides: list[str]) -> None:
    """Check every key and value of a space by loading the configuration with it.

    Raises:
        ConfigError: a key is unknown, follows another, is overridden as well or cannot be searched, or a value has a
            wrong type or breaks a limit.
    """
    if not space:
        raise ConfigError("nothing to search: give --space at least once")
    overridden = {override.partition("=")[0] for override in overrides}
    for key, values in space.items():
        if key in FIXED:
            raise ConfigError(f"--space {key}: cannot be searched, because it is not a setting of the model")
        for leader, follower in FOLLOWERS.items():
            if key == follower:
                raise ConfigError(f"--space {key}: always equals {leader}; search {leader} instead")
        if clash := {key, FOLLOWERS.get(key)} & overridden:
            raise ConfigError(f"--space {key}: {' and '.join(map(str, clash))} is also overridden by -o")
        for value in _probes(values):
            try:
                load_config(config, [*overrides, *as_overrides({key: value})])
            except ConfigError as error:
                raise ConfigError(f"--space {key}={values}: {str(error).removeprefix(f'{config}: ')}") from error


def _probes(values: Choice | Range) -> list[Any]:
    """Return values to check: all values of a list, or both ends of a range and, for fractions, one between them."""
    if isinstance(values, Choice):
        return list(values.values)
    inside = [] if values.whole else [values.low + (values.high - values.low) * 0.381966]
    return [values.low, values.high, *inside]


def as_overrides(chosen: dict[str, Any]) -> list[str]:
    """Return chosen values, and the keys that follow their keys, as overrides of the configuration."""
    followed = {FOLLOWERS[key]: value for key, value in chosen.items() if key in FOLLOWERS}
    return [f"{key}={_yaml(value)}" for key, value in (chosen | followed).items()]


def scalar(value: Any) -> Scalar:
    """Return a value in the form that a study can store: lists become JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _yaml(value: Any) -> str:
    """Return the YAML text of a value, also of a list that `scalar` turned into JSON."""
    return value if isinstance(value, str) and value[:1] in ("[", "{") else json.dumps(value)


def unsearched(settings: Config, space: Space) -> dict[str, Any]:
    """Return the settings that the results of trials depend on and that are the same in all trials, by dotted key."""
    searched = space.keys() | {FOLLOWERS[key] for key in space if key in FOLLOWERS}
    flat = flatten(settings.model_dump(mode="json", by_alias=True))
    return {key: value for key, value in flat.items() if key not in searched and key not in FIXED}

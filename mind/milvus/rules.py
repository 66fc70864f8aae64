"""The rules of a release: what the shop wants for every request that does not turn it off, as plain data.

They are written in YAML, checked against the attributes of a collection by `indexer publish`, and kept in its release
record, so that a rollback returns to the rules of the earlier release. The names are those of recall.v1.RecallRequest.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mind.errors import ConfigError
from mind.milvus.collection import ITEM_KEY, is_presence
from mind.milvus.filter.canonical import canonical, describe
from mind.milvus.filter.error import FilterError

MAX_ADDED = 1_000.0
"""Most that one boost may add to a score, or take from it."""
MIN_HALF_LIFE_DAYS, MAX_HALF_LIFE_DAYS = 0.01, 36_500.0
TIMES = ("INT64", "DOUBLE")
"""Types of attributes that can be a time."""
MAX_RULES = 8
"""Most boosts, and most attributes of at_most."""
MAX_DEPTH = 16
"""How deep filters may be nested; the default of the server's --max-filter-depth."""
MAX_BYTES = 16_384
"""Most bytes of the rules as JSON: a release record has 65,535."""
MAX_FILTER = 2_000
"""Most characters of a filter; the default of the server's --max-filter-chars."""

Added = Annotated[float, Field(ge=-MAX_ADDED, le=MAX_ADDED, allow_inf_nan=False)]
Filter = Annotated[str, Field(max_length=MAX_FILTER)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BoostRule(_Rule):
    """What is added to the scores of some items."""

    filter: Filter = ""
    """The items that get `add`."""
    add: Added = 0.0
    attribute: str = ""
    """A time in seconds since 1970, instead of a filter."""
    half_life_days: Annotated[float, Field(ge=MIN_HALF_LIFE_DAYS, le=MAX_HALF_LIFE_DAYS)] | None = None
    weight: Added = 0.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        by_filter = bool(self.filter.strip()) and self.add != 0
        by_age = bool(self.attribute) and self.half_life_days is not None and self.weight != 0
        rest = (self.attribute or self.half_life_days or self.weight) if by_filter else (self.filter or self.add)
        if by_filter == by_age or rest:
            raise ValueError("has filter and add, or attribute, half_life_days and weight; none of them is 0")
        return self


class AtMostRule(_Rule):
    """How many candidates may share a value of an attribute."""

    attribute: str
    count: Annotated[int, Field(ge=1, le=10_000)]


class ExploreRule(_Rule):
    """Places for items that are drawn."""

    share: Annotated[float, Field(gt=0, le=1)]
    filter: Filter = ""


class ReleaseRules(_Rule):
    """All rules of a release."""

    boosts: Annotated[list[BoostRule], Field(max_length=MAX_RULES)] = []
    at_most: Annotated[list[AtMostRule], Field(max_length=MAX_RULES)] = []
    per_interest_min: Annotated[int, Field(ge=0, le=10_000)] = 0
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    explore: ExploreRule | None = None

    def check(self, attributes: Mapping[str, str]) -> None:
        """Check attributes and filters.

        Args:
            attributes: name to Milvus type, as in `Fingerprint.attributes`.

        Raises:
            ConfigError: a rule does not fit; names it.
        """
        filters = {f"boosts[{place}].filter": boost.filter for place, boost in enumerate(self.boosts)}
        filters |= {"explore.filter": self.explore.filter} if self.explore else {}
        for name, filter_ in filters.items():
            try:
                canonical(filter_, attributes, MAX_DEPTH)
            except FilterError as error:
                raise ConfigError(f"{name}: {describe(filter_, error)}") from None
        for place, boost in enumerate(self.boosts):
            if boost.attribute and attributes.get(boost.attribute) not in TIMES:
                kind = attributes.get(boost.attribute, "unknown")
                said = f"{boost.attribute!r} is {kind}, must be an attribute of type {' or '.join(TIMES)}"
                raise ConfigError(f"boosts[{place}].attribute: {said}")
        known = {name for name in attributes if name != ITEM_KEY and not is_presence(name)}
        named: set[str] = set()
        for place, rule in enumerate(self.at_most):
            if rule.attribute not in known or rule.attribute in named:
                wrong = "is there twice" if rule.attribute in named else "is not an attribute of the collection"
                raise ConfigError(f"at_most[{place}].attribute: {rule.attribute!r} {wrong}")
            named.add(rule.attribute)

    def to_json(self) -> str:
        """Write the rules as JSON, without what is not set."""
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Raises ConfigError."""
        try:
            return cls.model_validate_json(text or "{}")
        except ValidationError as error:
            raise ConfigError(f"the rules of the release cannot be read: {_says(error)}") from None


NO_RULES = ReleaseRules()
"""The rules of a release that has none."""


def read_rules(path: Path) -> ReleaseRules:
    """Read a file of rules. Raises ConfigError with the file and the rule."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        rules = ReleaseRules.model_validate(found if found is not None else {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {_says(error)}") from None
    if (size := len(rules.to_json().encode())) > MAX_BYTES:
        raise ConfigError(f"{path}: the rules have {size:,} bytes as JSON, the limit is {MAX_BYTES:,}")
    return rules


def _says(error: ValidationError) -> str:
    """The first mistake, and where it is."""
    first = error.errors()[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    return f"{where}: {first['msg']}" if where else first["msg"]

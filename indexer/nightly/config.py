"""The configuration of the night shift: a YAML file, checked key by key. Every field's docstring is its help."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mind.config import explain
from mind.errors import ConfigError
from mind.transfer import CACHE

_DATE = re.compile(r"\{date(?:([+-])(\d{1,5})d)?\}")
_BRACES = re.compile(r"\{[^{}]*\}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _dated(texts: Sequence[str]) -> None:
    """Raise ValueError if a text has braces that are not a date."""
    for text in texts:
        for found in _BRACES.findall(text):
            if not _DATE.fullmatch(found):
                raise ValueError(f"{found}: expected a date such as {{date}} or {{date-1d}}")


def _left_to_the_night(words: Sequence[str], *options: str) -> None:
    """Raise ValueError if an option is given that the night shift sets itself."""
    for word in words:
        if word.partition("=")[0] in options:
            raise ValueError(f"{word}: the night shift sets this option itself; leave it out")


class Prepare(_Section):
    """The section `prepare`: the options of `python -m mind.prepare`."""

    input: str
    """Its input: a file, a directory or the name of data. {date} is the date of the night, {date-1d} the day before."""
    options: tuple[str, ...] = ()
    """Its other options, one word each, without --output. {date} and {date-1d} as in input."""

    @field_validator("input", "options")
    @classmethod
    def _known_braces(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        words = [value] if isinstance(value, str) else value
        _dated(words)
        _left_to_the_night(words, "--output")
        return value


class Train(_Section):
    """The section `train`: the options of `python -m mind.train`."""

    config: Path = Path("mind/config.yaml")
    """The recipe, its -m."""
    overrides: tuple[str, ...] = ()
    """Keys of the recipe with other values, its -o, such as runner.epochs=8."""
    warm_start: bool = True
    """Begin with the weights of the live model, where settings and items allow it."""
    warm_epochs: int = Field(default=4, gt=0)
    """Epochs of a training that begins so."""
    final: bool = False
    """After the gate, train the candidate's settings on all clicks (--final), and release that model."""


class Gate(_Section):
    """The section `gate`: limits of the data and of the candidate. Outside any of the limits, nothing is released."""

    min_rows: int = Field(default=1, ge=1)
    """Interactions that the data must have."""
    min_users: int = Field(default=1, ge=1)
    """Users that the data must have."""
    min_items: int = Field(default=1, ge=1)
    """Items that the data must have."""
    min_share: float = Field(default=0.8, ge=0)
    """Rows, users and items must be at least this share of those of the last night that released."""
    calendar_days: int = Field(default=14, ge=0, le=3660)
    """Days before the date of the night in which each must have interactions. 0 asks for none."""
    max_missing_days: int = Field(default=0, ge=0)
    """Days among them that may have none."""
    min_day_share: float = Field(default=0.3, ge=0)
    """Interactions of the newest day, as a share of the median of the calendar days."""
    max_unknown_items: float = Field(default=0.3, ge=0, le=1)
    """Share of the items that may be unknown to the last night that released."""
    min_overlap: float = Field(default=0.5, ge=0, le=1)
    """Overlap of the items' shares of the clicks with those of that night: 1 is the same shares, 0 none in common."""
    min_test_users: int = Field(default=20, ge=1)
    """Test users that the models must be compared on."""
    min_recall: float = Field(default=0, ge=0, le=1)
    """recall@50 that the candidate must have, also on the first night."""
    max_drop: float = Field(default=0.01, ge=0, le=1)
    """What the candidate's recall@50 may be below the live model's on the same users: 0.01 is one point."""
    max_live_drop: float = Field(default=0.5, ge=0, le=1)
    """Share of its recall@50 on the night of its release that the live model may have lost: else the data changed."""
    max_fallback: float = Field(default=0.5, ge=0, le=1)
    """Share of the test users who may get the popular list, because the candidate knows no item of their history."""
    max_fallback_rise: float = Field(default=0.02, ge=0, le=1)
    """What this share may be above the live model's."""
    min_coverage_share: float = Field(default=0.7, ge=0)
    """Items in at least one list, as a share of the catalogue, must be at least this share of the live model's."""
    max_new_items: float = Field(default=0.3, ge=0, le=1)
    """Share of the candidate's items that the live model may not know."""


class Build(_Section):
    """The section `build`: the options of `python -m indexer build`."""

    options: tuple[str, ...] = ()
    """Its options, one word each, without --artifact, --publish and those of Milvus: --attributes, items.csv."""
    min_recall: float = Field(default=0.95, ge=0, le=1)
    """recall@50 of the index against exact search that the step verify asks for."""

    @field_validator("options")
    @classmethod
    def _not_the_nights(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _left_to_the_night(value, "--artifact", "--publish")
        return value


class Publish(_Section):
    """The section `publish`: how the release reaches the servers."""

    carry_over: bool = True
    """Carry over what `upsert` and `delete` changed in the live collection since its build."""
    wait_timeout_s: float = Field(default=600, gt=0)
    """Seconds in which every server must serve the release. Else it is rolled back."""


class Watch(_Section):
    """The section `watch`: limits of the servers' metrics after the release.

    Outside a limit, the release is rolled back.
    """

    metrics: tuple[str, ...] = ()
    """Addresses of the servers' --metrics-listen, as host:port. A name may stand for several. Empty watches nothing."""
    minutes: float = Field(default=15, ge=0)
    """How long the release is watched."""
    every_s: float = Field(default=15, gt=0)
    """Seconds between two looks."""
    min_recall: float = Field(default=0.9, ge=0, le=1)
    """Sampled recall since the release, of all servers together."""
    min_samples: int = Field(default=20, ge=1)
    """Samples from which on it counts."""
    max_errors: float = Field(default=0.01, ge=0, le=1)
    """Share of the calls since the release that may fail by a fault of the service."""
    min_calls: int = Field(default=100, ge=1)
    """Calls from which on it counts."""
    max_silence_s: float = Field(default=60, gt=0)
    """Seconds for which a server that answered before the release may not answer."""


class Prune(_Section):
    """The section `prune`: what is kept of earlier nights."""

    keep: int = Field(default=2, ge=1)
    """Collections to keep in Milvus besides the live one."""
    keep_nights: int = Field(default=7, ge=1)
    """Nights whose data and models stay in work_dir. What a night found, and its report, stay for good."""


class Report(_Section):
    """The section `report`: what the report page shows."""

    titles: Path | None = None
    """CSV or Parquet file with the column title and item ids in a column with a usual name, such as sku."""
    users: int = Field(default=6, ge=0, le=100)
    """Users whose lists are shown side by side."""


class Nightly(_Section):
    """The whole configuration file."""

    work_dir: Path = Path("data/nightly")
    """Directory of the nights, one subdirectory each, and of the lock."""
    artifacts: str = "artifacts"
    """Directory or URL of models that servers load from. A candidate gets there once the gate let it through."""
    artifact_cache: Path = CACHE
    """Directory that stores models downloaded from a URL."""
    test_users: int = Field(default=20_000, gt=0)
    """Test users that the models are compared on, at most."""
    prepare: Prepare
    """The options of `python -m mind.prepare`."""
    train: Train = Train()
    """The options of `python -m mind.train`."""
    gate: Gate = Gate()
    """The limits of the data and of the candidate."""
    build: Build = Build()
    """The options of `python -m indexer build`."""
    publish: Publish = Publish()
    """How the release reaches the servers."""
    watch: Watch = Watch()
    """The limits of the servers' metrics after the release."""
    prune: Prune = Prune()
    """What is kept of earlier nights."""
    report: Report = Report()
    """What the report page shows."""


def load_nightly(path: Path) -> Nightly:
    """Read a configuration.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, is missing or has a wrong value. The message names
        all.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path}: expected a mapping of keys, found {type(tree).__name__}")
    try:
        return Nightly.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"--config {path}: {explain(error, Nightly)}") from error


def on(text: str, night: date) -> str:
    """Put the date of a night into a text: {date} becomes 2026-11-28, and {date-1d} becomes 2026-11-27."""

    def shifted(found: re.Match[str]) -> str:
        days = int(found[2] or 0) * (-1 if found[1] == "-" else 1)
        return str(night + timedelta(days=days))

    return _DATE.sub(shifted, text)

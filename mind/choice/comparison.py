"""Compares models by their manifests: the settings that differ, the metrics, and the best model.

The functions read no files. Models that differ only in the seed are one group. The metrics are those of validation, and
are compared only if training and validation data are the same.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mind.choice.manifests import Model
from mind.config import FOLLOWERS, Effect, flatten, runner_keys
from mind.errors import ArtifactError
from mind.evaluation.metrics import SELECTED_BY

DEFAULT_METRIC = SELECTED_BY
"""The default metric to rank models by: the metric that chose their epochs."""
NOT_RECORDED = "not recorded"
BARS = "▁▂▃▄▅▆▇█"
"""The bars of a sparkline, from low to high."""


def settings_of(model: Model) -> dict[str, Any]:
    """Return all settings of a model by dotted key, including defaults."""
    manifest = model.manifest
    hyper = manifest.hyper_parameters.model_dump(mode="json", by_alias=True, exclude=set(FOLLOWERS.values()))
    settings = flatten(hyper)
    files = manifest.data.item_features.items()
    settings["item_features_file"] = ", ".join(f"{name} {digest[:8]}" for name, digest in files) or "none"
    runner = manifest.metrics.runner.items()
    not_settings = runner_keys(Effect.ROUNDING, Effect.CHANCE)
    return settings | {f"runner.{key}": value for key, value in runner if key not in not_settings}


def defaulted(model: Model) -> set[str]:
    """Return the hyper-parameters that the manifest does not state because it is older.

    They have their default values.
    """
    hyper = model.manifest.hyper_parameters
    stated = flatten(hyper.model_dump(mode="json", by_alias=True, exclude_unset=True))
    return set(flatten(hyper.model_dump(mode="json", by_alias=True))) - set(stated)


@dataclass(frozen=True)
class Group:
    """Models with the same settings and data."""

    models: tuple[Model, ...]
    """The models, older ones first, each version once."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the settings that all models of the group share, by dotted key."""
        return settings_of(self.models[0])

    def values(self, metric: str) -> list[float]:
        """Return the metric of each model that has it, in the order of `models`."""
        return [model.manifest.metrics.valid[metric] for model in self.models if metric in model.manifest.metrics.valid]

    def mean(self, metric: str) -> float | None:
        """Return the mean of the metric over the models that have it, or None if no model has it."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def sd(self, metric: str) -> float | None:
        """Return the sample standard deviation (n - 1) of the metric over the models, or None for fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def curves(self, metric: str) -> list[list[float]]:
        """Return the metric after every epoch, for each model whose manifest has it. `loss` counts as a metric."""
        return [curve for model in self.models if (curve := _curve(model, metric))]

    def curve(self, metric: str) -> list[float]:
        """Return the mean of the models' curves, up to the epoch that all of them reached."""
        return [statistics.fmean(values) for values in zip(*self.curves(metric), strict=False)]


def _curve(model: Model, metric: str) -> list[float]:
    epochs = model.manifest.metrics.epochs
    if metric == "loss":
        return [epoch.loss for epoch in epochs]
    return [epoch.valid[metric] for epoch in epochs if metric in epoch.valid]


def by_data(models: Iterable[Model]) -> dict[str, list[Model]]:
    """Group models by the digest of their data."""
    found: dict[str, list[Model]] = defaultdict(list)
    for model in models:
        found[model.manifest.data.digest].append(model)
    return dict(found)


def group(models: Iterable[Model]) -> list[Group]:
    """Group models with the same settings and data. Copies of a model count once."""
    versions = {model.version: model for model in models}
    found: dict[str, list[Model]] = defaultdict(list)
    for model in sorted(versions.values(), key=lambda model: model.age):
        key = repr((model.manifest.data.digest, sorted(settings_of(model).items())))
        found[key].append(model)
    return [Group(tuple(members)) for members in found.values()]


def ranked(groups: Iterable[Group], metric: str) -> list[Group]:
    """Sort groups by the mean of a metric, best first.

    Older groups win ties, and groups without the metric are last.
    """
    by_age = sorted(groups, key=lambda one: one.models[0].age)
    return sorted(by_age, key=lambda one: -1.0 if (mean := one.mean(metric)) is None else mean, reverse=True)


def differing(groups: list[Group]) -> list[str]:
    """Return the keys of the settings in which at least two groups differ, in the order of the configuration."""
    keys = dict.fromkeys(key for one in groups for key in one.settings)
    return [key for key in keys if len({repr(one.settings[key]) for one in groups if key in one.settings}) > 1]


def shown_value(one: Group, key: str) -> str:
    """Return the text of a setting in tables. It marks a default, and a manifest that is too old to have the key."""
    text = plain(one.settings.get(key, NOT_RECORDED))
    return f"{text} (default)" if all(key in defaulted(model) for model in one.models) else text


def labels(count: int) -> list[str]:
    """Return short names for the rows of a table: A, B, ... Z, A1, B1, ..."""
    return [chr(65 + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(count)]


def spread(one: Group, metric: str) -> str:
    """Return a group's mean and standard deviation in per cent, such as `35.40 ± 0.21`. One model has only a mean."""
    sd = one.sd(metric)
    return percent(one.mean(metric)) + ("" if sd is None else f" ± {100 * sd:.2f}")


def epochs_kept(one: Group) -> str:
    """Return the epochs whose weights the models have: `6`, or `6-8` if they differ."""
    epochs = [model.manifest.metrics.epoch for model in one.models if model.manifest.metrics.epoch]
    if not epochs:
        return ""
    return str(epochs[0]) if min(epochs) == max(epochs) else f"{min(epochs)}-{max(epochs)}"


def sparkline(values: list[float], low: float, high: float) -> str:
    """Return values as a row of bars, one bar for each value. `low` and `high` are the ends of the scale."""
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def percent(value: float | None) -> str:
    """Return a fraction in per cent, such as `35.40`, or an empty text for None."""
    return "" if value is None else f"{100 * value:.2f}"


def plain(value: object) -> str:
    """Return the text of a value of the configuration. Fractions have four digits."""
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def metrics_of(models: Iterable[Model]) -> list[str]:
    """Return the names of the metrics that at least one of the models has."""
    return list(dict.fromkeys(name for model in models for name in model.manifest.metrics.valid))


def best_model(models: list[Model], metric: str, data: str | None = None) -> list[Model]:
    """Return the models that can be compared, sorted by a validation metric, best first. Older models win ties.

    Args:
        models: models of any data.
        metric: the name of the metric, such as `recall@50`.
        data: the beginning of the digest of the data to choose among; None if all models have the same data.

    Raises:
        ArtifactError: the data differ and `data` is None, or no model has the metric.
    """
    classes = by_data(models)
    if data is not None:
        classes = {digest: members for digest, members in classes.items() if digest.startswith(data)}
        if not classes:
            raise ArtifactError(f"--data {data}: no model has such data; there is {_listed(by_data(models))}")
    if len(classes) > 1:
        raise ArtifactError(
            f"the models were trained on different data and cannot be compared; choose with --data: {_listed(classes)}"
        )
    ((_, members),) = classes.items()
    scored = [model for model in members if metric in model.manifest.metrics.valid]
    if not scored:
        known = ", ".join(metrics_of(members))
        raise ArtifactError(f"no model has {metric}; there is {known}" if known else "no model was validated")
    scored.sort(key=lambda model: model.age)
    return sorted(scored, key=lambda model: model.manifest.metrics.valid[metric], reverse=True)


def _listed(classes: dict[str, list[Model]]) -> str:
    return "; ".join(
        f"{digest} ({len(members)} model{'s' * (len(members) > 1)}, {members[0].manifest.data.summary})"
        for digest, members in classes.items()
    )

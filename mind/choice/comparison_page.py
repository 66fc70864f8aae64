"""Writes the comparison of models as one HTML page with tables and curves, self-contained and without scripts."""

import statistics
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mind.choice.comparison import Group, differing, epochs_kept, labels, metrics_of, shown_value, spread
from mind.choice.manifests import Model, Shelf
from mind.errors import ArtifactError
from mind.evaluation.figures import COLOURS, DASHES, Series, Style, lines
from mind.evaluation.metrics import SHOWN

TEMPLATE = Path(__file__).with_name("comparison.html.j2")


def write_page(file: Path, shelf: Shelf, classes: list[tuple[list[Model], list[Group]]], metric: str) -> None:
    """Write the page.

    Args:
        file: the file to write.
        shelf: the models, the directory, and what in it cannot be used.
        classes: for each data set, its models and their groups, best first.
        metric: the metric that ranks the models and that is plotted.

    Raises:
        ArtifactError: the file cannot be written.
    """
    keys = differing([one for _, groups in classes for one in groups])
    sections = [_section(f"data{i}", *one, keys, metric) for i, one in enumerate(classes)]
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        directory=shelf.directory, metric=metric, sections=sections, unusable=shelf.unusable, colours=COLOURS
    )
    try:
        file.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be written: {error.strerror}") from error


def _section(name: str, models: list[Model], groups: list[Group], keys: list[str], metric: str) -> dict[str, Any]:
    """Return the values that the template shows about the models of one data set."""
    metrics = [one for one in dict.fromkeys([metric, *SHOWN]) if one in metrics_of(models)]
    rows = [
        {
            "label": label,
            "style": Style(i, DASHES[i], 2) if i < COLOURS and one.curves("loss") else None,
            "models": one.models,
            "settings": [shown_value(one, key) for key in keys],
            "epochs": epochs_kept(one),
            "metrics": [spread(one, metric) for metric in metrics],
        }
        for i, (label, one) in enumerate(zip(labels(len(groups)), groups, strict=True))
    ]
    plots = [
        _plot(f"{name}-metric", f"{metric}, validation, %", groups, metric, 100),
        _plot(f"{name}-loss", "training loss, nats", groups, "loss", 1),
    ]
    return {
        "data": models[0].manifest.data,
        "keys": [key.rsplit(".", 1)[-1] for key in keys],
        "metrics": {metric: SHOWN.get(metric, metric) for metric in metrics},
        "rows": rows,
        "plots": [plot for plot in plots if plot],
        "unplotted": len(groups) - COLOURS,
    }


def _plot(name: str, title: str, groups: list[Group], metric: str, scale: float) -> Markup | None:
    """Plot the means of the best groups by epoch, with standard deviations.

    Return None if no model recorded the metric.
    """
    series = []
    for i, one in enumerate(groups[:COLOURS]):
        epochs = list(zip(*one.curves(metric), strict=False))
        if epochs:
            mean = [scale * statistics.fmean(values) for values in epochs]
            sd = [scale * statistics.stdev(values) for values in epochs] if len(epochs[0]) > 1 else None
            series.append(Series(Style(i, DASHES[i]), range(1, len(epochs) + 1), mean, sd, marker="."))
    return lines(name, title, "epoch", series, percent=False) if series else None

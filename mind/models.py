"""The commands for a directory of models: `python -m mind.models list | compare | best | push`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from mind.extras import missing

if line := missing("train", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mind.artifact import VERSION_LENGTH
from mind.choice.comparison import (
    BARS,
    DEFAULT_METRIC,
    Group,
    best_model,
    by_data,
    differing,
    epochs_kept,
    group,
    labels,
    metrics_of,
    percent,
    ranked,
    shown_value,
    sparkline,
    spread,
)
from mind.choice.manifests import Model, Shelf, read_shelf
from mind.command import Version, run
from mind.errors import ArtifactError
from mind.evaluation.metrics import SHOWN
from mind.transfer import Models

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", no_args_is_help=True)
console = Console(highlight=False, markup=False)
stderr = Console(stderr=True, highlight=False, markup=False)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of models, such as artifacts.")]
Metric = Annotated[str, typer.Option(metavar="NAME", help="Validation metric to rank by.")]


@app.callback()
def main(version: Version = False) -> None:
    """List and compare trained models, and find the best one.

    The data come from the manifests. Metrics are those of the validation users, never of the test users.
    """


@app.command("list", epilog="Example: python -m mind.models list artifacts")
def list_(
    directory: Directory,
    output_format: Annotated[Literal["table", "json"], typer.Option("--format", help="A table, or JSON for programs.")]
    = "table",
) -> None:  # fmt: skip
    """List the models, newest first. Models that cannot be used are listed with the reason."""
    shelf = read_shelf(directory)
    if output_format == "json":
        typer.echo(json.dumps([model.as_row() for model in reversed(shelf.models)] + _unusable_rows(shelf), indent=2))
        return
    if shelf.models:
        console.print(_list_table(shelf.models))
    for digest, members in by_data(shelf.models).items():
        console.print(f"data {digest}: {members[0].manifest.data.summary}", soft_wrap=True)
    _print_unusable(shelf, console)


@app.command(epilog="Example: python -m mind.models compare artifacts --html comparison.html")
def compare(
    directory: Directory,
    version: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VERSION]...", help="Compare only these models. The first digits of a version are enough."
        ),
    ] = None,
    metric: Metric = DEFAULT_METRIC,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the comparison as HTML.")] = None,
) -> None:
    """Compare models: the settings that differ, validation metrics with their spread, curves.

    Models that differ only in the seed share a row: mean ± sample standard deviation over n models.
    """
    shelf = read_shelf(directory)
    models = shelf.chosen(version or [])
    if not models:
        raise ArtifactError(f"{directory}: holds no usable model; `python -m mind.models list` says why")
    known = metrics_of(models)
    if known and metric not in known:
        raise ArtifactError(f"--metric {metric}: no model has it; there is {', '.join(known)}")
    groups = group(models)
    classes = [(members, ranked(group(members), metric)) for members in by_data(models).values()]
    if len(classes) > 1:
        warning = "the models were trained on different data; metrics are compared only within the same data"
        stderr.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    for members, rows in classes:
        manifest = members[0].manifest
        console.print(f"\ndata {manifest.data.digest}: {manifest.data.summary}", style="bold", soft_wrap=True)
        console.print(_settings_table(rows, differing(groups)))
        console.print(_metrics_table(rows, metric))
    _print_unusable(shelf, stderr)
    if html:
        from mind.choice.comparison_page import write_page

        write_page(html, shelf, classes, metric)
        stderr.print(f"written to {html}", soft_wrap=True)


@app.command(epilog='Example: python -m indexer build --artifact "$(python -m mind.models best artifacts)"')
def best(
    directory: Directory,
    metric: Metric = DEFAULT_METRIC,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIGEST", help="Choose among the models of the data with this digest (see `list`)."),
    ] = None,
) -> None:
    """Print the path of the best model on standard output. If two are equal, the older one wins.

    Models that were trained on all data (`mind.train --final`) are left out, because no users are left to measure them.
    """
    shelf = read_shelf(directory)
    _print_unusable(shelf, stderr)
    if not shelf.models:
        raise ArtifactError(f"{directory}: holds no usable model")
    measured = [model for model in shelf.models if not model.manifest.data.final_of]
    if not measured:
        raise ArtifactError(f"{directory}: all models were trained on all data (--final), and cannot be compared")
    first, *others = best_model(measured, metric, data)
    value = first.manifest.metrics.valid[metric]
    line = f"{first.version} has the best {metric}, {value:.2%} of epoch {first.manifest.metrics.epoch}"
    if others:
        second = others[0].manifest.metrics.valid[metric]
        line += f"; of {len(others) + 1} models; next is {others[0].version}, {second:.2%}"
        line += ", a tie that goes to the older one" if second == value else ""
    stderr.print(line, soft_wrap=True)
    typer.echo(first.path)


@app.command(epilog='Example: python -m mind.models push "$(python -m mind.models best artifacts)" s3://bucket/models')
def push(
    path: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Directory of one model, such as artifacts/0123456789ab.")
    ],
    where: Annotated[
        str, typer.Argument(metavar="URL", help="Directory or URL of models that servers and the indexer read.")
    ],
) -> None:
    """Copy a model to where servers and the indexer load it from.

    The URL is one that fsspec opens: s3:// needs the package s3fs, gs:// gcsfs. The manifest is written last, so nobody
    loads an incomplete model. To complete an interrupted push, run it again.
    """
    models = Models(where)
    done = "pushed to" if models.push(path) else "is already in"
    stderr.print(f"{path.name} {done} {models}", soft_wrap=True)


def _unusable_rows(shelf: Shelf) -> list[dict[str, Any]]:
    return [{"path": str(one.path), "unusable": one.reason} for one in shelf.unusable]


def _print_unusable(shelf: Shelf, where: Console) -> None:
    for one in shelf.unusable:
        where.print(Text.assemble(("unusable: ", "red"), f"{one.path.name}: {one.reason}"), soft_wrap=True)


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False)


def _list_table(models: list[Model]) -> Table:
    wide = console.width >= 105
    metrics = [name for name in (SHOWN if wide else (DEFAULT_METRIC,)) if name in metrics_of(models)]
    table = _table()
    table.add_column("model", no_wrap=True)
    table.add_column("created, UTC", no_wrap=True)
    for heading in ("items", "dim", "K", "data", "MB", "epoch", *(f"{SHOWN[name]} %" for name in metrics)):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in reversed(models):
        manifest = model.manifest
        hyper, valid = manifest.hyper_parameters, manifest.metrics.valid
        table.add_row(
            _name(model),
            manifest.created_at[:16].replace("T", " "),
            f"{hyper.item_count:,}" if hyper.item_count else "",
            str(hyper.embedding_dim),
            str(hyper.num_interests),
            manifest.data.digest,
            f"{model.size_bytes / 1e6:.1f}",
            str(manifest.metrics.epoch or ""),
            *(percent(valid.get(name)) for name in metrics),
        )
    return table


def _name(model: Model) -> str:
    """Return the version of a model, and its directory if that has another name."""
    return model.version if model.path.name == model.version else f"{model.version} in {model.path.name}"


def _settings_table(groups: list[Group], keys: list[str]) -> Table:
    table = _table()
    table.add_column("")
    table.add_column("models", min_width=VERSION_LENGTH)
    for key in keys:
        table.add_column(key.rsplit(".", 1)[-1], justify="right")
    for label, one in zip(labels(len(groups)), groups, strict=True):
        versions = ", ".join(model.version for model in one.models[:3])
        more = f" and {len(one.models) - 3} more" if len(one.models) > 3 else ""
        table.add_row(label, versions + more, *(shown_value(one, key) for key in keys))
    return table


def _metrics_table(groups: list[Group], metric: str) -> Table:
    known = metrics_of(model for one in groups for model in one.models)
    names = [name for name in dict.fromkeys([metric, *SHOWN]) if name in known]
    curves = [one.curve(metric) for one in groups]
    points = [value for curve in curves for value in curve]
    low, high = min(points, default=0), max(points, default=0)
    table = _table()
    table.add_column("")
    for heading in ("n", "epoch", *(f"{SHOWN.get(name, name)} %" for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("by epoch" if points else "", no_wrap=True)
    if points:
        table.caption = f"by epoch: {metric} from {BARS[0]} {low:.1%} to {BARS[-1]} {high:.1%}"
        table.caption_justify = "left"
    for label, one, curve in zip(labels(len(groups)), groups, curves, strict=True):
        spreads = [spread(one, name) for name in names]
        table.add_row(label, str(len(one.models)), epochs_kept(one), *spreads, sparkline(curve, low, high))
    return table


if __name__ == "__main__":
    run(app)

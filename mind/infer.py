"""The command that evaluates: `python -m mind.infer -m mind/config.yaml -top_n 50`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("train", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.command import ConfigFile, Overrides, Version, run
from mind.config import load_config
from mind.data.files import check_outputs, replacing
from mind.data.paddlerec import read_eval
from mind.errors import MindError
from mind.evaluation import metrics
from mind.evaluation.candidates import Service, describe_service, read_candidates
from mind.evaluation.evaluate import SERVED, Evaluation, Lists, OnStep, agreement, evaluate, measure
from mind.evaluation.lists import EncoderName, make_lists, other_training_data

EPILOG = """Examples:

python -m mind.infer -m mind/config.yaml -top_n 20 -top_n 50 --html report.html --titles items.csv

python -m mind.infer -m mind/config.yaml --server localhost:50051 --html report.html --json metrics.json"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)


@app.command(epilog=EPILOG)
def main(
    config: ConfigFile,
    override: Overrides = None,
    top_n: Annotated[
        list[int] | None,
        typer.Option("-top_n", "--top-n", min=1, max=10_000, help="Cut-off of the metrics. Repeatable; 20 and 50."),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Model directory; the newest under runner.model_save_path otherwise.")
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="What encodes the histories.")] = EncoderName.numpy,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also ask this running service, so that figures are of gRPC and Milvus. For TLS and a token, set "
            "RECALL_CLIENT_CA (or _TLS), _CERT, _KEY and _TOKEN_FILE, as for recall-client.",
        ),
    ] = None,
    candidates: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also evaluate ranked lists that were made elsewhere: JSON lines of "
            '{"user_id": 1, "item_ids": [..]}, as `recall-client recall --input .. --output ..` writes. Repeatable.'
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with plots, one HTML file.")] = None,
    output: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the metrics and the plots' numbers.")
    ] = None,
    titles: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV or Parquet with item_id and title, for the report.")
    ] = None,
    version: Version = False,
) -> None:
    """Evaluate a model on the test users: exact search over all items, beside three baselines.

    Recall, NDCG and hit rate are means over users as ComiRec defines them; clicked items are not left out. A warning
    names training files that are not those of the model: it may have been trained on test users.
    """
    settings = load_config(config, override)
    cutoffs = tuple(sorted(set(top_n or [20, 50])))
    files = check_outputs(html, output)
    item_titles = _titles(html, titles)
    cases = read_eval(settings.runner.test_data_dir)
    model = load_artifact(newest_artifact(artifact or settings.runner.model_save_path))
    given = {file: read_candidates(file, cases, cutoffs[-1]) for file in candidates or []}
    service = describe_service(server, cutoffs[-1]) if server else None
    doubt = other_training_data(model, settings.runner.train_data_dir)
    if doubt:
        typer.echo(f"warning: {doubt}", err=True)
    with _progress() as progress:
        on_step = _steps(progress)
        lists = make_lists(settings, model, encoder, service, cases, cutoffs[-1], on_step)
        if doubt:
            lists.notes.insert(0, doubt)
        for file, ranked in given.items():
            lists.ranked[file.stem if file.stem not in lists.ranked else str(file)] = ranked
        measured = {name: measure(ranked, cases) for name, ranked in lists.ranked.items()}
        scores = {name: found.curves.at(cutoffs) for name, found in measured.items()}
        seed = settings.runner.seed
        evaluation = evaluate(model, cases, lists, measured, cutoffs, seed, on_step) if files else None
    title = f"model {model.model_version} on {len(cases):,} test users, per cent"
    console.print(_table(scores, cutoffs, title, "\n".join(lists.notes)))
    if lists.service:
        console.print(_served_line(model, lists, lists.service, cutoffs), soft_wrap=True)
    if evaluation and output:
        _write(output, json.dumps(_plain(evaluation), indent=2, allow_nan=False))
    if evaluation and html:
        from mind.evaluation.report import render

        _write(html, render(evaluation, item_titles))
    if files:
        console.print(f"written: {', '.join(map(str, files))}", soft_wrap=True, markup=False)


def _titles(html: Path | None, titles: Path | None) -> dict[int, str]:
    """Titles by item id; imports what the report needs now rather than after the evaluation."""
    if html is None:
        if titles is not None:
            raise MindError(f"--titles {titles}: titles are shown in the report alone, which --html writes")
        return {}
    try:
        from mind.evaluation.report import read_titles
    except ModuleNotFoundError as error:
        raise MindError(f"--html needs {error.name}: pip install 'mind-recall[train]'") from error
    return read_titles(titles) if titles else {}


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("users"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _steps(progress: Progress) -> OnStep:
    tasks: dict[str, TaskID] = {}

    def on_step(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=None)  # shown as under way
        if done:
            progress.update(tasks[name], completed=done, total=total)

    return on_step


def _table(scores: dict[str, dict[str, float]], cutoffs: tuple[int, ...], title: str, caption: str) -> Table:
    table = Table(title=title, title_justify="left", caption=escape(caption) or None, caption_justify="left")
    table.add_column("")
    for n in cutoffs:
        for name in metrics.TITLES.values():
            table.add_column(f"{name}\n@{n}", justify="right")
    best = {key: max(row[key] for row in scores.values()) for key in next(iter(scores.values()))}
    for name, row in scores.items():
        cells = [f"{100 * value:.2f}" for value in row.values()]
        bold = [f"[bold]{cell}[/]" if row[key] == best[key] else cell for key, cell in zip(row, cells, strict=True)]
        table.add_row(escape(name), *bold)
    return table


def _served_line(model: Artifact, lists: Lists, service: Service, cutoffs: tuple[int, ...]) -> str:
    agreed = agreement(model, lists, cutoffs)
    line = f"{escape(service.address)} serves {service.collection}"
    if agreed:
        shares = [f"{100 * share:.2f} % of the exact top {n}" for n, share in agreed.found.items()]
        line += f"; its lists have {' and '.join(shares)}"
    if service.model_version != model.model_version:
        line += (
            f"\n[yellow]it serves model {service.model_version}, not {model.model_version}: "
            f"the row {SERVED!r} is of that model[/]"
        )
    return line


def _plain(evaluation: Evaluation) -> dict[str, object]:
    """All numbers, for JSON; example users stay out of it."""
    return {name: value for name, value in asdict(evaluation).items() if name != "examples"}


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8", errors="replace")


if __name__ == "__main__":
    run(app)

"""The command that evaluates: `python -m mind.infer -m mind/config.yaml -top_n 50`."""

import json
import sys
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("train", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from mind.artifact import Artifact, Float32, load_artifact, newest_artifact
from mind.command import ConfigFile, Overrides, run
from mind.config import Config, load_config
from mind.data.paddlerec import digests, read_eval, read_train, replacing
from mind.encoder import Encoder, NumpyEncoder, check_golden
from mind.errors import DataError, MindError
from mind.evaluation import baselines, metrics
from mind.evaluation.candidates import Service, ask_service, describe_service, read_candidates
from mind.evaluation.evaluate import EXACT, SERVED, Evaluation, Lists, OnStep, agreement, evaluate, measure
from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
from mind.sequences import EvalCases, Int64

EPILOG = """Examples:

python -m mind.infer -m mind/config.yaml -top_n 20 -top_n 50 --html report.html --titles items.csv

python -m mind.infer -m mind/config.yaml --server localhost:50051 --html report.html --json metrics.json"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)


class EncoderName(StrEnum):
    """`--encoder`."""

    numpy = "numpy"
    paddle = "paddle"


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
    doubt = _other_training_data(model, settings.runner.train_data_dir)
    if doubt:
        typer.echo(f"warning: {doubt}", err=True)
    with _progress() as progress:
        on_step = _steps(progress)
        lists = _lists(settings, model, encoder, service, cases, cutoffs[-1], on_step)
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


def check_outputs(*paths: Path | None) -> list[Path]:
    """Those that are not None, after making sure, before hours of evaluation, that they can be written.

    Raises:
        DataError: one cannot, or two are the same file.
    """
    files = [path for path in paths if path is not None]
    if len({path.absolute() for path in files}) < len(files):
        raise DataError(f"{files[0]}: given for two outputs")
    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise DataError(f"{path}: cannot be written: it is a directory")
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    return files


def _other_training_data(model: Artifact, train_data_dir: Path) -> str | None:
    """A sentence if the training files there are not those of the model; None too if the model names none."""
    trained = model.data.get("files", {})
    found = digests(train_data_dir) if trained else {}
    others = [name for name in sorted(found | trained) if found.get(name) != trained.get(name)]
    if not others:
        return None
    named = ", ".join(others[:3]) + (f" and {len(others) - 3:,} files more" if len(others) > 3 else "")
    return (
        f"{train_data_dir}: model {model.model_version} was trained with another {named}. If users were split anew, it "
        "may have been trained on test users."
    )


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


def _lists(
    settings: Config,
    model: Artifact,
    encoder: EncoderName,
    service: Service | None,
    cases: EvalCases,
    top_n: int,
    on_step: OnStep,
) -> Lists:
    ranked, notes = _baselines(settings, model, cases, top_n, on_step)
    names = tuple(ranked)
    vectors, ranked[EXACT] = _exact(settings, model, encoder, cases, top_n, on_step)
    if service:
        on_step(SERVED, 0, len(cases))
        ranked[SERVED] = ask_service(service, cases, top_n)
        on_step(SERVED, len(cases), len(cases))
    return Lists(ranked, names, vectors, service, notes)


def _baselines(
    settings: Config, model: Artifact, cases: EvalCases, top_n: int, on_step: OnStep
) -> tuple[dict[str, Int64], list[str]]:
    """Their lists, and what a reader should know of them."""
    vocabulary, users = model.vocabulary, len(cases)
    ranked = {"most popular": baselines.most_popular(vocabulary, model.weights.popularity, cases.history, top_n)}
    train = read_train(settings.runner.train_data_dir)
    pairs = baselines.Pairs.of(vocabulary, train, settings.runner.seed)
    for name, method in (("item co-occurrence", baselines.co_occurrence), ("item-kNN, cosine", baselines.item_knn)):
        on_step(name, 0, users)
        ranked[name] = method(pairs, cases.history, top_n, settings.runner.infer_batch_size)
        on_step(name, users, users)
    if pairs.counted == len(train):
        return ranked, []
    return ranked, [
        f"Item co-occurrence and item-kNN count {pairs.counted:,} of {len(train):,} training users, drawn at random: "
        f"all have more than {baselines.MAX_PAIRS:,} pairs of items."
    ]


def _exact(
    settings: Config, model: Artifact, name: EncoderName, cases: EvalCases, top_n: int, on_step: OnStep
) -> tuple[Float32, Int64]:
    """Interest vectors, [U, K, D], and the nearest items to them, [U, top_n] item ids."""
    encoder: Encoder
    if name is EncoderName.paddle:
        from mind.paddle_encoder import PaddleEncoder  # only then is Paddle needed

        encoder = PaddleEncoder.from_artifact(model)
    else:
        encoder = NumpyEncoder(model.weights, model.hyper_parameters)
    check_golden(encoder, model)
    batch, users = settings.runner.infer_batch_size, len(cases)
    vectors = encode_histories(encoder, model.vocabulary, cases.history, model.hyper_parameters.maxlen, batch)
    rows = np.zeros((users, top_n), np.int64)
    for start in range(0, users, batch):
        on_step(EXACT, start, users)
        some = slice(start, start + batch)
        rows[some] = nearest_items(vectors[some], model.weights.item_embedding, top_n, batch)
    on_step(EXACT, users, users)
    return vectors, item_ids(model.vocabulary, rows)


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

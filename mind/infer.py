"""The command that evaluates a model: `python -m mind.infer -m mind/config.yaml -top_n 50`."""

import json
import sys
from dataclasses import asdict
from importlib import import_module
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
from mind.command import ConfigFile, DataDir, Overrides, Version, run
from mind.config import Config, data_overrides, load_config
from mind.data.files import check_outputs, replacing
from mind.data.ids import IdKind, KeyTable
from mind.data.paddlerec import read_eval, read_train
from mind.data.prepared import TEST_USERS, how_split, item_keys, user_keys
from mind.data.split import in_words
from mind.data.titles import read_titles
from mind.encoders import EncoderName
from mind.errors import DataError, MindError
from mind.evaluation import metrics
from mind.evaluation.analysis import Agreement
from mind.evaluation.candidates import Served, TextIds, read_candidates
from mind.evaluation.compared import compared
from mind.evaluation.evaluate import (
    EXACT,
    Evaluation,
    Lists,
    Measured,
    OnStep,
    agreements,
    compared_with_best,
    evaluate,
    measure,
    verdict,
)
from mind.evaluation.kinds import of_kinds
from mind.evaluation.lists import lists_beside_exact, make_lists
from mind.evaluation.provenance import other_data, unrecorded, valid_data
from mind.evaluation.returns import KEPT, LEFT_OUT, Returns, measure_returns
from mind.sequences import EvalCases

EPILOG = """Examples:

python -m mind.infer -m mind/config.yaml --data data/mine -top_n 50

python -m mind.infer -m mind/config.yaml -top_n 20 -top_n 50 --html report.html --titles items.csv

python -m mind.infer -m mind/config.yaml --data data/mine --targets-of buy

python -m mind.infer -m mind/config.yaml --candidates served.jsonl --html report.html --json metrics.json"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)


@app.command(epilog=EPILOG)
def main(
    config: ConfigFile,
    data: DataDir = None,
    override: Overrides = None,
    top_n: Annotated[
        list[int] | None,
        typer.Option(
            "-top_n",
            "--top-n",
            min=1,
            max=10_000,
            help="Length of the lists that metrics are measured at. Repeatable; 20 and 50 if not given.",
        ),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Model directory; the newest under runner.model_save_path otherwise.")
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="What encodes the histories.")] = EncoderName.numpy,
    server: Annotated[str | None, typer.Option(hidden=True)] = None,
    candidates: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also evaluate ranked lists that were made elsewhere: JSON lines of "
            '{"user_id": 1, "item_ids": [..]}, as `recall-client recall --input .. --output ..` writes, or Parquet, as '
            "`recall-client bulk` writes. Lists that a service gave are compared with exact search. Repeatable."
        ),
    ] = None,
    targets_of: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,KIND,..",
            help="Count as found only what the users did in these kinds, such as buy, or '>=4' of ratings; for data of "
            "`mind.prepare --event`. All kinds that are targets otherwise.",
        ),
    ] = None,
    other: Annotated[
        bool, typer.Option("--other-data", help="Evaluate with data that are not those the model was made with.")
    ] = False,
    exclude_history: Annotated[
        bool | None,
        typer.Option(
            "--exclude-history/--keep-history",
            help="Leave items of the history out of every list, or keep them. If not given, as the model's epoch was "
            "chosen, which validation users decided.",
            show_default=False,
        ),
    ] = None,
    neighbours: Annotated[
        bool | None,
        typer.Option(
            "--neighbours/--no-neighbours",
            help="Make neighbours of the newest clicks candidates, or not. If not given, as the model's release does, "
            "which validation users decided. With them, a row shows the lists without them, too.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with plots, one HTML file.")] = None,
    output: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the metrics and the plots' numbers.")
    ] = None,
    titles: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or Parquet file with item ids and the column title, for the report."),
    ] = None,
    titles_id_column: Annotated[
        str | None,
        typer.Option(help="Column of --titles that holds the item id; otherwise one with a usual name, such as sku."),
    ] = None,
    version: Version = False,
) -> None:
    """Evaluate a model on the test users: exact search over all items, beside four baselines.

    Recall, NDCG and hit rate are means over users as ComiRec defines them. The heading says whether items of the
    history are left out of the lists, and a line under the table whether the model is worth it on these data. Every row
    is over the same users. A user is in no row if the model knows no item of the history, or a service gave no personal
    list; a note under the table counts them. A model knows its data by their content, and others are refused. A final
    model (`mind.train --final`) has seen the test users: its --candidates are compared with its exact search alone.
    """
    settings = load_config(config, data_overrides(data) + (override or []))
    cutoffs = tuple(sorted(set(top_n or [20, 50])))
    if server:
        raise MindError(_instead_of(server, cutoffs[-1], settings.runner.test_data_dir))
    files = check_outputs(html, output)
    item_names, user_names = item_keys(settings.runner.test_data_dir), user_keys(settings.runner.test_data_dir)
    item_titles = _titles(html, titles, IdKind.TEXT if item_names else IdKind.INTEGER, titles_id_column)
    cases = read_eval(settings.runner.test_data_dir)
    model = load_artifact(newest_artifact(artifact or settings.runner.model_save_path))
    doubt = other_data(model, settings.runner.train_data_dir, settings.runner.test_data_dir)
    compares_only = "final_of" in model.data and bool(candidates) and not files and not other
    if doubt and not other and not compares_only:
        raise DataError(f"{doubt} Pass the data of the model to --data, or pass --other-data")
    items = len(model.vocabulary)
    text = TextIds(user_names, items=model.weights.keys is not None)
    given = {file: read_candidates(file, cases, cutoffs[-1], items, text) for file in candidates or []}
    everybody = len(cases)
    if kinds := [kind.strip() for kind in (targets_of or "").split(",") if kind.strip()]:
        cases, among = of_kinds(cases, kinds)
        given = {file: one.take(among) for file, one in given.items()}
    users = compared(cases, model.vocabulary, given)
    if kinds:
        users.notes.insert(0, f"Targets are {', '.join(kinds)} alone; {len(cases):,} of {everybody:,} users have some.")
    valid_dir = valid_data(model, settings.runner.train_data_dir, settings.runner.valid_data_dir)
    valid = read_eval(valid_dir) if valid_dir else None
    exclude, why = _history(exclude_history, settings, model, valid)
    with_near = _with_neighbours(neighbours, model)
    if compares_only:
        with _progress() as progress:
            on_step = _steps(progress)
            lists = lists_beside_exact(
                settings, model, encoder, users, cutoffs[-1], on_step, exclude_history=exclude, neighbours=with_near
            )
        _print_agreement(model, lists, cutoffs)
        return
    if doubt := doubt or unrecorded(model):
        typer.echo(f"warning: {doubt}", err=True)
    with _progress() as progress:
        on_step = _steps(progress)
        how = {"exclude_history": exclude, "neighbours": with_near}
        lists = make_lists(settings, model, encoder, users, cutoffs[-1], on_step, valid=valid, **how)
        lists.notes[:0] = [note for note in (doubt, why) if note]
        measured = {name: measure(ranked, users.cases) for name, ranked in lists.ranked.items()}
        seed = settings.runner.seed
        evaluation = evaluate(model, users.cases, lists, measured, cutoffs, seed, on_step) if files else None
    told = in_words(how_split(settings.runner.test_data_dir))
    lists_have = LEFT_OUT if exclude else KEPT
    parts = ("test users", told, f"targets: {', '.join(kinds)}" if kinds else "", lists_have)
    what = ", ".join(part for part in parts if part)
    title = f"model {model.model_version} on {len(users.cases):,} {what}, per cent"
    _print_scores(title, model, lists, measured, cutoffs)
    best, lead = compared_with_best(lists, measured, seed)
    console.print(verdict(best, lead, cutoffs[-1], len(users.cases)), style="bold", soft_wrap=True)
    if evaluation:
        _write_files(evaluation, output, html, item_titles, item_names, user_names)
        console.print(f"written: {', '.join(map(str, files))}", soft_wrap=True, markup=False)


def _with_neighbours(given: bool | None, model: Artifact) -> bool:
    """Return whether neighbours are candidates. Raises MindError if they are wanted and the model has none."""
    found = model.weights.neighbours
    if given and (found is None or not found.bonus):
        why = "has no neighbours" if found is None else "gives neighbours no bonus, so they change no list"
        raise MindError(
            f"--neighbours: model {model.model_version} {why}; train again with -o hyper_parameters.neighbour_bonus=2"
        )
    return bool(found and found.bonus) if given is None else given


def _history(given: bool | None, settings: Config, model: Artifact, valid: EvalCases | None) -> tuple[bool, str | None]:
    """Return whether items of the history are left out.

    Also return a sentence with the reason, unless the user chose.
    """
    if (chosen := settings.runner.exclude_history if given is None else given) is not None:
        return chosen, None
    if (chosen := model.data.get("exclude_history")) is not None:
        recorded = model.data.get("returns")
        return chosen, Returns(**recorded).sentence() + "." if recorded else None
    found = measure_returns(read_train(settings.runner.train_data_dir), valid) if valid else None
    if found:
        return found.exclude_history, found.sentence() + "."
    return False, (
        "Items of the history are kept, for no validation users tell whether people return to items; "
        "--exclude-history leaves them out."
    )


def _print_scores(
    title: str, model: Artifact, lists: Lists, measured: dict[str, Measured], cutoffs: tuple[int, ...]
) -> None:
    scores = {name: found.curves.at(cutoffs) for name, found in measured.items()}
    console.print(_table(scores, cutoffs, title, "\n".join(lists.notes)))
    agreed = agreements(model, lists, cutoffs)
    for name, served in lists.served.items():
        console.print(_served_line(model, name, served, agreed.get(name)), soft_wrap=True)


def _print_agreement(model: Artifact, lists: Lists, cutoffs: tuple[int, ...]) -> None:
    """Print how much of the exact lists is in the served lists, without accuracy, because no test user is unseen."""
    console.print(
        f"model {model.model_version} was trained on all data, so its accuracy cannot be measured; that of model "
        f"{model.data['final_of']}, whose settings it has, stands for it. The lists of {len(lists.ranked[EXACT]):,} "
        "users beside its exact search:",
        soft_wrap=True,
    )
    agreed = agreements(model, lists, cutoffs)
    for name, served in lists.served.items():
        console.print(_served_line(model, name, served, agreed[name]), soft_wrap=True)
    if not lists.served:
        raise DataError("--candidates: no service gave these lists, so they cannot be compared with exact search")


def _write_files(
    evaluation: Evaluation,
    output: Path | None,
    html: Path | None,
    titles: dict[int, str],
    item_names: KeyTable | None,
    user_names: KeyTable | None,
) -> None:
    if output:
        _write(output, json.dumps(_plain(evaluation), indent=2, allow_nan=False))
    if html:
        from mind.evaluation.report import render

        users = {example.user_id for example in evaluation.examples}
        items = {item for example in evaluation.examples for item in example.history}
        items |= {one.item_id for example in evaluation.examples for one in example.candidates}
        _write(html, render(evaluation, _names(item_names, items) | titles, _names(user_names, users)))


def _names(table: KeyTable | None, ids: set[int]) -> dict[int, str]:
    """Return the text ids of some ids; empty if ids are integers."""
    return {one: table.name(one) for one in ids} if table else {}


def _instead_of(server: str, top_n: int, test_data_dir: Path) -> str:
    """Return what to do instead of `--server`, which earlier versions had."""
    ask = f"recall-client recall --server {server} --input FILE --top-k {top_n} --output served.jsonl"
    named = test_data_dir.parent / TEST_USERS  # where ids are text
    lines = f"is {named}" if named.exists() else f"has the lines of {test_data_dir}"
    return (
        f"--server {server}: mind.infer no longer asks a service; run `{ask}`, where FILE {lines}, then give "
        "--candidates served.jsonl"
    )


def _titles(html: Path | None, titles: Path | None, kind: IdKind, id_column: str | None) -> dict[int, str]:
    """Read titles by item id.

    Imports the modules of the report now, so that a missing one is found before the evaluation.
    """
    if html is None:
        if titles is not None:
            raise MindError(f"--titles {titles}: titles are shown in the report alone, which --html writes")
        return {}
    try:
        import_module("mind.evaluation.report")
    except ModuleNotFoundError as error:
        raise MindError(f"--html needs {error.name}: pip install 'mind-recall[train]'") from error
    return read_titles(titles, kind, id_column) if titles else {}


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
            tasks[name] = progress.add_task(name, total=total)
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


def _served_line(model: Artifact, name: str, served: Served, agreed: Agreement | None) -> str:
    line = f"{escape(name)} came from {served.collection or f'model {served.model_version}'}"
    if agreed:
        shares = [f"{100 * share:.2f} % of the exact top {n}" for n, share in agreed.found.items()]
        line += f"; its lists have {' and '.join(shares)}"
    if served.model_version != model.model_version:
        line += (
            f"\n[yellow]it was served by model {served.model_version}, not {model.model_version}: "
            f"the row {escape(repr(name))} is of that model[/]"
        )
    return line


def _plain(evaluation: Evaluation) -> dict[str, object]:
    """Return all numbers for JSON, without the example users."""
    return {name: value for name, value in asdict(evaluation).items() if name != "examples"}


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8", errors="replace")


if __name__ == "__main__":
    run(app)

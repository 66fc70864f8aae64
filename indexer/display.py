"""The output of the commands: progress, lines and tables for people."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from indexer.build import Built, Index
from indexer.items.attributes import Attributes
from indexer.progress import Progress
from indexer.rollout.rollout import Rollout
from indexer.tuning.interests import InterestSearches
from indexer.tuning.measure import Measured
from indexer.tuning.tune import Rung, Tuned
from indexer.verify import FILTERED, RECALL_AT
from mind.artifact import Artifact
from mind.cells import EXACT_ROWS
from mind.data.line_count import LineCount
from mind.data.sources import Source
from mind.milvus.channels import LIVE
from mind.milvus.store import Params

TELL_S = 60.0
"""Time in seconds between two lines that tell the progress of a command without a terminal."""

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress: a bar on a terminal; elsewhere, as in the log of a scheduler, a line every `TELL_S` seconds."""
    with _bar() if err.is_terminal else _lines() as on_progress:
        yield on_progress


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, Any] = {}
    with Bar(*columns, console=err, transient=True) as bar:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[stage] = bar.add_task(stage, total=total or None, count="")
            bar.update(tasks[stage], completed=done, count=_count(done, total))

        yield on_progress


@contextmanager
def _lines() -> Iterator[Progress]:
    started, ended, now = time.monotonic(), Event(), ("start", "")

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal now
        now = (stage, _count(done, total))

    def tell() -> None:
        while not ended.wait(TELL_S):
            stage, count = now
            err.print(f"{stage}: {count}{', ' * bool(count)}{time.monotonic() - started:.0f} s since the start")

    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield on_progress
    finally:
        ended.set()
        thread.join()


def _count(done: int, total: int) -> str:
    return f"{done:,} of {total:,}" if total else ""


def line(label: str, text: str) -> None:
    out.print(f"[bold]{label:<11}[/]{text}")


def show_model(model: Artifact) -> None:
    items, dim = len(model.weights.item_id), model.hyper_parameters.embedding_dim
    line("model", f"{model.model_version}: {items:,} items, {dim} dimensions")


def show_count(path: Source, count: LineCount, id_column: str) -> None:
    """Print how the lines of a file add up, and which of its columns has the item ids."""
    line("read", f"{path.name}: {count}; ids in {id_column}")


def show_attributes(attributes: Attributes, items: int) -> None:
    """Print the type of each attribute, how many items have a value, and how many cells are empty."""
    for position, column in enumerate(attributes.columns):
        empty = items - attributes.missing - column.filled
        text = f"{column.name} {column.type}, {column.filled:,} of {items:,} items, {empty:,} cells are empty"
        line("" if position else "attributes", text)
    if attributes.missing:
        line("", f"{attributes.missing:,} items have no row in the file, so they have no values")
    if attributes.padded:
        line("", f"{attributes.padded:,} ids have leading zeros, which are dropped")
    if attributes.unknown:
        line("", f"{attributes.unknown:,} rows are left out, because the model does not know their items")


def show_searches(searches: InterestSearches) -> None:
    if searches.cosine == 1:
        line(
            "interests",
            "each is searched: with the golden histories, fewer searches find too little or save too little",
        )
        return
    few = f"{searches.searches:.2f} searches a user instead of {searches.interests:.2f}"
    found = f"{searches.share:.3f} of the exact best {RECALL_AT} over {searches.users} golden histories"
    line("interests", f"{few} (interest_cosine {searches.cosine:g}): {found}")


def show_built(built: Built, seconds: float) -> None:
    fingerprint = built.fingerprint
    built_with = (fingerprint.index_type, fingerprint.index_params, fingerprint.search_params)
    line("index", _index(Index(*built_with, fingerprint.interest_cosine)))
    facts = f"{fingerprint.count:,} items, {built.sampled:,} vectors equal bit for bit"
    recall = f"recall@{built.recall.limit} {built.recall.recall:.3f} over {built.recall.queries} interest vectors"
    line("verified", f"{facts}, {recall}")
    line("filters", _filtered(built.recall.filtered))
    if (bonus := fingerprint.neighbours) is not None:
        says = f"are candidates with a bonus of {bonus:g}" if bonus else "are no candidates"
        line("neighbours", f"{says} unless a request says otherwise")
    line("built", f"[cyan]{built.collection}[/] " + ("existed already" if built.was_there else f"in {seconds:.1f} s"))


def _filtered(recall: float | None) -> str:
    limit = f"recall@{RECALL_AT}"
    if recall is None:
        return f"{limit} 1: servers score all items that match"
    return f"{limit} {recall:.3f} if {FILTERED:.0%} of the items match; up to {EXACT_ROWS:,} are all scored"


def show_release(now: Rollout) -> None:
    label, start = ("live", "") if now.channel == LIVE else ("channel", f"{now.channel}: ")
    if not now.changed:
        line(label, f"{start}[cyan]{now.live}[/] was live already")
    else:
        line(label, f"{start}[cyan]{now.live}[/]" + (f", previously {now.before}" if now.before else ""))


def _index(index: Index) -> str:
    text = f"{index.type} {_params(index.build_params)}".rstrip()
    if index.search_params:
        text += f", search {_params(index.search_params)}"
    return text + (f", interest_cosine {index.interest_cosine:g}" if index.interest_cosine < 1 else "")


def _params(params: Params) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


def show_tuned(tuned: Tuned) -> None:
    """Print the measurements and the choice."""
    Console(highlight=False, width=max(out.width, 100)).print(tuned_table(tuned))  # in a log or a pipe it must fit too
    for failed in tuned.failures:
        line("failed", f"{failed.type} {_params(failed.build_params)}: {failed.reason}")
    line(
        "compared",
        f"{tuned.best.users_per_s:,.0f} users/s, the default index {tuned.default.users_per_s:,.0f}, "
        "measured alternately",
    )
    index = tuned.best.index
    line("chosen", f"[cyan]{_index(index)}[/]")
    speed = f"{tuned.ratio:.2f} times the speed of the default"
    line("", f"recall@{RECALL_AT} {tuned.best.recall:.4f} over {tuned.users} users, {speed}")


def tuned_table(tuned: Tuned) -> Table:
    """Make a table of the default index and the best of each index and interest_cosine.

    The table fits into 100 columns. A star marks the choice.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "index", "search"):
        table.add_column(heading, no_wrap=True)
    for heading in ("interest\ncosine", "searches\n/ user", f"recall\n@{RECALL_AT}", "users/s", "x\ndefault"):
        table.add_column(heading, justify="right", no_wrap=True)
    first, *others = tuned.rungs
    shown = {"default": first}
    for rung in others:
        index = rung.measured.index
        key = (
            f"{index.type} {index.build_params} {index.interest_cosine}" if index != first.measured.index else "default"
        )
        shown[key] = max(
            shown.get(key, rung), rung, key=lambda rung: (rung.measured.index == tuned.best.index, *_worth(rung))
        )
    for rung in shown.values():
        measured, picked = rung.measured, rung.measured.index == tuned.best.index
        style = "bold green" if picked else "" if rung.passes else "dim"
        _add(table, measured, measured.users_per_s / shown["default"].measured.users_per_s, "*" * picked, style)
    for failed in tuned.failures:
        table.add_row("", failed.type, "failed", style="red")
    return table


def _worth(rung: Rung) -> tuple[bool, float]:
    return rung.passes, rung.measured.users_per_s if rung.passes else rung.measured.recall


def _add(table: Table, measured: Measured, ratio: float, mark: str, style: str) -> None:
    index = measured.index
    kind = " ".join([index.type, *(f"{name}={value}" for name, value in list(index.build_params.items())[:1])])
    numbers = f"{measured.searches:.2f}", f"{measured.recall:.4f}", f"{measured.users_per_s:,.0f}", f"{ratio:.2f}"
    table.add_row(mark, kind, _params(index.search_params), f"{index.interest_cosine:g}", *numbers, style=style)

"""What the commands print: lines and tables for people, plain data for programs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from indexer import release
from indexer.attributes import Attributes
from indexer.build import Built
from indexer.catalogue import ItemCollection
from mind.artifact import Artifact
from mind.collection import Fingerprint

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.remove_task(task)
                tasks.clear()
                tasks[stage] = bar.add_task(stage, total=total or None, count="")
            bar.update(tasks[stage], completed=done, count=f"{done:,} of {total:,}" if total else "")

        yield on_progress


def line(label: str, text: str) -> None:
    out.print(f"[bold]{label:<11}[/]{text}")


def show_model(model: Artifact) -> None:
    items, dim = len(model.weights.item_id), model.hyper_parameters.embedding_dim
    line("model", f"{model.model_version}: {items:,} items, {dim} dimensions")


def show_attributes(attributes: Attributes, items: int) -> None:
    for position, column in enumerate(attributes.columns):
        line("" if position else "attributes", f"{column.name} {column.type}, {column.filled:,} of {items:,} items")
    if attributes.missing:
        line("", f'{attributes.missing:,} items have no row in the file: "", 0, false or [] stands for their values')
    if attributes.unknown:
        line("", f"{attributes.unknown:,} rows are of items that the model does not know: left out")


def show_built(built: Built, seconds: float) -> None:
    fingerprint = built.fingerprint
    line("index", _index(fingerprint))
    facts = f"{fingerprint.count:,} items, {built.sampled:,} vectors equal bit for bit"
    if built.recall:
        facts += f", recall@{built.recall.limit} {built.recall.recall:.3f} over {built.recall.queries} interest vectors"
    line("verified", facts)
    line("built", f"[cyan]{built.collection}[/] " + (f"in {seconds:.1f} s" if built.recall else "was there already"))


def show_release(now: release.Release) -> None:
    if not now.changed:
        line("live", f"[cyan]{now.live}[/] was live already")
    else:
        line("live", f"[cyan]{now.live}[/]" + (f", before: {now.before}" if now.before else ""))


def _index(fingerprint: Fingerprint) -> str:
    build_params = [f"{name}={value}" for name, value in fingerprint.index_params.items()]
    search_params = [f"{name}={value}" for name, value in fingerprint.search_params.items()]
    text = " ".join([fingerprint.index_type, *build_params])
    return text + (f", search {' '.join(search_params)}" if search_params else "")


def table(collections: list[ItemCollection]) -> Table:
    """Fits 80 columns: the name contains the model version."""
    colours = {"live": "bold green", "incomplete": "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("collection", no_wrap=True)
    table.add_column("items", justify="right")
    table.add_column("index")
    table.add_column("state")
    table.add_column("since (UTC)", no_wrap=True)
    for collection in collections:
        fingerprint = collection.fingerprint
        table.add_row(
            collection.name,
            f"{fingerprint.count:,}" if fingerprint else "",
            fingerprint.index_type if fingerprint else "",
            collection.state,
            collection.changed_at[:16].replace("T", " "),
            style=colours.get(collection.state, ""),
        )
    return table


def plain(collection: ItemCollection) -> dict[str, Any]:
    fingerprint = collection.fingerprint
    return {
        "collection": collection.name,
        "state": collection.state,
        "built_at": collection.built_at or None,
        "published_at": collection.published_at or None,
        "fingerprint": fingerprint.model_dump() if fingerprint else None,
    }

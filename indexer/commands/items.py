"""The commands `upsert` and `delete`: their options, and what they print."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from indexer import display
from indexer.catalogue import ItemCollection, find, fingerprint_of, item_collections
from indexer.errors import NothingToDoError, RefusedError
from indexer.items.carry_over import Carried
from indexer.items.changes import Summary, delete, upsert
from indexer.items.item_files import ItemFile, parse_id, read_ids
from indexer.items.journal import Journal
from indexer.model import load_model
from indexer.options import ArtifactCache, QuoteOption, ReleasedArtifact
from mind.data.paddlerec import read_train
from mind.data.quotes import Quote
from mind.milvus.collection import ITEM_ID, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import CACHE, Models

_LISTED = 10

Collection = Annotated[
    str | None, typer.Option(help="Item collection to change.", show_default="the live one", metavar="NAME")
]


def upsert_command(
    connection: Connection,
    attributes: Annotated[
        Path | None,
        typer.Option(
            help="CSV, Parquet or a directory of Parquet files: an id and attributes that the collection has, or some."
        ),
    ] = None,
    interactions: Annotated[
        Path | None,
        typer.Option(
            help="Lines uid,item_id,time, a file or a directory of them, as `mind.prepare` writes: new items in it get "
            "their vectors from the items that the same users had.",
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet: an id and a list of numbers `embedding` (CSV: 0.1|0.2|...), for new items."),
    ] = None,
    id_column: Annotated[str, typer.Option(help="Column that holds the item id.")] = ITEM_ID,
    quote: QuoteOption = Quote.AUTO,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    collection: Collection = None,
) -> None:
    """Add new items and change attributes, without training or building anew.

    A new item needs a vector. It is taken from --vectors; else derived from the
    items that users of --interactions had together with it; else from the items
    that share its attributes. `vector_source` of each item tells which: trained,
    given, neighbours or attributes, and filters may ask for it. Items that the
    model knows keep the vector they were trained to.

    An attribute that a file does not have, or an empty cell, stays as it is.
    Servers see a change at once. A command that was killed is completed by the
    same command; given again, it changes nothing. Give one at a time.
    If another collection is released meanwhile, it fails: give it again.

    [bold]Examples[/bold]

    What is in stock now (stock.csv: item_id,in_stock):

        python -m indexer upsert --attributes stock.csv

    New items and their attributes, vectors from who bought what since the training:

        python -m indexer upsert --attributes new.csv --interactions since.txt
    """
    if attributes is None and interactions is None and vectors is None:
        raise typer.BadParameter("one of --attributes, --interactions and --vectors, or several, are needed")
    with Store(connection) as store:
        found = _chosen(store, collection)
        model = load_model(Models(artifact, artifact_cache), fingerprint_of(found).model_version)
        journal = Journal(store, found.name)
        kinds = {name: column for name, column in journal.columns.items() if name != VECTOR_SOURCE}
        dim, rows = model.hyper_parameters.embedding_dim, journal.batch_rows
        sequences = read_train(interactions) if interactions else None
        vector_file = ItemFile(vectors, id_column, {}, dim, rows, quote) if vectors else None
        attribute_file = ItemFile(attributes, id_column, kinds, 0, rows, quote) if attributes else None
        with display.progress() as on_progress:
            summary = upsert(journal, model, vector_file, attribute_file, sequences, on_progress)
        display.line("collection", f"[cyan]{found.name}[/]")
        for file in (vector_file, attribute_file):
            if file:
                display.show_count(file.path, file.count)
        show_summary(summary)
        _check_still_live(store, found.name, collection)


def delete_command(
    connection: Connection,
    ids: Annotated[str | None, typer.Option(help="Such as 1,2,3.")] = None,
    ids_file: Annotated[Path | None, typer.Option(help="Text file, one id a line.")] = None,
    collection: Collection = None,
) -> None:
    """Take items out, those that the model knows too.

    Servers see it at once. A deleted item stays out until an `upsert` names it in
    --attributes or --vectors, and, with `publish --carry-over`, in later releases.
    If another collection is released meanwhile, it fails: give it again.

    [bold]Examples[/bold]

        python -m indexer delete --ids 50,181

        python -m indexer delete --ids-file withdrawn.txt
    """
    if (ids is None) == (ids_file is None):
        raise typer.BadParameter("one of --ids and --ids-file is needed")
    item_id = np.unique([parse_id(text, "--ids") for text in ids.split(",")]) if ids else read_ids(Path(str(ids_file)))
    with Store(connection) as store:
        journal = Journal(store, _chosen(store, collection).name)
        with display.progress() as on_progress:
            summary = delete(journal, item_id, on_progress)
        display.line("collection", f"[cyan]{journal.collection}[/]")
        show_summary(summary)
        _check_still_live(store, journal.collection, collection)


def show_summary(summary: Summary) -> None:
    """Print what was done; what was not, with some of the ids."""
    for source, count in sorted(summary.added.items()):
        display.line("added", f"{count:,} items, vectors {source}")
    for label, count in (
        ("changed", summary.changed),
        ("deleted", summary.deleted),
        ("unchanged", len(summary.unchanged)),
    ):
        if count:
            display.line(label, f"{count:,} items")
    if summary.no_vector:
        text = f"{_listed(summary.no_vector)}: no vector was given, and neither neighbours nor attributes tell one"
        display.line("left out", text)
    if summary.unknown:
        display.line("unknown", f"{_listed(summary.unknown)}: not in the collection")


def show_carried(carried: Carried | None) -> None:
    """Print what was brought along from the release before."""
    if carried is None:
        display.line("carried", "nothing: no release before it, or no item of it was changed")
        return
    display.line("carried", f"changes of {carried.source}")
    show_summary(carried.summary)
    if carried.summary.replaced:
        display.line("replaced", f"{carried.summary.replaced:,} attribute values of the new build, by earlier upserts")
    if carried.left_given:
        display.line("left out", f"{_listed(carried.left_given)}: their vectors were given for the model before")
    if carried.left_attributes:
        names = ", ".join(sorted(carried.left_attributes))
        display.line("left out", f"attributes that this collection does not have or cannot hold: {names}")


def _listed(items: set[int]) -> str:
    shown = ", ".join(map(str, sorted(items)[:_LISTED]))
    return f"{len(items):,} items ({shown}{', ...' if len(items) > _LISTED else ''})"


def _chosen(store: Store, name: str | None) -> ItemCollection:
    """The collection of that name, or the live one."""
    name = name or store.alias()
    if name is None:
        raise NothingToDoError("nothing is live; name the collection to change: --collection")
    return find(item_collections(store), name)


def _check_still_live(store: Store, changed: str, name: str | None) -> None:
    """Refuse to end well if the live collection was changed, for no name was given, and another one is live by now."""
    live = store.alias()
    if name is None and live not in (None, changed):
        raise RefusedError(f"{live}: was released while {changed} was changed; give the same command again")

"""The commands `upsert` and `delete`: their options and their output."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import typer

from indexer import display
from indexer.catalogue import ItemCollection, find, fingerprint_of, item_collections
from indexer.errors import NothingToDoError, RefusedError
from indexer.items.attributes import find_id_column
from indexer.items.carry_over import Carried
from indexer.items.changes import ChangeSummary, delete, upsert
from indexer.items.clicks import read_clicks
from indexer.items.item_files import ItemFile, parse_ids, read_ids
from indexer.items.journal import OWN, Journal
from indexer.model import load_model
from indexer.options import ArtifactCache, Channel, QuoteOption, ReleasedArtifact
from indexer.rollout.choice import in_words
from mind.data.quotes import Quote
from mind.data.sources import source_of
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.connection import Connection
from mind.milvus.schemas import Column
from mind.milvus.store import Store
from mind.transfer import CACHE, Models

_LISTED = 10

Collection = Annotated[
    str | None, typer.Option(help="Item collection to change.", show_default="the live one", metavar="NAME")
]


def upsert_command(
    connection: Connection,
    attributes: Annotated[
        str | None,
        typer.Option(
            metavar="FILES",
            help="CSV, JSON lines or Parquet: a file, a directory, or such a URL. It has an id and attributes that the "
            "collection has, or some.",
        ),
    ] = None,
    interactions: Annotated[
        str | None,
        typer.Option(
            metavar="FILES",
            help="File, directory or URL of lines user,item,time, or a part that `mind.prepare` wrote, such as "
            "data/mine/train. A new item in them gets its vector from the items that the same users interacted with, "
            "and becomes a neighbour of those that they clicked soon before. "
            "A file that names its columns may have the column of kinds that the model was trained with: clicks of "
            "kinds that are neither history nor target are left out.",
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            metavar="FILES",
            help="CSV or Parquet file, or its URL, with an id column and a column `embedding`, a list of numbers (in "
            "CSV 0.1|0.2|...), for new items.",
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column with the item ids; otherwise one with a usual name, such as sku.")
    ] = None,
    clear_empty: Annotated[
        bool,
        typer.Option(
            "--clear-empty", help="An empty cell of --attributes removes the item's value, which is null then."
        ),
    ] = False,
    quote: QuoteOption = Quote.AUTO,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    collection: Collection = None,
    channel: Channel = LIVE,
) -> None:
    """Add new items and change attributes without training or building again.

    A new item needs a vector. The command takes it from --vectors. Without one it
    derives the vector from the items that occur together with the new item in
    --interactions, and otherwise from the items with similar attributes. The
    attribute `vector_source` of each item holds its source: trained, given,
    neighbours or attributes. Filters can use it. Items that the model knows keep
    their trained vectors.

    An attribute keeps its value if its column is missing, and if its cell is empty
    unless you give --clear-empty. Attributes that a new item is not given are null.
    Servers see a change at once. If the command is interrupted, run it again: it
    completes the work. A repeated command changes nothing. Run one `upsert` or
    `delete` at a time. The command fails if another collection is released
    meanwhile; then run it again.

    Changes belong to a collection. --channel changes the live collection of
    another channel; if it is live in several channels, all of them get the
    change. To change an item in all channels, give the command once for each
    collection that is live.

    [bold]Examples[/bold]

    Change what is in stock (stock.csv: item_id,in_stock):

        python -m indexer upsert --attributes stock.csv

    Say that items have no price now (prices.csv: item_id,price, with empty cells):

        python -m indexer upsert --attributes prices.csv --clear-empty

    Add new items with attributes, and derive their vectors from interactions since the training:

        python -m indexer upsert --attributes new.csv --interactions since.txt
    """
    if attributes is None and interactions is None and vectors is None:
        raise typer.BadParameter("give at least one of --attributes, --interactions and --vectors")
    if clear_empty and attributes is None:
        raise typer.BadParameter("--clear-empty needs --attributes, whose empty cells it is about")
    with Store(connection) as store:
        found = _chosen(store, collection, channel)
        model = load_model(Models(artifact, artifact_cache), fingerprint_of(found).model_version)
        journal = Journal(store, found.name)
        kinds = {name: column for name, column in journal.columns.items() if name not in OWN}
        dim, rows, keyed = model.hyper_parameters.embedding_dim, journal.batch_rows, journal.has_keys
        sequences, keys = read_clicks(source_of(interactions), keyed, model.events) if interactions else (None, None)

        def file_of(given: str | None, kinds: Mapping[str, Column], dim: int) -> ItemFile | None:
            path = source_of(given) if given else None
            ids = path and (id_column or find_id_column(path, quote))
            return ItemFile(path, ids, kinds, dim, rows, quote, keyed) if path and ids else None

        files = file_of(vectors, {}, dim), file_of(attributes, kinds, 0)
        with display.progress() as on_progress:
            summary = upsert(journal, model, *files, sequences, on_progress, clear_empty, keys)
        display.line("collection", f"[cyan]{found.name}[/]")
        for file in files:
            if file:
                display.show_count(file.path, file.count, file.id_column)
        show_summary(summary)
        _check_still_live(store, found.name, collection, channel)


def delete_command(
    connection: Connection,
    ids: Annotated[
        str | None, typer.Option(help="Item ids, separated by commas, such as 1,2,3 or KIT-1,KIT-2.")
    ] = None,
    ids_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text file, or its URL, with one item id per line.")
    ] = None,
    collection: Collection = None,
    channel: Channel = LIVE,
) -> None:
    """Delete items from the collection, whether the model knows them or not.

    Servers see the change at once. A deleted item stays deleted until an `upsert`
    names it in --attributes or --vectors. `publish --carry-over` keeps it deleted
    in later releases too. Run one `upsert` or `delete` at a time. The command
    fails if another collection is released meanwhile; then run it again.
    --channel works as in `upsert`.

    [bold]Examples[/bold]

        python -m indexer delete --ids 50,181

        python -m indexer delete --ids-file withdrawn.txt
    """
    if (ids is None) == (ids_file is None):
        raise typer.BadParameter("give either --ids or --ids-file")
    texts = [(text, "--ids") for text in ids.split(",")] if ids else read_ids(source_of(str(ids_file)))
    with Store(connection) as store:
        journal = Journal(store, _chosen(store, collection, channel).name)
        items = parse_ids(texts, journal.has_keys)
        with display.progress() as on_progress:
            summary = delete(journal, np.array(list(items), np.int64), on_progress, items)
        display.line("collection", f"[cyan]{journal.collection}[/]")
        show_summary(summary)
        _check_still_live(store, journal.collection, collection, channel)


def show_summary(summary: ChangeSummary) -> None:
    """Print how many items were changed, and some ids of those that could not be."""
    for source, count in sorted(summary.added.items()):
        display.line("added", f"{count:,} items, vectors {source}")
    for label, count in (
        ("changed", summary.changed),
        ("deleted", summary.deleted),
        ("unchanged", len(summary.unchanged)),
    ):
        if count:
            display.line(label, f"{count:,} items")
    if summary.kept:
        display.line("kept", f"{summary.kept:,} values whose cells are empty; --clear-empty removes them")
    if summary.no_vector:
        why = "no vector is given, and none can be derived from neighbours or attributes"
        display.line("left out", f"{_listed(summary.no_vector, summary)}: {why}")
    if summary.unknown:
        display.line("unknown", f"{_listed(summary.unknown, summary)}: they are not in the collection")


def show_carried(carried: Carried | None) -> None:
    """Print which changes were carried over from the previous release."""
    if carried is None:
        display.line(
            "carried", "nothing: there is no previous release, it has no changes, or its ids are of another kind"
        )
        return
    display.line("carried", f"changes of {carried.source}")
    show_summary(carried.summary)
    if carried.summary.replaced:
        text = f"{carried.summary.replaced:,} attribute values of the new build are replaced by earlier upserts"
        display.line("replaced", text)
    if carried.left_given:
        display.line(
            "left out",
            f"{_listed(carried.left_given, carried.summary)}: their vectors were given for the previous model",
        )
    if carried.left_attributes:
        names = ", ".join(sorted(carried.left_attributes))
        display.line("left out", f"attributes that this collection does not have or cannot hold: {names}")


def _listed(items: set[int], summary: ChangeSummary) -> str:
    shown = ", ".join(summary.keys.get(item) or str(item) for item in sorted(items)[:_LISTED])
    return f"{len(items):,} items ({shown}{', ...' if len(items) > _LISTED else ''})"


def _chosen(store: Store, name: str | None, channel: str) -> ItemCollection:
    """Return the collection with this name, or the live one of the channel if there is no name."""
    if name and channel != LIVE:
        raise typer.BadParameter("give either --collection or --channel")
    name = name or store.alias(alias_of(channel))
    if name is None:
        where = in_words(channel)
        raise NothingToDoError(f"no collection is live{where}; name the collection to change with --collection")
    return find(item_collections(store), name)


def _check_still_live(store: Store, changed: str, name: str | None, channel: str) -> None:
    """Fail if the command changed the live collection (no name was given) and another collection became live."""
    live = store.alias(alias_of(channel))
    if name is None and live not in (None, changed):
        raise RefusedError(
            f"{live} was released{in_words(channel)} while this command changed {changed}; run the same command again "
            f"to change {live}"
        )

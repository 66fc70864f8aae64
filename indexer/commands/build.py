"""The command `build`: its options and its output."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from indexer import display
from indexer.build import Index, build, choose_bonus, choose_index
from indexer.commands.releases import show_rollout
from indexer.items.attributes import TYPES, Attributes, find_id_column, read_attributes
from indexer.options import Artifact, ArtifactCache, QuoteOption, milvus_options
from indexer.rollout import rollout
from indexer.tuning.index_file import read_index
from indexer.tuning.interests import MIN_ITEMS, choose_cosine
from indexer.verify import MIN_RECALL
from mind.artifact import load_artifact
from mind.data.quotes import Quote
from mind.data.sources import source_of
from mind.milvus.connection import Connection
from mind.milvus.store import Params, Store
from mind.milvus.version import caution
from mind.transfer import CACHE, Models

_log = logging.getLogger(__name__)


def build_command(
    connection: Connection,
    artifact: Artifact,
    attributes: Annotated[
        str | None,
        typer.Option(
            metavar="FILES",
            help="Item attributes: CSV, JSON lines or Parquet; a file, a directory, or such a URL, as "
            "s3://bucket/items.parquet. All columns count.",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of --attributes with the item ids; otherwise one with a usual name, such as sku."),
    ] = None,
    multi_valued: Annotated[
        list[str] | None, typer.Option(help="Text column to split at '|', such as genres. Repeatable.")
    ] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option("--type", help=f"Type of a column, such as year=INT64: {', '.join(TYPES)}. Repeatable."),
    ] = None,
    quote: QuoteOption = Quote.AUTO,
    index_type: Annotated[
        str | None,
        typer.Option(
            help="Milvus index type, such as HNSW or IVF_FLAT. The default is HNSW on a server, FLAT on Milvus Lite.",
            show_default=False,
        ),
    ] = None,
    index_param: Annotated[
        list[str] | None,
        typer.Option(
            help="Parameter of the index build, such as nlist=1024. The defaults of HNSW are M=32 and "
            "efConstruction=200. The default nlist of IVF indexes and SCANN is the power of two nearest to 4 √items, "
            "and that of m of IVF_PQ is half the length of a vector. Repeatable."
        ),
    ] = None,
    search_param: Annotated[
        list[str] | None,
        typer.Option(
            help="Parameter that servers search with, such as nprobe=32. The default of HNSW is ef=128. Repeatable."
        ),
    ] = None,
    interest_cosine: Annotated[
        float | None,
        typer.Option(
            max=1,
            help="Interests of a user with at least this cosine share one search. 1 searches for every interest. "
            f"The default is measured with the model's golden histories, from {MIN_ITEMS:,} items on.",
        ),
    ] = None,
    index_file: Annotated[
        Path | None, typer.Option("--index", help="File from `choose-index`. It replaces the four options above.")
    ] = None,
    neighbours: Annotated[
        str,
        typer.Option(
            metavar="on|off|BONUS",
            help="Whether neighbours of the newest clicks are candidates unless a request says otherwise, and the "
            "bonus that they get. The default is what validation users of the model chose.",
            show_default=False,
        ),
    ] = "",
    min_recall: Annotated[
        float,
        typer.Option(min=0, max=1, help="Minimum share of the exact best 50 that the index must find (recall@50)."),
    ] = MIN_RECALL,
    batch_rows: Annotated[int, typer.Option(min=1, help="Maximum number of rows in one insert.")] = 20_000,
    publish: Annotated[bool, typer.Option("--publish", help="Publish the collection when it is verified.")] = False,
    artifact_cache: ArtifactCache = CACHE,
) -> None:
    """Build and verify the collection of a model.

    The build inserts the item embeddings and attributes, indexes and loads them.
    Then it verifies the collection: it counts the items, compares stored vectors
    with those of the model, and measures the recall of the index against an
    exact search. If the collection already exists, it is only verified again.

    Until it is verified, the collection has a name of its own (building_...), so
    that builds of the same model do not disturb each other: the first that
    finishes counts. What an interrupted build left is dropped by a build on the
    next day, or by `prune --incomplete`; on Milvus Lite by the next build.
    """
    started = time.monotonic()
    models = Models(artifact, artifact_cache)
    model = load_artifact(models.newest())
    if attributes is None and (multi_valued or column_type):
        raise typer.BadParameter("--multi-valued and --type need --attributes, whose columns they describe")
    given = (_pairs(index_param), _pairs(search_param))
    index = _index(connection.is_lite, index_file, index_type, *given, interest_cosine)
    bonus = choose_bonus(model, neighbours)
    display.show_model(model)
    if index_file is None and interest_cosine is None:
        with display.progress() as on_progress:
            searches = choose_cosine(model, on_progress)
        if searches:
            display.show_searches(searches)
            index = replace(index, interest_cosine=searches.cosine)
    loaded = Attributes()
    if attributes is not None:
        types = {name: str(kind) for name, kind in _pairs(column_type).items()}
        weights = model.weights
        source = source_of(attributes)
        ids = id_column or find_id_column(source, quote)
        loaded = read_attributes(source, weights.item_id, ids, multi_valued or [], types, quote, weights.keys)
        display.show_count(source, loaded.count, ids)
        display.show_attributes(loaded, len(model.weights.item_id))
    with Store(connection) as store:
        if says := caution(store.version()):
            _log.warning("%s", says)
        with display.progress() as on_progress:
            built = build(store, model, loaded, index, min_recall, batch_rows, on_progress, bonus)
        display.show_built(built, time.monotonic() - started)
        if publish:
            with display.progress() as on_progress:
                done = rollout.publish(store, models, built.collection, on_progress=on_progress)
            show_rollout(done, connection, models)
        else:
            display.line("next", f"python -m indexer publish {built.collection}{milvus_options(connection)}")


def _index(
    is_lite: bool,
    file: Path | None,
    index_type: str | None,
    build_params: Params,
    search_params: Params,
    interest_cosine: float | None,
) -> Index:
    if file is None:
        cosine = 1 if interest_cosine is None else interest_cosine
        return choose_index(is_lite, index_type, build_params, search_params, cosine)
    if index_type or build_params or search_params or interest_cosine is not None:
        raise typer.BadParameter(
            "--index cannot be combined with --index-type, --index-param, --search-param or --interest-cosine; "
            "the file holds all of them"
        )
    found = read_index(file)
    return choose_index(is_lite, found.type, found.build_params, found.search_params, found.interest_cosine)


def _pairs(options: list[str] | None) -> dict[str, int | float | str]:
    pairs: dict[str, int | float | str] = {}
    for option in options or []:
        name, equals, text = option.partition("=")
        if not (name and equals and text):
            raise typer.BadParameter(f"{option!r}: expected NAME=VALUE")
        pairs[name] = _number(text)
    return pairs


def _number(text: str) -> int | float | str:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text

"""Command line: `python -m indexer tune | build | publish | upsert | delete | status | count | rollback | ...`."""

import json
import logging
import signal
import sys
import time
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("indexer", "pyarrow", "pymilvus", "safetensors", "tenacity", "typer"):
    sys.exit(line)

import typer

from indexer import display
from indexer.build import Index, build, choose_index
from indexer.catalogue import find, item_collections, with_changes
from indexer.commands.items import delete_command, upsert_command
from indexer.commands.releases import (
    drop_command,
    prune_command,
    publish_command,
    purge_users_command,
    rollback_command,
    show_rollout,
)
from indexer.errors import NothingToDoError, RefusedError
from indexer.items.attributes import TYPES, Attributes, read_attributes
from indexer.options import Artifact, ArtifactCache, connected, milvus_options
from indexer.rollout import rollout
from indexer.tuning.candidates import TYPES as INDEX_TYPES
from indexer.tuning.index_file import read_index, write_index
from indexer.tuning.measure import MIN_USERS, read_histories
from indexer.tuning.tune import refuse_lite, tune
from indexer.verify import MIN_RECALL
from mind.artifact import load_artifact
from mind.milvus.collection import ITEM_ID
from mind.milvus.connection import Connection
from mind.milvus.store import Params, Store
from mind.transfer import CACHE, Models

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Turn a trained model into a searchable item collection in Milvus, and choose which one is live.

[bold]Examples[/bold]

Build the newest model under artifacts/ in a local file, and release it:

    python -m indexer build --artifact artifacts --publish

The same on a Milvus server, with attributes to filter on:

    python -m indexer build --artifact artifacts --publish
        --attributes items.csv --multi-valued genres
        --milvus-uri http://127.0.0.1:19530

Choose the fastest index that finds enough, and build with it:

    python -m indexer tune --artifact artifacts --histories data/movielens-100k/valid
        --milvus-uri http://127.0.0.1:19530 --output index.json
    python -m indexer build --artifact artifacts --index index.json --publish
        --milvus-uri http://127.0.0.1:19530

Add new items and change attributes between trainings:

    python -m indexer upsert --attributes items.csv --interactions since.txt
    python -m indexer delete --ids 50,181

Go back to the release before, and clean up:

    python -m indexer rollback
    python -m indexer prune --keep 2

A build never touches what is live. The same model, attributes and index
give the same collection, so building again is safe.

Exit code: 0 done; 1 failed, one line says why; 2 wrong usage; 130 interrupted.
""",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("mind-recall"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


class Format(StrEnum):
    """How `status` answers."""

    TABLE = "table"
    JSON = "json"


@app.command("build")
@connected
def build_command(
    connection: Connection,
    artifact: Artifact,
    attributes: Annotated[
        Path | None, typer.Option(help="CSV or Parquet file of item attributes; all its columns are taken.")
    ] = None,
    id_column: Annotated[str, typer.Option(help="Column of --attributes that holds the item id.")] = ITEM_ID,
    multi_valued: Annotated[
        list[str] | None, typer.Option(help="Text column to split at '|', such as genres. Repeatable.")
    ] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option("--type", help=f"Type of a column, such as year=INT64: {', '.join(TYPES)}. Repeatable."),
    ] = None,
    index_type: Annotated[
        str | None,
        typer.Option(help="HNSW, IVF_FLAT, ... (HNSW on a server, FLAT on Milvus Lite).", show_default=False),
    ] = None,
    index_param: Annotated[
        list[str] | None,
        typer.Option(help="Such as M=32, efConstruction=200 (the defaults of HNSW) or nlist=1024. Repeatable."),
    ] = None,
    search_param: Annotated[
        list[str] | None,
        typer.Option(help="Such as ef=128 (the default of HNSW) or nprobe=32; servers search with it. Repeatable."),
    ] = None,
    filter_search_param: Annotated[
        list[str] | None,
        typer.Option(help="The same for searches with a filter, if they need others. Repeatable."),
    ] = None,
    interest_cosine: Annotated[
        float | None,
        typer.Option(
            max=1,
            help="Search once for interests of a user at least this similar; 1 (the default) for each on its own.",
        ),
    ] = None,
    index_file: Annotated[
        Path | None, typer.Option("--index", help="File that `tune` wrote, instead of the five options above.")
    ] = None,
    min_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of the exact best 50 that the index must find.")
    ] = MIN_RECALL,
    batch_rows: Annotated[int, typer.Option(min=1, help="Most rows in one insert.")] = 20_000,
    publish: Annotated[bool, typer.Option("--publish", help="Make it live afterwards.")] = False,
    artifact_cache: ArtifactCache = CACHE,
) -> None:
    """Build and verify the collection of a model.

    Inserts the item embeddings and attributes, indexes and loads them, then
    counts, compares stored vectors with the model's, and measures what the
    index finds against an exact search. If the collection is there already,
    it is only verified again. What an interrupted build left is replaced, so
    never run two builds of the same model at once.
    """
    started = time.monotonic()
    models = Models(artifact, artifact_cache)
    model = load_artifact(models.newest())
    if attributes is None and (multi_valued or column_type):
        raise typer.BadParameter("--multi-valued and --type are about the columns of --attributes")
    given = (_pairs(index_param), _pairs(search_param), _pairs(filter_search_param))
    index = _index(connection.is_lite, index_file, index_type, *given, interest_cosine)
    display.show_model(model)
    loaded = Attributes()
    if attributes is not None:
        types = {name: str(kind) for name, kind in _pairs(column_type).items()}
        loaded = read_attributes(attributes, model.weights.item_id, id_column, multi_valued or [], types)
        display.show_attributes(loaded, len(model.weights.item_id))
    with Store(connection) as store:
        with display.progress() as on_progress:
            built = build(store, model, loaded, index, min_recall, batch_rows, on_progress)
        display.show_built(built, time.monotonic() - started)
        if publish:
            with display.progress() as on_progress:
                done = rollout.publish(store, models, built.collection, on_progress=on_progress)
            show_rollout(done, connection, models)
        else:
            display.line("next", f"python -m indexer publish {built.collection}{milvus_options(connection)}")


@app.command("tune")
@connected
def tune_command(
    connection: Connection,
    artifact: Artifact,
    histories: Annotated[
        Path, typer.Option(help="Evaluation or training lines, a file or a directory: whose users are searched for.")
    ],
    min_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of a user's exact merged best 50 that must be found.")
    ] = 0.99,
    users: Annotated[int, typer.Option(min=MIN_USERS, help="Most histories to measure with.")] = 512,
    index_type: Annotated[
        list[str] | None, typer.Option(help=f"Try only this: {', '.join(INDEX_TYPES)}. Repeatable.")
    ] = None,
    output: Annotated[Path, typer.Option(help="File to write; `build --index` reads it.")] = Path("index.json"),
    artifact_cache: ArtifactCache = CACHE,
) -> None:
    """Choose index and search parameters by measuring: the fastest that finds enough.

    Inserts the model's items into a trial collection on a Milvus server,
    indexes it in many ways, and searches for real users as a server would.
    The trial collection is dropped afterwards; released collections and the
    alias are not touched, but share Milvus' time and memory with it.
    """
    refuse_lite(connection)
    if output.is_dir():
        raise RefusedError(f"{output}: --output is a directory")
    model = load_artifact(Models(artifact, artifact_cache).newest())
    sequences = read_histories(histories)
    display.show_model(model)
    with Store(connection) as store:
        version = store.version()
        with display.progress() as on_progress:
            tuned = tune(store, model, sequences, min_recall, users, index_type or INDEX_TYPES, on_progress=on_progress)
    display.show_tuned(tuned)
    write_index(output, tuned, model.model_version, version)
    display.line("wrote", str(output))
    options = f"--artifact {artifact} --index {output} --publish{milvus_options(connection)}"
    display.line("next", f"python -m indexer build {options}")


app.command("publish")(connected(publish_command))
app.command("upsert")(connected(upsert_command))
app.command("delete")(connected(delete_command))


@app.command("status")
@connected
def status_command(
    connection: Connection,
    form: Annotated[Format, typer.Option("--format", help="For people or for programs.")] = Format.TABLE,
) -> None:
    """List the item collections: live, published before, built, incomplete; and items changed since they were built."""
    with Store(connection) as store:
        collections = with_changes(store, item_collections(store))
    if form is Format.JSON:
        print(json.dumps([display.plain(collection) for collection in collections], indent=2))
    elif collections:
        display.out.print(display.table(collections))
    else:
        display.out.print(f"{connection.shown} holds no item collection; `python -m indexer build` makes one")


@app.command("count")
@connected
def count_command(
    connection: Connection,
    collection: Annotated[str | None, typer.Argument(help="The live one if left out.", show_default=False)] = None,
) -> None:
    """Count the items in a collection, exactly; loads it if it is not."""
    with Store(connection) as store:
        if collection is None:
            collection = store.alias()
        if collection is None:
            raise NothingToDoError("nothing is live; name the collection to count")
        find(item_collections(store), collection)
        store.load(collection)
        print(store.count(collection))


app.command("rollback")(connected(rollback_command))
app.command("prune")(connected(prune_command))
app.command("drop")(connected(drop_command))
app.command("purge-users")(connected(purge_users_command))


def _index(
    is_lite: bool,
    file: Path | None,
    index_type: str | None,
    build_params: Params,
    search_params: Params,
    filter_search_params: Params,
    interest_cosine: float | None,
) -> Index:
    if file is None:
        cosine = 1 if interest_cosine is None else interest_cosine
        return choose_index(is_lite, index_type, build_params, search_params, filter_search_params, cosine)
    if index_type or build_params or search_params or filter_search_params or interest_cosine is not None:
        raise typer.BadParameter("--index holds the index and its parameters; leave the options for them out")
    found = read_index(file)
    params = (found.build_params, found.search_params, found.filter_search_params)
    return choose_index(is_lite, found.type, *params, found.interest_cosine)


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


def main() -> None:
    """Run the command line. SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for noisy in ("pymilvus", "milvus_lite"):  # they log a traceback for every error they also raise
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    app()


if __name__ == "__main__":
    main()

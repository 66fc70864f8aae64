"""Command line: `python -m indexer tune | build | publish | upsert | delete | status | count | rollback | ...`."""

import functools
import inspect
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mind.extras import missing

if line := missing("indexer", "pyarrow", "pymilvus", "safetensors", "tenacity", "typer"):
    sys.exit(line)

import typer

from indexer import display, release
from indexer.attributes import TYPES, Attributes, read_attributes
from indexer.build import Index, build, choose_index
from indexer.candidates import TYPES as INDEX_TYPES
from indexer.carry_over import publish_with_changes
from indexer.catalogue import item_collections, with_changes
from indexer.errors import IndexerError, NothingToDoError, RefusedError
from indexer.index_file import read_index, write_index
from indexer.item_commands import ArtifactCache, ReleasedArtifact, delete_command, show_carried, upsert_command
from indexer.measure import MIN_USERS, read_histories
from indexer.store import Connection, Params, Store
from indexer.tune import refuse_lite, tune
from indexer.users import Encoded, encode_users, forget_models, purge
from indexer.verify import MIN_RECALL
from mind.artifact import load_artifact
from mind.collection import ITEM_ID
from mind.errors import MindError
from mind.transfer import CACHE, Models

if TYPE_CHECKING:
    from indexer.servers import Servers

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
_MILVUS, _SERVERS = "Milvus", "Servers"


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


Artifact = Annotated[
    str, typer.Option(help="A model's directory, or a directory or URL (s3://bucket/models) of them: then the newest.")
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", rich_help_panel=_SERVERS, help="Return when every server serves it; fail if one refuses it."
    ),
]
WaitTimeout = Annotated[
    float, typer.Option(min=0, rich_help_panel=_SERVERS, help="Longest that --wait waits, in seconds.")
]


class Format(StrEnum):
    """How `status` answers."""

    TABLE = "table"
    JSON = "json"


def _connection(
    milvus_uri: Annotated[
        str,
        typer.Option(
            envvar="RECALL_MILVUS_URI",
            rich_help_panel=_MILVUS,
            help="http://host:port, https://host:port, or a path that ends in .db: Milvus Lite in that file.",
        ),
    ] = "milvus.db",
    token_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_MILVUS,
            help="File that holds user:password or an API key. Without it, RECALL_MILVUS_TOKEN holds the token itself.",
        ),
    ] = None,
    db_name: Annotated[str, typer.Option(rich_help_panel=_MILVUS, help="Milvus database.")] = "",
    ca_cert: Annotated[
        Path | None, typer.Option(rich_help_panel=_MILVUS, help="PEM file of the authority to trust, for https://.")
    ] = None,
    client_cert: Annotated[
        Path | None, typer.Option(rich_help_panel=_MILVUS, help="PEM file for mutual TLS; needs the two other files.")
    ] = None,
    client_key: Annotated[
        Path | None, typer.Option(rich_help_panel=_MILVUS, help="Private key of the client certificate.")
    ] = None,
    tls_server_name: Annotated[
        str, typer.Option(rich_help_panel=_MILVUS, help="Name in the server's certificate, if not the host.")
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(rich_help_panel=_MILVUS, min=0.1, help="Longest that one call may take, in seconds.")
    ] = 30,
    wait_s: Annotated[
        float,
        typer.Option(rich_help_panel=_MILVUS, min=1, help="Longest that flush, index build or load may take, each."),
    ] = 3600,
) -> Connection:
    token = os.environ.get("RECALL_MILVUS_TOKEN", "")
    if token_file is not None:
        token = _read_secret(token_file, "--token-file")
    return Connection(
        uri=milvus_uri,
        token=token,
        db_name=db_name,
        ca_cert=ca_cert,
        client_cert=client_cert,
        client_key=client_key,
        server_name=tls_server_name,
        timeout_s=timeout_s,
        wait_s=wait_s,
    )


def _servers(
    server: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_SERVERS, help="host:port of a server, or of all servers of that name. Repeatable."
        ),
    ] = None,
    server_token_file: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="File that holds the token that they ask for.")
    ] = None,
    server_ca_cert: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_SERVERS, help="PEM file of the authority to trust; without it there is no TLS."),
    ] = None,
    server_client_cert: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="PEM file for mutual TLS.")
    ] = None,
    server_client_key: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="Private key of that certificate.")
    ] = None,
) -> "Servers | None":
    from indexer.servers import Servers  # what most commands do without: gRPC's stubs

    if not server:
        return None
    token = _read_secret(server_token_file, "--server-token-file") if server_token_file else ""
    return Servers(tuple(server), token, server_ca_cert, server_client_cert, server_client_key)


def _read_secret(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{file}: {option} cannot be read: {error}") from error


_SHARED: dict[str, Callable[..., Any]] = {"connection": _connection, "servers": _servers}
"""Parameters that a command may have, and the options that each is made from."""


def _connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the `_SHARED` parameters it has; failures become one line and an exit code."""
    own = dict(inspect.signature(command).parameters)
    shared = {name: inspect.signature(_SHARED[name]).parameters for name in list(own) if name in _SHARED}
    for name in shared:
        del own[name]

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            made = {
                name: _SHARED[name](**{option: options.pop(option) for option in parameters})
                for name, parameters in shared.items()
            }
            command(**made, **options)
        except (IndexerError, MindError) as error:
            display.err.print("[bold red]error:[/]", end=" ")
            display.err.print(str(error), markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            display.err.print("interrupted")
            raise typer.Exit(130) from error

    parameters = [*own.values(), *(option for options in shared.values() for option in options.values())]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@app.command("build")
@_connected
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
    it is only looked over. What an interrupted build left is replaced, so
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
            released = _release(store, models, lambda before: release.publish(store, built.collection, before))
            display.show_release(released)
        else:
            display.line("next", f"python -m indexer publish {built.collection}")


@app.command("tune")
@_connected
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
    display.line("next", f"python -m indexer build --artifact {artifact} --index {output} --publish")


@app.command("publish")
@_connected
def publish_command(
    connection: Connection,
    servers: "Servers | None",
    collection: Annotated[
        str | None, typer.Argument(help="The one that was finished last if left out.", show_default=False)
    ] = None,
    carry_over: Annotated[
        bool,
        typer.Option("--carry-over", help="With what `upsert` and `delete` did to the live one since it was built."),
    ] = False,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Make a finished collection the live one.

    It is counted again before the alias moves, and remembered users are
    encoded with its model; published again, the live one gets the users
    that it lacks.

    --carry-over brings along deleted items, changed attributes and new items,
    whose vectors are derived anew for the new model. Vectors that were given
    by hand were made for the model before: such items are left out and listed.

    With --wait the command ends well only when every process of every
    --server serves it; it fails when one refuses it.
    """
    with Store(connection) as store:
        models = Models(artifact, artifact_cache)
        released = _release(store, models, lambda before: _publish(store, collection, models, carry_over, before))
    _show_release(released, servers, wait, wait_timeout_s)


app.command("upsert")(_connected(upsert_command))
app.command("delete")(_connected(delete_command))


@app.command("status")
@_connected
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
@_connected
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
        release.find(item_collections(store), collection)
        store.load(collection)
        print(store.count(collection))


@app.command("rollback")
@_connected
def rollback_command(
    connection: Connection,
    servers: "Servers | None",
    to: Annotated[str | None, typer.Option(help="An earlier release.", show_default="the one before")] = None,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Return to the release before the live one. Releases after it count as built, no longer as published."""
    with Store(connection) as store:
        models = Models(artifact, artifact_cache)
        released = _release(store, models, lambda before: release.rollback(store, to, before))
    _show_release(released, servers, wait, wait_timeout_s)


@app.command("prune")
@_connected
def prune_command(
    connection: Connection,
    servers: "Servers | None",
    keep: Annotated[int, typer.Option(min=0, help="Collections to keep besides the live one.")] = 2,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Also drop unfinished builds; make sure that none is running.")
    ] = False,
) -> None:
    """Drop old collections.

    Keeps the live one and, of the others, the --keep that were last
    published or, if never published, finished; and whatever one of the
    --server still uses. If one of these does not answer, nothing is dropped.
    """
    in_use: set[str] = set()
    if servers:
        from indexer.servers import collections_in_use

        in_use = collections_in_use(servers)
    with Store(connection) as store:
        release.prune(store, keep, incomplete, in_use, lambda name: display.line("dropped", name))
        forget_models(store, lambda name: display.line("dropped", name))


@app.command("drop")
@_connected
def drop_command(
    connection: Connection,
    collection: Annotated[str, typer.Argument(help="Its name, as `status` shows it.", show_default=False)],
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Even if it is live; servers have nothing to follow then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop one collection, for good."""
    if not yes and not typer.confirm(f"Drop {collection} from {connection.shown}?", err=True):
        raise RefusedError(f"{collection}: not dropped")
    with Store(connection) as store:
        release.drop(store, collection, allow_live)
        display.line("dropped", collection)
        forget_models(store, lambda name: display.line("dropped", name))


@app.command("purge-users")
@_connected
def purge_users_command(connection: Connection) -> None:
    """Have Milvus write the collections of users anew, without deleted users.

    DeleteUsers makes users invisible at once; what Milvus has written to
    disk stays there until it compacts, which this begins. Run it daily.
    """
    with Store(connection) as store:
        purge(store, lambda name: display.line("compacting", name))


def _publish(
    store: Store, name: str | None, models: Models, carry_over: bool, before: release.BeforeSwitch
) -> release.Release:
    if not carry_over:
        return release.publish(store, name, before)
    with display.progress() as on_progress:
        released, carried = publish_with_changes(
            store,
            name,
            models,
            lambda store, name: release.publish(store, name, before),
            on_progress,
        )
    show_carried(carried)
    return released


def _release(
    store: Store, models: Models, switch: Callable[[release.BeforeSwitch], release.Release]
) -> release.Release:
    """Release something, remembered users first."""
    encoded: Encoded | None = None

    def before_switch(model_version: str) -> None:
        nonlocal encoded
        with display.progress() as on_progress:
            encoded = encode_users(store, model_version, models, on_progress)

    released = switch(before_switch)
    if encoded:
        display.line("users", f"{encoded.users:,} remembered, {encoded.encoded:,} of them encoded now")
    return released


def _show_release(released: release.Release, servers: "Servers | None", wait: bool, timeout_s: float) -> None:
    display.show_release(released)
    if not wait:
        return
    if not servers:
        raise typer.BadParameter("--wait needs a --server")
    from indexer.servers import wait_until_serving

    started = time.monotonic()
    with display.progress() as on_progress:
        processes = wait_until_serving(
            servers, released.live, timeout_s, lambda done, total: on_progress("servers", done, total)
        )
    display.line("serving", f"on {processes} server processes after {time.monotonic() - started:.1f} s")


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

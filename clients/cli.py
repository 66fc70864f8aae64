"""The command line: one command for each call, answers as tables or JSON, failures as one line."""

import asyncio
import functools
import inspect
import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from dataclasses import asdict
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.progress import Progress

from clients.bulk_view import print_outcome, user_bar
from clients.core import MergeStrategyName, RecallResult
from clients.errors import DeadlineExceededError, RecallError, UnavailableError
from clients.plain import to_plain
from clients.size import Load, SizeError, amount
from clients.size import size as size_of
from clients.sync_client import RecallClient
from clients.tables import candidates_view, explain_view, info_view, origin_line, size_view, status_words
from clients.user_files import FileError, is_int64, read_titles, read_users
from protos.recall.v1 import recall_pb2

if TYPE_CHECKING:  # needs pyarrow
    from clients.bulk import Outcome

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Ask a recall server for candidates.")
admin = typer.Typer(no_args_is_help=True, help="Administer a server; needs --token-file.")
app.add_typer(admin, name="admin")

_USERS_PER_CALL = 256


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


class Merge(StrEnum):
    """Spellings of --merge."""

    BEST_SCORE = "best-score"
    ROUND_ROBIN = "round-robin"


class Format(StrEnum):
    """Spellings of --format."""

    TABLE = "table"
    JSON = "json"


def _file(*names: str, help: str, panel: str | None = None, envvar: str | None = None) -> Any:  # noqa: A002
    return typer.Option(*names, exists=True, dir_okay=False, help=help, rich_help_panel=panel, envvar=envvar)


def _secure(name: str, help: str) -> Any:  # noqa: A002
    """An option of the connection that names a file; a variable of the environment sets it, too."""
    return _file(name, help=help, panel="Connection", envvar=f"RECALL_CLIENT_{name[2:].replace('-', '_').upper()}")


_hist_item = typer.Option(
    "--hist-item", metavar="ID,ID,...", help="Ids of the items that the user clicked, oldest first."
)
HistItem = Annotated[str, _hist_item]
TopK = Annotated[int, typer.Option(min=1, help="Candidates per user.")]
Filter = Annotated[str, typer.Option(metavar="EXPR", help="Milvus expression over attributes that `info` lists.")]
ExcludeHistory = Annotated[bool, typer.Option("--exclude-history", help="Leave out what is in the history.")]
Exclude = Annotated[str, typer.Option(metavar="ID,ID,...", help="Ids that must not come back.")]
MergeOption = Annotated[Merge, typer.Option("--merge", help="Best score first, or the interests take turns.")]
Titles = Annotated[Path | None, _file("--titles", help="CSV file of item_id,title rows, to show titles in tables.")]
FormatOption = Annotated[Format, typer.Option("--format", help="A table for people or one JSON document.")]


def _connection(
    server: Annotated[
        str, typer.Option(envvar="RECALL_SERVER", help="host:port of the server.", rich_help_panel="Connection")
    ] = "localhost:50051",
    timeout_ms: Annotated[
        int, typer.Option(min=1, help="Deadline of a call, retries included.", rich_help_panel="Connection")
    ] = 2000,
    token_file: Annotated[
        Path | None, _secure("--token-file", "File whose first line is the bearer token to send.")
    ] = None,
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            envvar="RECALL_CLIENT_TLS",
            help="Use TLS and trust the system's authorities.",
            rich_help_panel="Connection",
        ),
    ] = False,
    ca: Annotated[Path | None, _secure("--ca", "Use TLS and trust the authorities in this PEM file.")] = None,
    cert: Annotated[
        Path | None, _secure("--cert", "PEM file of the certificate to show (mutual TLS); needs --key.")
    ] = None,
    key: Annotated[Path | None, _secure("--key", "PEM file of that certificate's private key.")] = None,
) -> dict[str, Any]:
    """Arguments of either client."""
    if (cert is None) != (key is None):
        raise ValueError("--cert and --key go together")
    return {
        "target": server,
        "timeout_s": timeout_ms / 1000,
        "tls": ca or tls,
        "client_cert": (cert, key) if cert else None,
        "token": _first_line(token_file) if token_file else None,
    }


def _first_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").split()
    if not lines:
        raise ValueError(f"--token-file {file}: has no token")
    return lines[0]


def _with_connection(command: Callable[..., None], timeout_ms: int | None = None) -> Callable[..., None]:
    """Adds the options of `_connection` to a command and passes it what they give; ends a failure with one line."""
    connection = dict(inspect.signature(_connection).parameters)
    if timeout_ms:
        connection["timeout_ms"] = connection["timeout_ms"].replace(default=timeout_ms)
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        try:
            command(_connection(**{name: values.pop(name) for name in connection}), **values)
        except (OSError, RecallError, ValueError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            # A server behind a silent network is a deadline, not a refused connection.
            unreachable = isinstance(error, DeadlineExceededError | UnavailableError)
            raise typer.Exit(3 if unreachable else 1) from error

    parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*own, *connection.values())]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _with_client(command: Callable[..., None]) -> Callable[..., None]:
    """The same with a RecallClient."""

    @functools.wraps(command)
    def run(connection: dict[str, Any], **values: Any) -> None:
        with RecallClient(**connection) as client:
            command(client, **values)

    return _with_connection(run)


@app.command(
    epilog="Example: recall-client recall --hist-item 43,23,65 --top-k 50 --filter 'year >= 1990' --titles items.csv"
    "\n\nExample: recall-client recall --input test.txt --output candidates.jsonl"
)
@_with_client
def recall(
    client: RecallClient,
    hist_item: Annotated[str | None, _hist_item] = None,
    user_id: Annotated[str | None, typer.Option(help="A user whom the service remembers, instead.")] = None,
    input: Annotated[  # noqa: A002
        Path | None,
        _file(
            "--input",
            help="File of many users instead, answered in JSON lines. It has PaddleRec lines "
            '(user_id:7 hist_item:43 hist_item:23 ...) or JSON lines ({"user_id": 7, "hist_item": [43, 23]}).',
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where the JSON lines for --input go; standard output if not given."),
    ] = None,
    top_k: TopK = 50,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    exclude: Exclude = "",
    merge: MergeOption = Merge.BEST_SCORE,
    titles: Titles = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Candidates for one user, or for a file of users."""
    if [hist_item, user_id, input].count(None) != 2:
        raise typer.BadParameter("give one of --hist-item, --user-id and --input")
    excluded = _ids(exclude, "--exclude")
    ask = functools.partial(
        client.recall,
        top_k=top_k,
        filter=filter,
        exclude_history=exclude_history,
        merge_strategy=_merge_strategy(merge),
    )
    if input is not None:
        with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as lines:
            _recall_file(lambda users: ask(users, exclude_item_ids=[excluded] * len(users)), input, lines)
        return
    result = ask([user_id or _ids(hist_item or "", "--hist-item")], exclude_item_ids=[excluded])
    response = recall_pb2.RecallResponse(
        results=result.results,
        model_version=result.model_versions[0],
        collection=result.collections[0],
        timings=result.timings[0],
    )
    view = candidates_view(result.results[0], read_titles(titles) if titles else {})
    _show(format, response, view, origin_line(response))


@app.command(
    epilog="Example: recall-client bulk --input histories.parquet --output candidates.parquet --top-k 100 --overwrite"
)
@functools.partial(_with_connection, timeout_ms=10_000)
def bulk(
    connection: dict[str, Any],
    input: Annotated[Path, _file("--input", help="Parquet file with a row for each user.")],  # noqa: A002
    output: Annotated[
        Path,
        typer.Option(
            dir_okay=False,
            help="Parquet file to make; until it is whole, finished parts are in OUTPUT.parts.",
        ),
    ],
    user_column: Annotated[str, typer.Option(help="Column of user ids, int64 or string.")] = "user_id",
    history_column: Annotated[
        str, typer.Option(help="Column of histories, lists of int64, oldest first; null is an empty one.")
    ] = "hist_item",
    exclude_column: Annotated[
        str | None,
        typer.Option(
            help="Column of ids that must not come back; exclude_item_ids if there is one.", show_default=False
        ),
    ] = None,
    top_k: TopK = 50,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    merge: MergeOption = Merge.BEST_SCORE,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Drop the parts of a stopped run.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.", rich_help_panel="Pace")] = 8,
    users_per_request: Annotated[
        int, typer.Option(min=1, help="Fewer where the server's limits ask for it.", rich_help_panel="Pace")
    ] = 64,
    users_per_part: Annotated[
        int, typer.Option(min=1, help="Users between two savings; a row group of the output.", rich_help_panel="Pace")
    ] = 20_000,
    give_up_after_s: Annotated[
        float, typer.Option(min=0, help="Seconds to try on without any answer.", rich_help_panel="Pace")
    ] = 300,
) -> None:
    """Candidates for all users of a Parquet file. A stopped run goes on when the same command is given again."""
    try:
        from clients.bulk import Pace, Question, run
        from clients.bulk_input import open_histories
        from clients.bulk_parts import open_parts
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"numpy", "pyarrow"}:
            raise
        typer.echo("error: recall-client bulk needs numpy and pyarrow: pip install 'mind-recall[bulk]'", err=True)
        raise typer.Exit(1) from error
    histories = open_histories(input, user_column, history_column, exclude_column)
    question = Question(top_k, filter, exclude_history, _merge_strategy(merge))
    pace = Pace(concurrency, users_per_request, users_per_part, give_up_after_s)
    identity = histories.fingerprint() | vars(question)
    with open_parts(output, identity, restart=restart, overwrite=overwrite) as parts:
        try:
            with user_bar(parts.rows, histories.rows) as report:
                outcome = asyncio.run(_until_sigterm(run(connection, histories, parts, question, pace, report)))
        except (KeyboardInterrupt, asyncio.CancelledError, OSError, RecallError, ValueError) as stop:
            asked_to = isinstance(stop, KeyboardInterrupt | asyncio.CancelledError)
            if asked_to or parts.rows:
                saved = f"{parts.rows:,} of {histories.rows:,} users saved"
                same = "the same command without --restart" if restart else "the same command"
                typer.echo(f"stopped with {saved}; {same} goes on from there", err=True)
            if not asked_to:
                raise
            raise typer.Exit(128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)) from stop
    print_outcome(outcome, output)


@app.command(epilog="Example: recall-client explain --hist-item 43,23,65 --top-k 10 --titles items.csv")
@_with_client
def explain(
    client: RecallClient,
    hist_item: HistItem,
    top_k: TopK = 10,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    exclude: Exclude = "",
    merge: MergeOption = Merge.BEST_SCORE,
    titles: Titles = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """One user's recall step by step: what each interest found, and why hits were dropped."""
    response = client.explain(
        _ids(hist_item, "--hist-item"),
        top_k=top_k,
        filter=filter,
        exclude_history=exclude_history,
        exclude_item_ids=_ids(exclude, "--exclude"),
        merge_strategy=_merge_strategy(merge),
    )
    view = explain_view(response, read_titles(titles) if titles else {})
    _show(format, response, view, origin_line(response))


@app.command(epilog="Example: recall-client count --filter 'year >= 1990'")
@_with_client
def count(
    client: RecallClient,
    filter: Filter = "",  # noqa: A002
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """The number of released items, all of them or those that match a filter."""
    response = client.count_items(filter)
    _show(format, response, f"{response.count:,} items in {response.collection} (model {response.model_version})")


@app.command(epilog="Example: recall-client info --server recall:50051 --format json")
@_with_client
def info(client: RecallClient, format: FormatOption = Format.TABLE) -> None:  # noqa: A002
    """What is being served and which limits hold."""
    response = client.get_server_info()
    _show(format, response, info_view(response))


@app.command(epilog="Example: recall-client health --wait 60")
@_with_client
def health(
    client: RecallClient,
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Wait this long for it to be ready.")] = 0,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Whether the server is ready: exit code 0 if it is, 1 if it is not, 3 if there is none."""
    end = time.monotonic() + wait
    serving = client.is_serving(timeout_s=wait or None, wait_for_ready=wait > 0)
    while not serving and (left_s := end - time.monotonic()) > 0:
        time.sleep(min(0.2, left_s))
        serving = client.is_serving(timeout_s=left_s, wait_for_ready=True)
    status = "SERVING" if serving else "NOT_SERVING"
    typer.echo(json.dumps({"status": status}) if format is Format.JSON else status)
    raise typer.Exit(0 if serving else 1)


@app.command(epilog="Example: recall-client size --items 100M --qps 20k --top-k 50 --users-per-request 64")
def size(
    items: Annotated[str, typer.Option(metavar="AMOUNT", help="Items in the catalogue, such as 100M.")],
    qps: Annotated[str, typer.Option(metavar="AMOUNT", help="Users to answer each second at the peak, such as 20k.")],
    top_k: TopK = Load.top_k,
    users_per_request: Annotated[int, typer.Option(help="Users that callers send together.")] = Load.users_per_request,
    dim: Annotated[int, typer.Option(help="Numbers in an item's vector, hidden_size of the model.")] = Load.dim,
    replicas: Annotated[int, typer.Option(help="Copies of a collection in Milvus' memory.")] = Load.replicas,
    collections: Annotated[
        int, typer.Option(help="Collections in Milvus' memory: live, before it, being built.")
    ] = Load.collections,
    headroom: Annotated[float, typer.Option(help="Share of the processors that is idle at the peak.")] = Load.headroom,
    node_cores: Annotated[
        int, typer.Option(help="Cores of a query node of Milvus.", rich_help_panel="Milvus")
    ] = Load.node_cores,
    node_gb: Annotated[
        float, typer.Option(help="Memory of a query node of Milvus, GB.", rich_help_panel="Milvus")
    ] = Load.node_gb,
    segment_mb: Annotated[
        float, typer.Option(help="Its dataCoord.segment.maxSize.", rich_help_panel="Milvus")
    ] = Load.segment_mb,
    milvus_cpu_s: Annotated[
        float | None,
        typer.Option(
            help="Processor seconds for 1,000 users that you measured at this size, instead of the estimate.",
            rich_help_panel="Milvus",
        ),
    ] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """What a load needs, from what was measured; says what it assumes. Asks no server."""
    try:
        load = Load(
            amount(items), amount(qps), top_k, users_per_request, dim, replicas, collections, headroom,
            node_cores, node_gb, segment_mb, milvus_cpu_s,
        )  # fmt: skip
        needed = size_of(load)
    except SizeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if format is Format.JSON:
        typer.echo(json.dumps({"load": vars(load)} | asdict(needed), indent=2))
    else:
        Console(highlight=False).print(size_view(needed))


@admin.command(epilog="Example: recall-client admin drop-items items_3f2a --yes --token-file token.txt")
@_with_client
def drop_items(
    client: RecallClient,
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Drop it even if it is released; recall then fails.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Drop an item collection from Milvus, rows and index."""
    if not yes:
        typer.confirm(f"Drop {collection}?", abort=True, err=True)
    response = client.drop_items(collection, allow_live=allow_live)
    _show(format, response, f"dropped {response.collection}, {response.dropped_count:,} items")


@admin.command(epilog="Example: recall-client admin reload --token-file token.txt")
@_with_client
def reload(client: RecallClient, format: FormatOption = Format.TABLE) -> None:  # noqa: A002
    """Look for a new release now."""
    response = client.reload()
    moved = response.collection != response.previous_collection
    before = f"before: {response.previous_collection or 'none'}" if moved else "as before"
    _show(format, response, f"serving {response.model_version} from {response.collection} ({before})")


def _recall_file(ask: Callable[[list[list[int]]], RecallResult], path: Path, output: TextIO) -> None:
    """Writes a JSON line for every user of the file; progress and summary go to standard error."""
    console = Console(stderr=True, highlight=False)
    statuses: Counter[str] = Counter()
    model_versions: dict[str, None] = {}
    started = time.monotonic()
    progress = Progress(console=console, transient=True)
    with progress, progress.open(path, "rb", description=path.name) as lines:
        users = read_users(lines, str(path))
        while batch := list(itertools.islice(users, _USERS_PER_CALL)):
            result = ask([hist_item for _, hist_item in batch])
            # One each, unless a release happened within the batch: then nobody knows which users it parted.
            release = {
                "model_version": ", ".join(result.model_versions),
                "collection": ", ".join(result.collections),
            }
            for (user_id, _), candidates in zip(batch, result.results, strict=True):
                output.write(json.dumps({"user_id": user_id} | _output_fields(candidates) | release) + "\n")
                statuses[status_words(candidates.status)] += 1
            model_versions |= dict.fromkeys(result.model_versions)
    total = statuses.total()
    if not total:
        raise FileError(f"{path} has no users")
    elapsed_s = time.monotonic() - started
    parts = ", ".join(f"{number:,} {words}" for words, number in statuses.most_common())
    console.print(f"{total:,} users in {elapsed_s:.1f} s ({total / elapsed_s:,.0f} users/s): {parts}")
    console.print(f"model {', '.join(model_versions)}")
    if len(model_versions) > 1:
        console.print("a release happened meanwhile: scores of different users do not compare", style="yellow")


async def _until_sigterm(work: Coroutine[Any, Any, "Outcome"]) -> "Outcome":
    """SIGTERM cancels the work, as Ctrl-C does by itself."""
    task = asyncio.create_task(work)
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _output_fields(candidates: recall_pb2.UserCandidates) -> dict[str, Any]:
    plain = to_plain(candidates)
    return {name: plain[name] for name in ("item_ids", "scores", "interest", "status", "fallback")}


def _show(format: Format, response: Message, *views: RenderableType) -> None:  # noqa: A002
    if format is Format.JSON:
        typer.echo(json.dumps(to_plain(response), indent=2))
    else:
        Console(highlight=False).print(*views, sep="\n")


def _ids(text: str, option: str) -> list[int]:
    try:
        ids = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        ids = [-(2**64)]
    if not all(map(is_int64, ids)):
        raise typer.BadParameter(f"{text!r} is not a list of 64-bit integers like 43,23,65", param_hint=option)
    return ids


def _merge_strategy(merge: Merge) -> MergeStrategyName:
    return cast(MergeStrategyName, merge.value.replace("-", "_"))

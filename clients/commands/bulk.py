"""The command `bulk`."""

import asyncio
import functools
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from clients.bulk_view import print_outcome, user_bar
from clients.command import with_connection
from clients.commands.question import (
    AtMost,
    Channel,
    Diversity,
    ExcludeHistory,
    Filter,
    Merge,
    MergeOption,
    Neighbours,
    NeighboursOption,
    PerInterestMin,
    TopK,
    at_most_of_option,
    file_option,
    merge_strategy_of,
)
from clients.errors import RecallError
from clients.options import Connection

if TYPE_CHECKING:  # needs pyarrow
    from clients.bulk import Outcome

app = typer.Typer()


class PatientConnection(Connection):
    """Which server to call, how to get in, and a deadline for many users."""

    timeout_ms: int = Field(default=10_000, gt=0)
    """Deadline of a call to a server, retries included."""


@app.command(
    epilog="Example: recall-client bulk --input histories.parquet --output candidates.parquet --top-k 100 --overwrite"
)
@functools.partial(with_connection, group=PatientConnection)
def bulk(
    connection: PatientConnection,
    input: Annotated[Path, file_option("--input", help="Parquet file with one row per user.")],  # noqa: A002
    output: Annotated[
        Path,
        typer.Option(
            dir_okay=False,
            help="Parquet file to write. Finished parts are in OUTPUT.parts until it is complete.",
        ),
    ],
    user_column: Annotated[str, typer.Option(help="Column of user ids, int64 or string.")] = "user_id",
    history_column: Annotated[
        str, typer.Option(help="Column of histories: lists of int64 or string, oldest first. null is an empty history.")
    ] = "hist_item",
    exclude_column: Annotated[
        str | None,
        typer.Option(
            help="Column of ids to leave out. The default is exclude_item_ids, if the file has it.", show_default=False
        ),
    ] = None,
    top_k: TopK = 50,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    merge: MergeOption = Merge.BEST_SCORE,
    neighbours: NeighboursOption = Neighbours.DEFAULT,
    exclude_shown: Annotated[
        bool,
        typer.Option(
            "--exclude-shown",
            help="Leave out what `users upsert --shown` says that each user was shown. --user-column has the ids.",
        ),
    ] = False,
    attributes: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME,..",
            help="Attributes to write with the candidates, of those that `info` lists, into the column `attributes`.",
        ),
    ] = "",
    at_most: AtMost = None,
    per_interest_min: PerInterestMin = 0,
    diversity: Diversity = 0,
    channel: Channel = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Delete the parts of an interrupted run.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.", rich_help_panel="Pace")] = 8,
    users_per_request: Annotated[
        int, typer.Option(min=1, help="Users per request, within the limits of the server.", rich_help_panel="Pace")
    ] = 64,
    users_per_part: Annotated[
        int, typer.Option(min=1, help="Users per saved part, a row group of the output.", rich_help_panel="Pace")
    ] = 20_000,
    give_up_after_s: Annotated[
        float, typer.Option(min=0, help="Seconds to retry without any answer before giving up.", rich_help_panel="Pace")
    ] = 300,
) -> None:
    """Compute candidates for all users of a Parquet file. The same command continues an interrupted run."""
    try:
        from clients.bulk import Pace, Question, run
        from clients.bulk_input import open_histories
        from clients.bulk_parts import open_parts
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"numpy", "pyarrow"}:
            raise
        typer.echo("error: recall-client bulk needs numpy and pyarrow: pip install 'mind-recall[bulk]'", err=True)
        raise typer.Exit(1) from error
    arguments = connection.arguments()
    histories = open_histories(input, user_column, history_column, exclude_column)
    question = Question(
        top_k=top_k,
        filter=filter,
        exclude_history=exclude_history,
        merge_strategy=merge_strategy_of(merge),
        neighbours=neighbours.value,
        return_attributes=list(dict.fromkeys(name.strip() for name in attributes.split(",") if name.strip())),
        exclude_shown=exclude_shown,
        at_most=at_most_of_option(at_most),
        per_interest_min=per_interest_min,
        diversity=diversity,
        channel=channel,
    )
    pace = Pace(concurrency, users_per_request, users_per_part, give_up_after_s)
    asked = {name: value for name, value in vars(question).items() if name != "channel" or value}  # as before channels
    identity = histories.fingerprint() | asked
    with open_parts(output, identity, restart=restart, overwrite=overwrite) as parts:
        try:
            with user_bar(parts.rows, histories.rows) as report:
                outcome = asyncio.run(_until_sigterm(run(arguments, histories, parts, question, pace, report)))
        except (KeyboardInterrupt, asyncio.CancelledError, OSError, RecallError, ValueError) as stop:
            asked_to = isinstance(stop, KeyboardInterrupt | asyncio.CancelledError)
            if asked_to or parts.rows:
                saved = f"{parts.rows:,} of {histories.rows:,} users saved"
                same = "the same command without --restart" if restart else "the same command"
                typer.echo(f"stopped with {saved}; {same} continues from there", err=True)
            if not asked_to:
                raise
            raise typer.Exit(128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)) from stop
    print_outcome(outcome, output)


async def _until_sigterm(work: Coroutine[Any, Any, "Outcome"]) -> "Outcome":
    """SIGTERM cancels the work, as Ctrl-C does by itself."""
    task = asyncio.create_task(work)
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task

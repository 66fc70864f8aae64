"""The command `bench`."""

import json
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clients.bench.load import Plan, run
from clients.bench.mix import Shape, read_mix, shape_of
from clients.bench.page import page
from clients.bench.summary import missed, summarize
from clients.bench.view import load_bar, summary_view
from clients.command import with_connection
from clients.commands.answer import Format, FormatOption
from clients.commands.question import Channel, ExcludeHistory, Filter, Merge, MergeOption, TopK, file_option
from clients.options import Connection

MISSED = 4
"""Exit code where a bound was not kept."""
_CALLERS = 16

app = typer.Typer()


def _option(panel: str, *names: str, **how: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **how)


@app.command(
    epilog="Example: recall-client bench --histories test.txt --rate 500 --top-k 50 --max-p99-ms 50 --max-errors 0.1"
    "\n\nExample: recall-client bench --histories test.txt --callers 64 --mix mix.yaml --html bench.html"
)
@with_connection
def bench(
    connection: Connection,
    histories: Annotated[
        Path | None,
        file_option(
            "--histories",
            help="File of users as for `recall --input`, or for `bulk` (.parquet). The first 100,000 users are used. "
            "Without a file, histories are random items of the server's popular list.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        _option("Load", "--rate", min=0.001, help="Open loop: requests per second, sent at random times (Poisson)."),
    ] = None,
    callers: Annotated[
        int | None,
        _option(
            "Load",
            "--callers",
            min=1,
            help=f"Closed loop: callers that wait for each answer. {_CALLERS} without --rate.",
        ),
    ] = None,
    duration_s: Annotated[float, _option("Load", min=0.1, help="Seconds to measure.")] = 10,
    warm_up_s: Annotated[float, _option("Load", min=0, help="Seconds of load before the measurement.")] = 2,
    connections: Annotated[
        int,
        _option("Load", min=1, max=256, help="Connections. A server with --processes distributes these, not requests."),
    ] = 1,
    seed: Annotated[int, _option("Load", help="Seed of the random times, users and shapes.")] = 0,
    mix: Annotated[
        Path | None,
        file_option(
            "--mix",
            help="YAML file of several request shapes with weights. The options are the defaults of each shape.",
        ),
    ] = None,
    top_k: TopK = 50,
    filter: Filter = "",  # noqa: A002
    exclude_history: ExcludeHistory = False,
    merge: MergeOption = Merge.BEST_SCORE,
    channel: Channel = "",
    users_per_request: Annotated[int, typer.Option(min=1, help="Users per request.")] = 1,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Newest items to send per history: 20, or a random number of 1-20. The default is all.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(dir_okay=False, help="HTML page to write, one file.")] = None,
    format: FormatOption = Format.TABLE,  # noqa: A002
    max_p99_ms: Annotated[
        float | None, _option("Bounds", min=0, help="Exit with 4 if the 99th percentile of the latency is higher.")
    ] = None,
    max_errors: Annotated[
        float | None,
        _option("Bounds", min=0, max=100, metavar="PERCENT", help="Exit with 4 if more requests failed, in per cent."),
    ] = None,
) -> None:
    """Send requests to a server, and show latency, users/s and errors by reason. Every request is sent once."""
    if rate is not None and callers is not None:
        raise typer.BadParameter("--rate and --callers exclude each other; give one of them")
    shape = shape_of(
        {
            "users": users_per_request,
            "top_k": top_k,
            "filter": filter,
            "exclude_history": exclude_history,
            "history": history,
            "merge": merge.value,
            "channel": channel,
        }
    )
    plan = Plan(rate, callers or _CALLERS, warm_up_s, duration_s, connections, seed)
    with load_bar(plan) as report:
        outcome = run(connection.arguments(), _shapes(mix, shape), histories, plan, report)
    summary = summarize(outcome)
    if format is Format.JSON:
        typer.echo(json.dumps(summary.plain(), indent=2))
    else:
        Console(highlight=False).print(summary_view(summary))
    if html:
        html.write_text(page(summary), encoding="utf-8")
    if outcome.interrupted:
        raise typer.Exit(128 + signal.SIGINT)
    if faults := missed(summary, max_p99_ms, max_errors):
        typer.echo(f"missed: {'; '.join(faults)}", err=True)
        raise typer.Exit(MISSED)


def _shapes(mix: Path | None, shape: Shape) -> list[Shape]:
    """What is sent."""
    if not mix:
        return [shape]
    if find_spec("yaml") is None:
        raise ValueError("--mix needs PyYAML: pip install 'mind-recall[bench]'")
    return read_mix(mix, shape)

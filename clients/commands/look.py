"""The commands that only look: `count`, `items`, `info` and `health`."""

import json
import time
from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.commands.question import Channel, Filter, attributes_of_option, parse_ids
from clients.errors import RecallError
from clients.ids import has_text_ids
from clients.plain import to_plain
from clients.sync_client import RecallClient
from clients.tables import info_view, items_view

app = typer.Typer()


@app.command(epilog="Example: recall-client count --filter 'year >= 1990'")
@with_client
def count(
    client: RecallClient,
    filter: Filter = "",  # noqa: A002
    channel: Channel = "",
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Count the released items, all of them or those that match a filter."""
    response = client.count_items(filter, channel=channel)
    show(format, response, f"{response.count:,} items in {response.collection} (model {response.model_version})")


@app.command(epilog="Example: recall-client items 50,181 --attributes title,year")
@with_client
def items(
    client: RecallClient,
    item_ids: Annotated[str, typer.Argument(metavar="ID,ID,...", help="Ids of items.")],
    attributes: Annotated[
        str, typer.Option(metavar="NAME,NAME,..", help="Attributes to show; without it, all that the release has.")
    ] = "",
    channel: Channel = "",
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Show the attributes of items."""
    info = client.get_server_info(channel=channel)
    every = [each.name for each in info.attributes][: info.limits.max_return_attributes]
    names = attributes_of_option(attributes, info, titles=False) or every
    ids = parse_ids(item_ids, "ID,ID,...", has_text_ids(info))
    response = client.get_items(ids, return_attributes=names, channel=channel)
    show(format, response, items_view(response))


@app.command(epilog="Example: recall-client info --server recall:50051 --format json")
@with_client
def info(
    client: RecallClient,
    channel: Channel = "",
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Show the release that is served, the current number of items, the channels, and the limits of the server."""
    response = client.get_server_info(channel=channel)
    try:
        counted: int | str = client.count_items(channel=channel).count
    except RecallError as error:  # such as Milvus being away, while the server still tells what it serves
        counted = error.message
    if format is Format.JSON:
        found = counted if isinstance(counted, int) else None
        typer.echo(json.dumps(to_plain(response) | {"counted_items": found}, indent=2))
    else:
        show(format, response, info_view(response, counted))


@app.command(epilog="Example: recall-client health --wait 60")
@with_client
def health(
    client: RecallClient,
    service: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Health service to ask about, such as liveness: it says whether the process works, released or not.",
        ),
    ] = "",
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Maximum time until the server is ready.")] = 0,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Check whether the server is ready. The exit code is 0 if it is, 1 if it is not, and 3 if no server is reached."""
    end = time.monotonic() + wait
    serving = client.is_serving(service=service, timeout_s=wait or None, wait_for_ready=wait > 0)
    while not serving and (left_s := end - time.monotonic()) > 0:
        time.sleep(min(0.2, left_s))
        serving = client.is_serving(service=service, timeout_s=left_s, wait_for_ready=True)
    status = "SERVING" if serving else "NOT_SERVING"
    typer.echo(json.dumps({"status": status}) if format is Format.JSON else status)
    raise typer.Exit(0 if serving else 1)

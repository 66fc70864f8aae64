"""The command `recall-client shadow`: shows how a shadow channel differs from the default channel."""

import json
from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.plain import to_plain
from clients.shadow_view import shadow_view
from clients.sync_client import RecallClient

app = typer.Typer()


@app.command(epilog="Example: recall-client shadow --channel b --format json")
@with_client
def shadow(
    client: RecallClient,
    channel: Annotated[str, typer.Option(help="The shadow channel to show; all of them without it.")] = "",
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Show how the answers of a shadow channel differ from the default channel's, before you promote it."""
    info = client.get_server_info()
    found = [each for each in info.shadows if channel in ("", each.channel)]
    if not found:
        names = ", ".join(each.channel for each in info.shadows) or "none"
        wanted = " ".join(["shadow channel", channel]).strip()
        raise ValueError(f"the server has no {wanted}; its option --shadow names {names}")
    if format is Format.JSON:
        typer.echo(json.dumps([to_plain(each) for each in found], indent=2))
    else:
        show(format, info, *(shadow_view(each, info) for each in found))

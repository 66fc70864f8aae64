"""The commands that need the admin token: `admin drop-items` and `admin reload`."""

from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.commands.question import Channel
from clients.sync_client import RecallClient

app = typer.Typer(no_args_is_help=True, help="Administer a server. This needs --server-token-file.")


@app.command(epilog="Example: recall-client admin drop-items items_3f2a --yes --server-token-file token.txt")
@with_client
def drop_items(
    client: RecallClient,
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Drop the collection even if it is live. Recall then fails.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Drop an item collection from Milvus, with its rows and its index."""
    if not yes:
        typer.confirm(f"Drop {collection}?", abort=True, err=True)
    response = client.drop_items(collection, allow_live=allow_live)
    show(format, response, f"dropped {response.collection}, {response.dropped_count:,} items")


@app.command(epilog="Example: recall-client admin reload --server-token-file token.txt")
@with_client
def reload(
    client: RecallClient,
    channel: Channel = "",
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Make the server look for a new release of a channel now."""
    response = client.reload(channel=channel)
    moved = response.collection != response.previous_collection
    before = f"before: {response.previous_collection or 'none'}" if moved else "as before"
    show(format, response, f"serving {response.model_version} from {response.collection} ({before})")

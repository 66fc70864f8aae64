"""The command `recall-client feedback`: tells what a user did with items."""

from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.question import parse_ids
from clients.ids import has_text_ids
from clients.sync_client import RecallClient

app = typer.Typer()


@app.command(epilog="Example: recall-client feedback --kind click --items 50,181 --user-id 7")
@with_client
def feedback(
    client: RecallClient,
    kind: Annotated[str, typer.Option(help="What the user did, such as click or buy.")],
    items: Annotated[str, typer.Option(metavar="ID,ID,...", help="Ids of the items.")],
    user_id: Annotated[str, typer.Option(help="Your own id of the user. Without it, --recall-id stands for it.")] = "",
    recall_id: Annotated[str, typer.Option(help="Id of the list that showed the items, from the answer.")] = "",
) -> None:
    """Write what a user did to the log of a server with --feedback-log, as data for the next training."""
    ids = parse_ids(items, "--items", has_text_ids(client.get_server_info()))
    client.log_feedback(kind, ids, user_id=user_id, recall_id=recall_id)
    typer.echo(f"{len(ids)} logged")

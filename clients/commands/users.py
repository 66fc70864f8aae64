"""The commands about users whom the service remembers: `recall-client users upsert | similar | delete`."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from clients.command import with_client
from clients.commands.answer import Format, FormatOption, show
from clients.commands.question import file_option, parse_ids
from clients.errors import RecallError
from clients.ids import ItemIds, has_text_ids
from clients.sync_client import RecallClient
from clients.tables import similar_view, status_words
from clients.user_files import read_updates
from protos.recall.v1 import recall_pb2

app = typer.Typer(
    no_args_is_help=True, help="Store and delete the histories of users. This needs a server with --users."
)

_USERS_PER_CALL = 256

Update = tuple[str, str, ItemIds, list[str], ItemIds]
"""User id, `hist_item` or `append_item_ids`, item ids, the kind of each (no kinds if all are history), and items that
were shown. If there are no clicks, the field is empty."""


@app.command(
    epilog="Example: recall-client users upsert --user-id 7 --append 50,181"
    '\n\nExample: echo \'{"user_id": "7", "hist_item": [50, 181]}\' > clicks.jsonl; '
    "recall-client users upsert --input clicks.jsonl"
)
@with_client
def upsert(
    client: RecallClient,
    user_id: Annotated[str | None, typer.Option(help="The user of --hist-item or --append.")] = None,
    hist_item: Annotated[
        str | None,
        typer.Option(metavar="ID,ID,...", help="The whole history, oldest first. It replaces what is stored."),
    ] = None,
    append: Annotated[
        str | None, typer.Option(metavar="ID,ID,...", help="New clicks, oldest first. They follow what is stored.")
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,KIND,...",
            help="The kind of each click, such as view,buy, for a model that was trained with kinds. Clicks of kinds "
            "that are no history for it are not stored.",
        ),
    ] = None,
    shown: Annotated[
        str | None,
        typer.Option(
            metavar="ID,ID,...", help="Items that the user was shown, beside clicks or alone, for --exclude-shown."
        ),
    ] = None,
    input: Annotated[  # noqa: A002
        Path | None,
        file_option(
            "--input",
            help='File of many users, instead of --user-id. Its JSON lines are {"user_id": "7", "hist_item": [43, 23]} '
            'or {"user_id": "7", "append_item_ids": [23]}, applied in order. Text ids are strings. "events": ["view"] '
            'has the kind of each click, "shown_item_ids": [5] what the user was shown.',
        ),
    ] = None,
) -> None:
    """Remember what users clicked and were shown. Answers when every server sees it."""
    if (user_id is None) == (input is None):
        raise typer.BadParameter("give either --user-id or --input")
    if input is None and [hist_item, append].count(None) != 1 and (shown is None or hist_item is not None):
        raise typer.BadParameter("give either --hist-item or --append, or --shown")
    for option, value in (("--events", events), ("--shown", shown)):
        if input is not None and value is not None:
            raise typer.BadParameter(f"{option} goes with --user-id; the lines of --input have their own")
    text = has_text_ids(client.get_server_info())
    if input is not None:
        with input.open("rb") as lines:
            _upsert_all(client, read_updates(lines, str(input), text))
        return
    field = "hist_item" if hist_item is not None else "append_item_ids" if append is not None else ""
    ids = parse_ids(hist_item or append or "", "--hist-item" if append is None else "--append", text)
    kinds = [kind.strip() for kind in events.split(",")] if events else []
    if kinds and len(kinds) != len(ids):
        raise typer.BadParameter(f"--events has {len(kinds)} kinds for {len(ids)} ids, must be one for each")
    _upsert_all(client, [(user_id or "", field, ids, kinds, parse_ids(shown or "", "--shown", text))])


@app.command(epilog="Example: recall-client users similar --user-id 7 --top-k 20")
@with_client
def similar(
    client: RecallClient,
    user_id: Annotated[str | None, typer.Option(help="Id of a remembered user.")] = None,
    hist_item: Annotated[
        str | None, typer.Option(metavar="ID,ID,...", help="A history, oldest first, instead of --user-id.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Number of similar users to find.")] = 10,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Find the remembered users whose interests are nearest to a user's."""
    if (user_id is None) == (hist_item is None):
        raise typer.BadParameter("give either --user-id or --hist-item")
    user = user_id or parse_ids(hist_item or "", "--hist-item", has_text_ids(client.get_server_info()))
    response = client.find_similar_users([user], top_k=top_k)
    show(format, response, similar_view(response.results[0]))


@app.command(epilog="Example: recall-client users delete 7 8 --yes")
@with_client
def delete(
    client: RecallClient,
    user_id: Annotated[list[str], typer.Argument(help="Ids of the users to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    format: FormatOption = Format.TABLE,  # noqa: A002
) -> None:
    """Delete remembered users from every release."""
    if not yes:
        typer.confirm(f"Forget {len(user_id):,} users?", abort=True, err=True)
    response = client.delete_users(user_id)
    lines = [
        f"{one_id}: {'forgotten' if one.status == recall_pb2.USER_STATUS_OK else one.detail or 'was not remembered'}"
        for one_id, one in zip(user_id, response.results, strict=True)
    ]
    show(format, response, *lines)


def _upsert_all(client: RecallClient, updates: Iterable[Update]) -> None:
    """Send updates in order, and end with exit code 1 if one of them could not be stored."""
    stored = refused = dropped = 0
    try:
        for batch in _batches(updates):
            replaced = {user_id: ids for user_id, field, ids, *_ in batch if field == "hist_item"}
            appended = {user_id: ids for user_id, field, ids, *_ in batch if field == "append_item_ids"}
            events = {user_id: kinds for user_id, _, _, kinds, _ in batch if kinds}
            shown = {user_id: ids for user_id, *_, ids in batch if ids}
            response = client.upsert_users(replaced, append_item_ids=appended, events=events, shown_item_ids=shown)
            for user_id, one in zip(dict.fromkeys([*replaced, *appended, *shown]), response.results, strict=True):
                if one.status != recall_pb2.USER_STATUS_OK:
                    typer.echo(f"{user_id}: {status_words(one.status)}: {one.detail}", err=True)
                    refused += 1
                else:
                    stored += 1
                    dropped += one.dropped
    except RecallError:
        typer.echo(f"the first {stored + refused:,} updates were answered; the next call failed", err=True)
        raise
    told = [f"{stored:,} stored", *([f"{refused:,} refused"] if refused else [])]
    if dropped:
        told.append(f"{dropped:,} clicks left out, whose kinds are no history for the model")
    sys.stdout.write(", ".join(told) + "\n")
    if refused:
        raise typer.Exit(1)


def _batches(updates: Iterable[Update]) -> Iterator[list[Update]]:
    """Runs of updates without a user twice, as long as a server's default limit allows."""
    batch: dict[str, Update] = {}
    for update in updates:
        if update[0] in batch or len(batch) == _USERS_PER_CALL:
            yield list(batch.values())
            batch = {}
        batch[update[0]] = update
    if batch:
        yield list(batch.values())

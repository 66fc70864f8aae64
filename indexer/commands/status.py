"""The commands that read and change nothing: `status` and `count`."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from indexer import display
from indexer.catalogue import ItemCollection, find, item_collections, live_one, with_changes
from indexer.errors import NothingToDoError, VerificationError
from indexer.verify import check_count
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.milvus.user_store import UserStore


class Format(StrEnum):
    """The output formats of `status`."""

    TABLE = "table"
    JSON = "json"


def status_command(
    connection: Connection,
    form: Annotated[
        Format, typer.Option("--format", help="Output format: a table for people or JSON for programs.")
    ] = Format.TABLE,
) -> None:
    """List the item collections with their states, and the number of items changed since each build.

    A collection is live, published (released before), built, or incomplete (its
    build did not finish). The rows of the live one are counted, and a line says so
    if its build and its changes do not explain their number. Another line says so
    if there are fewer vectors of remembered users than after the last release.
    """
    with Store(connection) as store:
        collections = with_changes(store, item_collections(store))
        live = live_one(collections)
        problem, users = _problem(store, live), _fewer_users(store, live)
    if form is Format.JSON:
        told = {True: {"problem": problem, "users": users}, False: {"problem": "", "users": ""}}
        print(json.dumps([display.plain(one) | told[one.live] for one in collections], indent=2))
    elif collections:
        display.out.print(display.table(collections))
        for text, style in ((problem, "bold red"), (users, "yellow")):
            if text:
                display.out.print(text, style=style, soft_wrap=True)
    else:
        display.out.print(f"{connection.shown} has no item collection; `python -m indexer build` creates one")


def _problem(store: Store, live: ItemCollection | None) -> str:
    """Return what is wrong with the number of rows of the live collection; empty if nothing is."""
    if live is None or live.fingerprint is None:
        return ""
    store.load(live.name)
    try:
        check_count(store, live.name, live.fingerprint.count)
    except VerificationError as error:
        return str(error)
    return ""


def _fewer_users(store: Store, live: ItemCollection | None) -> str:
    """Return that the model of the live collection lacks vectors of remembered users; empty if it does not."""
    version = live.fingerprint.model_version if live and live.fingerprint else ""
    users = UserStore(store)
    for vectors in users.vectors():
        if vectors.model_version != version:
            continue
        store.load(vectors.collection)
        if (found := users.count_vectors(vectors)) < vectors.rows:
            return (
                f"{vectors.collection}: holds {found:,} vectors of remembered users, {vectors.rows:,} after the last "
                "release; unless so many users were deleted since, Milvus lost some: "
                f"`python -m indexer publish {live.name if live else ''}` encodes users again whose vectors are missing"
            )
    return ""


def count_command(
    connection: Connection,
    collection: Annotated[
        str | None, typer.Argument(help="Collection to count. The default is the live one.", show_default=False)
    ] = None,
) -> None:
    """Count the items in a collection exactly. The command loads the collection if necessary."""
    with Store(connection) as store:
        if collection is None:
            collection = store.alias()
        if collection is None:
            raise NothingToDoError("no collection is live; name the collection to count")
        find(item_collections(store), collection)
        store.load(collection)
        print(store.count(collection))

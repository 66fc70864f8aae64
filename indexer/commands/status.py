"""The commands that only look: `status` and `count`."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from indexer import display
from indexer.catalogue import find, item_collections, with_changes
from indexer.errors import NothingToDoError
from mind.milvus.connection import Connection
from mind.milvus.store import Store


class Format(StrEnum):
    """How `status` answers."""

    TABLE = "table"
    JSON = "json"


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
        find(item_collections(store), collection)
        store.load(collection)
        print(store.count(collection))

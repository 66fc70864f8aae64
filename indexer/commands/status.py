"""The commands that read and change nothing: `status` and `count`."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from indexer import display, listing
from indexer.catalogue import ItemCollection, channels_in, find, item_collections, with_changes
from indexer.errors import NothingToDoError, VerificationError
from indexer.options import Channel
from indexer.rollout.choice import in_words
from indexer.verify import check_count
from mind.milvus.channels import LIVE, alias_of
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
    build did not finish). A collection that is live in other channels has their
    names as its state, and a second table lists all channels: what is live in
    each, and since when. In JSON, `state` and `published_at` are about the
    channel live, and `channels` has all channels.

    The rows of live collections are counted, and a line says so if the build and
    the changes do not explain their number. Another line says so if there are
    fewer vectors of remembered users than after the last release.
    """
    with Store(connection) as store:
        collections = with_changes(store, item_collections(store))
        problems = {one.name: _problem(store, one) for one in collections if one.live_in}
        users = {one.name: _fewer_users(store, one) for one in collections if one.live_in}
    if form is Format.JSON:
        told = [{"problem": problems.get(one.name, ""), "users": users.get(one.name, "")} for one in collections]
        rows = [listing.plain(one) | more for one, more in zip(collections, told, strict=True)]
        print(json.dumps(rows, indent=2))
    elif collections:
        display.out.print(listing.table(collections))
        if len(channels_in(collections)) > 1:
            display.out.print()
            display.out.print(listing.channel_table(collections))
        for texts, style in ((problems.values(), "bold red"), (users.values(), "yellow")):
            for text in filter(None, texts):
                display.out.print(text, style=style, soft_wrap=True)
    else:
        display.out.print(f"{connection.shown} has no item collection; `python -m indexer build` creates one")


def _problem(store: Store, live: ItemCollection) -> str:
    """Return what is wrong with the number of rows of a live collection; empty if nothing is."""
    if live.fingerprint is None:
        return ""
    store.load(live.name)
    try:
        check_count(store, live.name, live.fingerprint.count)
    except VerificationError as error:
        return str(error)
    return ""


def _fewer_users(store: Store, live: ItemCollection) -> str:
    """Return that the model of a live collection lacks vectors of remembered users; empty if it does not."""
    version = live.fingerprint.model_version if live.fingerprint else ""
    where = "" if live.live else f" --channel {min(live.live_in)}"
    users = UserStore(store)
    for vectors in users.vectors():
        if vectors.model_version != version:
            continue
        store.load(vectors.collection)
        if (found := users.count_vectors(vectors)) < vectors.rows:
            return (
                f"{vectors.collection}: holds {found:,} vectors of remembered users, {vectors.rows:,} after the last "
                "release; unless so many users were deleted since, Milvus lost some: "
                f"`python -m indexer publish {live.name}{where}` encodes users again whose vectors are missing"
            )
    return ""


def count_command(
    connection: Connection,
    collection: Annotated[
        str | None, typer.Argument(help="Collection to count. The default is the live one.", show_default=False)
    ] = None,
    channel: Channel = LIVE,
) -> None:
    """Count the items in a collection exactly. The command loads the collection if necessary."""
    if collection and channel != LIVE:
        raise typer.BadParameter("give either a collection or --channel")
    with Store(connection) as store:
        if collection is None:
            collection = store.alias(alias_of(channel))
        if collection is None:
            raise NothingToDoError(f"no collection is live{in_words(channel)}; name the collection to count")
        find(item_collections(store), collection)
        store.load(collection)
        print(store.count(collection))

"""How `status` shows collections and channels: tables for people, plain data for programs."""

import json
from typing import Any

from rich.table import Table

from indexer.catalogue import ItemCollection, channels_in, in_channel, live_one
from mind.milvus.channels import LIVE
from mind.milvus.journal import Changes
from mind.milvus.records import Published

MAX_STATE = 12
"""Maximum width of the names of channels in the table of collections."""


def table(collections: list[ItemCollection]) -> Table:
    """Make a table of collections. It fits into 80 columns, so it leaves the model version to the name."""
    colours = {"incomplete": "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("collection", no_wrap=True)
    table.add_column("items", justify="right")
    table.add_column("index")
    table.add_column("state")
    table.add_column("since (UTC)", no_wrap=True)
    for collection in collections:
        fingerprint, changes, record = collection.fingerprint, collection.changes, collection.record
        state = _state(collection)
        table.add_row(
            collection.name,
            _items(collection),
            fingerprint.index_type if fingerprint else "",
            state,
            _minute(record.newest_release.at or record.built_at) if record else "",
            style="bold green" if collection.live_in else colours.get(state, ""),
        )
        if any(vars(changes).values()):
            table.add_row(f"  {_changes(changes)}", style="dim")
        if record and record.rules:
            table.add_row(f"  rules: {_rules(record.rules)}", style="dim")
    return table


def channel_table(collections: list[ItemCollection]) -> Table:
    """Make a table of channels: the live collection of each, and since when. It fits into 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("channel", overflow="fold")
    for heading in ("collection", "items", "since (UTC)"):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "items" else "left")
    for channel in channels_in(collections):
        live = live_one(in_channel(collections, channel))
        if live:
            table.add_row(channel, live.name, _items(live), _minute(live.published_at))
        else:
            table.add_row(channel, "none", "", "", style="yellow")
    return table


def _state(collection: ItemCollection) -> str:
    """Return the channels that a collection is live in, if they fit, or whether it was ever released."""
    names = [name for name in (LIVE, *sorted(collection.live_in - {LIVE})) if name in collection.live_in]
    if names:
        text = ", ".join(names)
        return text if len(text) <= MAX_STATE else f"{len(names)} channels"
    released = collection.record is not None and collection.record.newest_release.at
    return "published" if released else collection.state


def _rules(text: str) -> str:
    """Return the names of the rules of a release, and how many there are of each."""
    found = json.loads(text)
    return ", ".join(f"{len(rule)} {name}" if isinstance(rule, list) else name for name, rule in found.items())


def _items(collection: ItemCollection) -> str:
    fingerprint, changes = collection.fingerprint, collection.changes
    return f"{fingerprint.count + changes.added - changes.deleted:,}" if fingerprint else ""


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")


def _changes(changes: Changes) -> str:
    pending = changes.pending_new + changes.pending_known
    counts = ("added", changes.added), ("changed", changes.changed), ("deleted", changes.deleted), ("pending", pending)
    return ", ".join(f"{count:,} {what}" for what, count in counts if count)


def plain(collection: ItemCollection) -> dict[str, Any]:
    fingerprint, record = collection.fingerprint, collection.record
    channels = collection.live_in.union(record.channels if record else (), [LIVE] if collection.published_at else ())
    releases = {name: record.published_in(name) if record else Published() for name in sorted(channels)}
    return {
        "collection": collection.name,
        "state": collection.state,
        "built_at": collection.built_at or None,
        "published_at": collection.published_at or None,
        "channels": {
            name: {"live": name in collection.live_in, "published_at": each.at or None, "release": each.number or None}
            for name, each in releases.items()
        },
        "fingerprint": fingerprint.model_dump() if fingerprint else None,
        "changes": vars(collection.changes),
        "rules": json.loads(record.rules) if record and record.rules else None,
    }

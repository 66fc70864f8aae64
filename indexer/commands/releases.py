"""The commands that choose what is live: `publish`, `rollback`, `prune`, `drop`, `purge-users`."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from indexer import display
from indexer.commands.items import show_carried
from indexer.errors import RefusedError
from indexer.items.carry_over import publish_with_changes
from indexer.options import ArtifactCache, ReleasedArtifact, Wait, WaitTimeout, milvus_options
from indexer.rollout import release
from indexer.store import Connection, Store
from indexer.users.encode import Encoded, encode_users, forget_models, purge
from mind.milvus.journal import DELETE, OP, UPSERT, journal_of
from mind.transfer import CACHE, Models

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers


def publish_command(
    connection: Connection,
    servers: "Servers | None",
    collection: Annotated[
        str | None, typer.Argument(help="The one that was finished last if left out.", show_default=False)
    ] = None,
    carry_over: Annotated[
        bool,
        typer.Option("--carry-over", help="With what `upsert` and `delete` did to the live one since it was built."),
    ] = False,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Make a finished collection the live one.

    It is counted again before the alias moves, and remembered users are
    encoded with its model; published again, the live one gets the users
    that it lacks.

    Without --carry-over, what `upsert` and `delete` did to the live one stays
    there; a warning says how much that is, and which command brings it along.

    --carry-over brings along deleted items, changed attributes and new items,
    whose vectors are derived anew for the new model. Vectors that were given
    by hand were made for the model before: such items are left out and listed.

    With --wait the command ends well only when every process of every
    --server serves it; it fails when one refuses it.
    """
    _check_wait(wait, servers)
    models = Models(artifact, artifact_cache)

    def switch(before: release.BeforeSwitch) -> release.Release:
        if carry_over:
            return _publish_with_changes(store, collection, models, before)
        return release.publish(store, collection, before)

    with Store(connection) as store:
        released = release_with_users(store, models, switch)
        if not carry_over:
            show_left_behind(store, released, models)
    if wait and servers:
        _wait_until_serving(servers, released.live, wait_timeout_s)


def rollback_command(
    connection: Connection,
    servers: "Servers | None",
    to: Annotated[str | None, typer.Option(help="An earlier release.", show_default="the one before")] = None,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Return to the release before the live one. Releases after it count as built, no longer as published.

    What `upsert` and `delete` did to the live one stays there, and a warning
    says how much that is. `publish NAME --carry-over`, given instead of
    `rollback`, brings it along.
    """
    _check_wait(wait, servers)
    with Store(connection) as store:
        models = Models(artifact, artifact_cache)
        released = release_with_users(store, models, lambda before: release.rollback(store, to, before))
        show_left_behind(store, released)
    if wait and servers:
        _wait_until_serving(servers, released.live, wait_timeout_s)


def prune_command(
    connection: Connection,
    servers: "Servers | None",
    keep: Annotated[int, typer.Option(min=0, help="Collections to keep besides the live one.")] = 2,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Also drop unfinished builds; make sure that none is running.")
    ] = False,
) -> None:
    """Drop old collections.

    Keeps the live one and --keep others: the one that `rollback` would return
    to, then those that were last published or, if never published, finished.
    Keeps whatever one of the --server still uses, too. If one of these does
    not answer, nothing is dropped.
    """
    in_use: set[str] = set()
    if servers:
        from indexer.rollout.servers import collections_in_use

        in_use = collections_in_use(servers)
    with Store(connection) as store:
        release.prune(store, keep, incomplete, in_use, lambda name: display.line("dropped", name))
        forget_models(store, lambda name: display.line("dropped", name))


def drop_command(
    connection: Connection,
    collection: Annotated[str, typer.Argument(help="Its name, as `status` shows it.", show_default=False)],
    allow_live: Annotated[
        bool, typer.Option("--allow-live", help="Even if it is live; servers have nothing to follow then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop one collection, for good."""
    if not yes and not typer.confirm(f"Drop {collection} from {connection.shown}?", err=True):
        raise RefusedError(f"{collection}: not dropped")
    with Store(connection) as store:
        release.drop(store, collection, allow_live)
        display.line("dropped", collection)
        forget_models(store, lambda name: display.line("dropped", name))


def purge_users_command(connection: Connection) -> None:
    """Have Milvus write the collections of users anew, without deleted users.

    DeleteUsers makes users invisible at once; what Milvus has written to
    disk stays there until it compacts, which this begins. Run it daily.
    """
    with Store(connection) as store:
        purge(store, lambda name: display.line("compacting", name))


def release_with_users(
    store: Store, models: Models, switch: Callable[[release.BeforeSwitch], release.Release]
) -> release.Release:
    """Release something, remembered users first, and print both."""
    encoded: Encoded | None = None

    def before_switch(model_version: str) -> None:
        nonlocal encoded
        with display.progress() as on_progress:
            encoded = encode_users(store, model_version, models, on_progress)

    released = switch(before_switch)
    if encoded:
        display.line("users", f"{encoded.users:,} remembered, {encoded.encoded:,} of them encoded now")
    display.show_release(released)
    return released


def show_left_behind(store: Store, now: release.Release, models: Models | None = None) -> None:
    """Warn of what `upsert` and `delete` did to the release before; `models`: None after a rollback."""
    if now.before is None or not now.changed or journal_of(now.before) not in store.collections():
        return
    journal = store.create_journal(now.before)  # loads it
    upserted, deleted = (store.count(journal, f'{OP} == "{op}"') for op in (UPSERT, DELETE))
    if not upserted + deleted:
        return
    remedy = f"upsert and delete again what {now.live} lacks of it"
    if models:
        options = f"--carry-over --artifact {models}{milvus_options(store.connection)}"
        remedy = f"`python -m indexer publish {now.live} {options}` brings it along"
    left = f"{upserted:,} items added or changed and {deleted:,} deleted in {now.before} were not carried over"
    display.line("warning", f"[yellow]{left}; {remedy}[/]")


def _publish_with_changes(
    store: Store, name: str | None, models: Models, before: release.BeforeSwitch
) -> release.Release:
    with display.progress() as on_progress:
        released, carried = publish_with_changes(
            store, name, models, lambda store, name: release.publish(store, name, before), on_progress
        )
    show_carried(carried)
    return released


def _check_wait(wait: bool, servers: "Servers | None") -> None:
    if wait and not servers:
        raise typer.BadParameter("--wait needs a --server")


def _wait_until_serving(servers: "Servers", collection: str, timeout_s: float) -> None:
    from indexer.rollout.servers import wait_until_serving

    started = time.monotonic()
    with display.progress() as on_progress:
        processes = wait_until_serving(
            servers, collection, timeout_s, lambda done, total: on_progress("servers", done, total)
        )
    display.line("serving", f"on {processes} server processes after {time.monotonic() - started:.1f} s")

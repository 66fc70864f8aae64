"""The commands that choose what is live: `publish`, `rollback`, `prune`, `drop`, `purge-users`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from indexer import display
from indexer.commands.items import show_carried
from indexer.errors import RefusedError
from indexer.options import ArtifactCache, ReleasedArtifact, Wait, WaitTimeout, milvus_options
from indexer.rollout import retire, rollout
from indexer.users.encode import forget_models, purge
from mind.milvus.connection import Connection
from mind.milvus.store import Store
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
    with Store(connection) as store:
        with display.progress() as on_progress:
            done = rollout.publish(store, models, collection, carry_over, on_progress)
        if carry_over:
            show_carried(done.carried)
        show_rollout(done, connection, models)
    if wait and servers:
        _wait_until_serving(servers, done.live, wait_timeout_s)


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
        with display.progress() as on_progress:
            done = rollout.rollback(store, Models(artifact, artifact_cache), to, on_progress)
        show_rollout(done, connection)
    if wait and servers:
        _wait_until_serving(servers, done.live, wait_timeout_s)


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
        retire.prune(store, keep, incomplete, in_use, lambda name: display.line("dropped", name))
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
        retire.drop(store, collection, allow_live)
        display.line("dropped", collection)
        forget_models(store, lambda name: display.line("dropped", name))


def purge_users_command(connection: Connection) -> None:
    """Have Milvus write the collections of users anew, without deleted users.

    DeleteUsers makes users invisible at once; what Milvus has written to
    disk stays there until it compacts, which this begins. Run it daily.
    """
    with Store(connection) as store:
        purge(store, lambda name: display.line("compacting", name))


def show_rollout(done: rollout.Rollout, connection: Connection, models: Models | None = None) -> None:
    """Print what a release did, and warn of changes that it left behind; `models`: None after a rollback."""
    if done.encoded:
        display.line("users", f"{done.encoded.users:,} remembered, {done.encoded.encoded:,} of them encoded now")
    display.show_release(done)
    if not done.left_behind:
        return
    remedy = f"upsert and delete again what {done.live} lacks of it"
    if models:
        options = f"--carry-over --artifact {models}{milvus_options(connection)}"
        remedy = f"`python -m indexer publish {done.live} {options}` brings it along"
    left = f"{done.left_behind.upserted:,} items added or changed and {done.left_behind.deleted:,} deleted"
    display.line("warning", f"[yellow]{left} in {done.before} were not carried over; {remedy}[/]")


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

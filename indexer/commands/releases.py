"""The commands that choose what is live, and that drop what is not: `publish`, `rollback`, `prune` and the others."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer import display
from indexer.commands.items import show_carried
from indexer.errors import RefusedError
from indexer.options import (
    ArtifactCache,
    Channel,
    OtherChannel,
    ReleasedArtifact,
    Wait,
    WaitTimeout,
    milvus_options,
)
from indexer.rollout import retire, rollout
from indexer.rollout.switch import close_channel
from indexer.users.encode import forget_models, purge
from mind.milvus.channels import LIVE
from mind.milvus.connection import Connection
from mind.milvus.rules import NO_RULES, ReleaseRules, read_rules
from mind.milvus.shown import TTL_DAYS
from mind.milvus.store import Store
from mind.transfer import CACHE, Models

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers


CarryOver = Annotated[
    bool,
    typer.Option(
        "--carry-over", help="Carry over what `upsert` and `delete` changed in the live collection since its build."
    ),
]


def publish_command(
    connection: Connection,
    servers: "Servers | None",
    collection: Annotated[
        str | None,
        typer.Argument(
            help="Collection to publish. The default is the one whose build finished last.", show_default=False
        ),
    ] = None,
    carry_over: CarryOver = False,
    rules: Annotated[
        str,
        typer.Option(
            help="YAML file with rules for every request, or `none` to remove them. The default keeps those that the "
            "collection has.",
            metavar="FILE",
            show_default=False,
        ),
    ] = "",
    channel: Channel = LIVE,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Make a finished collection the live one, or with --channel the live one of another channel.

    A channel is a name for a release, such as b or uk-home. Servers serve the
    channels that they are told to, and a request may name one of them. The first
    publish in a channel opens it, `promote` publishes its release in the channel
    live, and `close` ends it. A collection may be live in several channels.

    Before the alias moves, the command counts the collection again and encodes
    remembered users with its model. If the collection is already live, the
    command encodes the users that are not encoded yet.

    Without --carry-over the new release lacks the changes that `upsert` and
    `delete` made to the live collection. The command then prints how many changes
    that are, and which command carries them over.

    --carry-over carries over deletions, changed attributes and new items. Derived
    vectors are derived again for the new model. A vector that was given with
    --vectors belongs to the old model, so such items are left out and listed. The
    changes come from the live collection of the channel; those of a new channel
    come from the channel live.

    --rules sets boosts, limits and explored places for every request, as
    docs/how-to/boosts.md tells. They are checked against the attributes of the
    collection, belong to its release, and change a live collection at once.

    With --wait the command succeeds when every process of every --server serves
    the collection in the channel. It fails when one of them refuses it, or was
    not told to serve the channel.
    """
    _check_wait(wait, servers)
    chosen = _rules_of(rules)
    models = Models(artifact, artifact_cache)
    with Store(connection) as store:
        with display.progress() as on_progress:
            done = rollout.publish(store, models, collection, carry_over, on_progress, channel, chosen)
        if carry_over:
            show_carried(done.carried)
        show_rollout(done, connection, models)
    if wait and servers:
        _wait_until_serving(servers, done, wait_timeout_s)


def promote_command(
    connection: Connection,
    servers: "Servers | None",
    channel: OtherChannel,
    carry_over: CarryOver = False,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Publish the live collection of another channel in the channel live.

    This is `publish` of that collection: one alias moves, and every server
    switches model and collection in one step. The other channel does not change,
    so both have the same release until the next publish. `rollback` returns to
    what was live before.

    --carry-over carries over what `upsert` and `delete` changed in the
    collection that is live now, as for `publish`.

    [bold]Examples[/bold]

        python -m indexer publish --channel b items_0123456789ab_01234567

        python -m indexer promote b --carry-over

        python -m indexer close b
    """
    _check_wait(wait, servers)
    models = Models(artifact, artifact_cache)
    with Store(connection) as store:
        with display.progress() as on_progress:
            done = rollout.promote(store, models, channel, carry_over, on_progress)
        display.line("promoted", f"{channel}: [cyan]{done.live}[/]")
        if carry_over:
            show_carried(done.carried)
        show_rollout(done, connection, models)
    if wait and servers:
        _wait_until_serving(servers, done, wait_timeout_s)


def close_command(connection: Connection, channel: OtherChannel) -> None:
    """Close a channel: drop its alias and withdraw its releases.

    The collections stay; `prune` may drop them then. Servers should not be told
    to serve the channel any more. The channel live cannot be closed. If the
    command is interrupted, run it again.
    """
    with Store(connection) as store:
        live = close_channel(store, channel)
        display.line("closed", f"{channel}, which was " + (f"{live}; this collection stays" if live else "empty"))


def rollback_command(
    connection: Connection,
    servers: "Servers | None",
    to: Annotated[
        str | None,
        typer.Option(help="Earlier release to return to.", show_default="the previous one", metavar="NAME"),
    ] = None,
    channel: Channel = LIVE,
    artifact: ReleasedArtifact = "artifacts",
    artifact_cache: ArtifactCache = CACHE,
    wait: Wait = False,
    wait_timeout_s: WaitTimeout = 120,
) -> None:
    """Return to the release before the live one, or with --channel to the one before in another channel.

    The releases after it in this channel are then built, but no longer published.
    Other channels do not change.

    A rollback does not carry over what `upsert` and `delete` changed in the live
    collection, and prints how many changes that are. To carry them over, use
    `publish NAME --carry-over` instead of `rollback`.
    """
    _check_wait(wait, servers)
    with Store(connection) as store:
        with display.progress() as on_progress:
            done = rollout.rollback(store, Models(artifact, artifact_cache), to, on_progress, channel)
        show_rollout(done, connection)
    if wait and servers:
        _wait_until_serving(servers, done, wait_timeout_s)


def prune_command(
    connection: Connection,
    servers: "Servers | None",
    keep: Annotated[int, typer.Option(min=0, help="Number of collections to keep besides the live ones.")] = 2,
    incomplete: Annotated[
        bool,
        typer.Option("--incomplete", help="Also drop unfinished builds. First make sure that no build is running."),
    ] = False,
) -> None:
    """Drop old collections.

    The command keeps the live collection of each channel and --keep others:
    first those that `rollback` would return to in each channel (all of them,
    unless --keep is 0), then the most recently published or built. It also keeps
    every collection that a --server still uses. If one of these servers does not
    answer, the command drops nothing.
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
    collection: Annotated[
        str, typer.Argument(help="Name of the collection, as `status` shows it.", show_default=False)
    ],
    allow_live: Annotated[
        bool,
        typer.Option("--allow-live", help="Drop the collection even if a channel has it. Nothing is live there then."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Drop without asking for confirmation.")] = False,
) -> None:
    """Drop one collection. This cannot be undone.

    The command refuses a collection that is live in a channel.
    """
    if not yes and not typer.confirm(f"Drop {collection} from {connection.shown}?", err=True):
        raise RefusedError(f"{collection}: not dropped")
    with Store(connection) as store:
        retire.drop(store, collection, allow_live)
        display.line("dropped", collection)
        forget_models(store, lambda name: display.line("dropped", name))


def purge_users_command(
    connection: Connection,
    shown_ttl: Annotated[
        float, typer.Option(min=0, help="Days after which an item does not count as shown, as the servers have it.")
    ] = TTL_DAYS,
) -> None:
    """Compact the collections of users, so that deleted users leave the disk.

    DeleteUsers makes users invisible at once, but their rows stay on the disk of
    Milvus until it compacts. This command starts the compaction. It also removes
    tombstones of deleted users that are a day old, and items that were shown to
    users longer ago than --shown-ttl. It moves histories of an earlier version
    out of its collection, which servers of that version then miss.
    Run it daily, and only while all servers run this version.
    """
    with Store(connection) as store:
        purge(store, lambda name: display.line("compacting", name), shown_ttl)


def show_rollout(done: rollout.Rollout, connection: Connection, models: Models | None = None) -> None:
    """Print what a release did, and warn of changes that it left behind. `models` is None after a rollback."""
    if done.encoded:
        display.line("users", f"{done.encoded.users:,} remembered, {done.encoded.encoded:,} of them encoded now")
    display.show_release(done)
    if not done.left_behind:
        return
    remedy = f"repeat those `upsert` and `delete` commands that {done.live} lacks"
    if models:
        where = "" if done.channel == LIVE else f"--channel {done.channel} "
        options = f"--carry-over {where}--artifact {models}{milvus_options(connection)}"
        remedy = f"`python -m indexer publish {done.live} {options}` carries them over"
    left = f"{done.left_behind.upserted:,} items added or changed and {done.left_behind.deleted:,} deleted"
    display.line("warning", f"[yellow]{left} in {done.left_behind.source} were not carried over; {remedy}[/]")


def _rules_of(option: str) -> ReleaseRules | None:
    """The rules of --rules; None to keep those that there are."""
    if option == "none":
        return NO_RULES
    return read_rules(Path(option)) if option else None


def _check_wait(wait: bool, servers: "Servers | None") -> None:
    if wait and not servers:
        raise typer.BadParameter("--wait needs at least one --server")


def _wait_until_serving(servers: "Servers", done: rollout.Rollout, timeout_s: float) -> None:
    from indexer.rollout.servers import wait_until_serving

    started = time.monotonic()
    with display.progress() as on_progress:
        processes = wait_until_serving(
            servers, done.live, timeout_s, lambda count, total: on_progress("servers", count, total), done.channel
        )
    display.line("serving", f"on {processes} server processes after {time.monotonic() - started:.1f} s")

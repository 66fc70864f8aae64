"""Options that several commands share, and what they become: a connection to Milvus and the servers to ask."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from pydantic import BeforeValidator, Field

from indexer import display
from indexer.errors import IndexerError, RefusedError
from mind.command import with_options
from mind.data.quotes import Quote
from mind.errors import MindError
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.connection import Connection
from mind.milvus.options import MilvusOptions
from mind.options import Options, flag, variable

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers

SERVERS_PANEL = "Servers"
RENAMED = {
    "--token-file": "--milvus-token-file",
    "--db-name": "--milvus-db-name",
    "--ca-cert": "--milvus-ca-cert",
    "--client-cert": "--milvus-client-cert",
    "--client-key": "--milvus-client-key",
    "--tls-server-name": "--milvus-server-name",
}
"""Flags of version 0.1, which still work, with their present names."""

Artifact = Annotated[
    str,
    typer.Option(
        help="Directory of a model, or a directory or URL (s3://bucket/models) of models. The newest one is used."
    ),
]
ReleasedArtifact = Annotated[
    str,
    typer.Option("--artifact", help="Directory of the model, or a directory or URL of models that holds it."),
]
QuoteOption = Annotated[
    Quote,
    typer.Option(
        "--quote",
        help='What `"` means in CSV files. auto: it quotes values, also over several lines, and a value that contains '
        "lines like rows is an error. always: it quotes any value. none: it is an ordinary character.",
    ),
]
ArtifactCache = Annotated[
    Path, typer.Option(help="Directory that stores models downloaded from a URL, the 4 used last.", show_default=False)
]


def channel_name(value: str) -> str:
    """Return the name of a channel as it is given. Raises BadParameter if it is not one."""
    try:
        alias_of(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return value


Channel = Annotated[
    str,
    typer.Option(
        "--channel",
        callback=channel_name,
        metavar="NAME",
        help=f"Channel whose release the command is about. Callers that name no channel get {LIVE}.",
    ),
]
OtherChannel = Annotated[
    str,
    typer.Argument(
        callback=channel_name, metavar="CHANNEL", help=f"Name of a channel other than {LIVE}.", show_default=False
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        rich_help_panel=SERVERS_PANEL,
        help="Wait until every server serves the collection; fail if one refuses it.",
    ),
]
WaitTimeout = Annotated[
    float, typer.Option(min=0, rich_help_panel=SERVERS_PANEL, help="Maximum time that --wait waits, in seconds.")
]


def _split(value: object) -> object:
    """Split an environment variable into words. A list of flags stays as it is."""
    return value.split() if isinstance(value, str) else value


class Milvus(MilvusOptions):
    """The address of Milvus, the credentials, and how long the indexer waits for it."""

    timeout_s: float = Field(default=30, ge=0.1)
    """Maximum time of one call to Milvus, in seconds."""
    wait_s: float = Field(default=3600, ge=1)
    """Maximum time of a flush, compaction or load, and of an index build without progress, in seconds."""


class ServerOptions(Options):
    """The recall servers to ask, and the credentials for them. The options have the same names in `recall-client`."""

    panels: ClassVar = {"server": SERVERS_PANEL}

    server: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """host:port of a recall server. A name may stand for several servers. Repeatable."""
    server_token_file: Path | None = None
    """File with the token for the servers."""
    server_ca_cert: Path | None = None
    """PEM file with the certificate authorities to trust. Without it the connection has no TLS."""
    server_client_cert: Path | None = None
    """PEM file with the client certificate for mutual TLS. It needs --server-client-key and --server-ca-cert."""
    server_client_key: Path | None = None
    """PEM file with the private key of --server-client-cert."""

    def servers(self) -> "Servers | None":
        """Return the servers to ask, or None if no --server is given. Raises RefusedError."""
        from indexer.rollout.servers import Servers  # imports gRPC's stubs, which most commands do not need

        if not self.server:
            return None
        token = _read_secret(self.server_token_file, flag("server_token_file")) if self.server_token_file else ""
        return Servers(self.server, token, self.server_ca_cert, self.server_client_cert, self.server_client_key)


def milvus_options(connection: Connection) -> str:
    """Return the options that a printed command needs to reach the same Milvus, without credentials."""
    uri, default = "milvus_uri", Milvus.model_fields["milvus_uri"].default
    given = {uri: "" if connection.uri == (os.environ.get(variable(uri)) or default) else connection.shown}
    for attribute in ("db_name", "ca_cert", "client_cert", "client_key", "server_name"):
        name, value = f"milvus_{attribute}", str(getattr(connection, attribute) or "")
        given[name] = "" if value == os.environ.get(variable(name), "") else value
    return "".join(f" {flag(name)} {shlex.quote(value)}" for name, value in given.items() if value)


_GROUPS: dict[str, type[Options]] = {"connection": Milvus, "servers": ServerOptions}
"""Parameters that a command may have, and the group of options that each is made from."""
_MADE: dict[str, Callable[[Any], Any]] = {
    "connection": lambda milvus: milvus.connection(milvus.timeout_s, milvus.wait_s),
    "servers": ServerOptions.servers,
}
"""How each parameter is made from its options."""


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options behind its `connection` and `servers`. An error becomes one line and exit code 1."""
    takes = inspect.signature(command).parameters
    groups = {name: group for name, group in _GROUPS.items() if name in takes}

    @functools.wraps(command)
    def run_connected(**values: Any) -> None:
        command(**values | {name: _MADE[name](values[name]) for name in groups})

    panels = " and ".join(title for group in groups.values() for title in group.panels.values())
    example = next(iter(Milvus.model_fields))
    also = f"Each {panels} option can also be set as an environment variable, such as {variable(example)}."
    run_connected.__doc__ = f"{inspect.getdoc(command)}\n\n{also}"
    return _reporting(with_options(run_connected, groups))


def _reporting(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run_reporting(*context: typer.Context, **values: Any) -> None:
        try:
            command(*context, **values)
        except (IndexerError, MindError) as error:
            display.err.print("[bold red]error:[/]", end=" ")
            display.err.print(str(error), markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            display.err.print("interrupted")
            raise typer.Exit(130) from error

    return run_reporting


def _read_secret(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{file}: {option} cannot be read: {error}") from error

"""Options that several commands have, and what is made of them: a connection to Milvus, the servers to ask."""

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
"""Flags of version 0.1, which still work, and what they are called now."""

Artifact = Annotated[
    str, typer.Option(help="A model's directory, or a directory or URL (s3://bucket/models) of them: then the newest.")
]
ReleasedArtifact = Annotated[
    str,
    typer.Option("--artifact", help="The model's directory, or a directory or URL of models."),
]
QuoteOption = Annotated[
    Quote,
    typer.Option(
        "--quote",
        help='What `"` means in CSV files. auto: it quotes values, also over several lines; one that takes in lines '
        "which look like rows is refused. always: it quotes values, whatever is in them. none: nothing.",
    ),
]
ArtifactCache = Annotated[Path, typer.Option(help="Directory that keeps models from a URL.", show_default=False)]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", rich_help_panel=SERVERS_PANEL, help="Return when every server serves it; fail if one refuses it."
    ),
]
WaitTimeout = Annotated[
    float, typer.Option(min=0, rich_help_panel=SERVERS_PANEL, help="Longest that --wait waits, in seconds.")
]


def _split(value: object) -> object:
    """The words of an environment variable; a list of flags stays as it is."""
    return value.split() if isinstance(value, str) else value


class Milvus(MilvusOptions):
    """Where Milvus is, how to get in, and how long the indexer waits for it."""

    timeout_s: float = Field(default=30, ge=0.1)
    """Longest that one call may take, in seconds."""
    wait_s: float = Field(default=3600, ge=1)
    """Longest that flush, joining or load may take, and an index build without progress, in seconds."""


class ServerOptions(Options):
    """Which servers to ask, and how to get in; called as in `recall-client`."""

    panels: ClassVar = {"server": SERVERS_PANEL}

    server: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    """host:port of a server, or of all servers of that name. Repeatable."""
    server_token_file: Path | None = None
    """File that holds the token that they ask for."""
    server_ca_cert: Path | None = None
    """PEM file of the authorities to trust; without it there is no TLS."""
    server_client_cert: Path | None = None
    """PEM file of the certificate to show to them (mutual TLS); needs its key and --server-ca-cert."""
    server_client_key: Path | None = None
    """PEM file with the private key of that certificate."""

    def servers(self) -> "Servers | None":
        """How to ask them; None if there is none. Raises RefusedError."""
        from indexer.rollout.servers import Servers  # what most commands do without: gRPC's stubs

        if not self.server:
            return None
        token = _read_secret(self.server_token_file, flag("server_token_file")) if self.server_token_file else ""
        return Servers(self.server, token, self.server_ca_cert, self.server_client_cert, self.server_client_key)


def milvus_options(connection: Connection) -> str:
    """What a printed command needs at its end to reach the same Milvus; without credentials."""
    uri, default = "milvus_uri", Milvus.model_fields["milvus_uri"].default
    given = {uri: "" if connection.uri == (os.environ.get(variable(uri)) or default) else connection.shown}
    for attribute in ("db_name", "ca_cert", "client_cert", "client_key", "server_name"):
        name, value = f"milvus_{attribute}", str(getattr(connection, attribute) or "")
        given[name] = "" if value == os.environ.get(variable(name), "") else value
    return "".join(f" {flag(name)} {shlex.quote(value)}" for name, value in given.items() if value)


_GROUPS: dict[str, type[Options]] = {"connection": Milvus, "servers": ServerOptions}
"""Parameters that a command may have, and the options that each is made from."""
_MADE: dict[str, Callable[[Any], Any]] = {
    "connection": lambda milvus: milvus.connection(milvus.timeout_s, milvus.wait_s),
    "servers": ServerOptions.servers,
}
"""How each is made."""


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options behind its `connection` and `servers`; a failure becomes one line and exit code 1."""
    takes = inspect.signature(command).parameters
    groups = {name: group for name, group in _GROUPS.items() if name in takes}

    @functools.wraps(command)
    def run_connected(**values: Any) -> None:
        command(**values | {name: _MADE[name](values[name]) for name in groups})

    panels = " and ".join(title for group in groups.values() for title in group.panels.values())
    example = next(iter(Milvus.model_fields))
    also = f"Options of {panels} are environment variables too: {variable(example)} for {flag(example)}."
    run_connected.__doc__ = f"{inspect.getdoc(command)}\n\n{also}"
    return _told(with_options(run_connected, groups))


def _told(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run_told(*context: typer.Context, **values: Any) -> None:
        try:
            command(*context, **values)
        except (IndexerError, MindError) as error:
            display.err.print("[bold red]error:[/]", end=" ")
            display.err.print(str(error), markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            display.err.print("interrupted")
            raise typer.Exit(130) from error

    return run_told


def _read_secret(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{file}: {option} cannot be read: {error}") from error

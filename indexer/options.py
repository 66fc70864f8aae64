"""Options that several commands have, and what is made of them: a connection to Milvus, the servers to ask."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indexer import display
from indexer.errors import IndexerError, RefusedError
from mind.errors import MindError
from mind.milvus.connection import Connection

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers

_MILVUS, _SERVERS = "Milvus", "Servers"
_URI_VARIABLE, _DEFAULT_URI = "RECALL_MILVUS_URI", "milvus.db"
_OTHERS = {
    "--db-name": "db_name",
    "--ca-cert": "ca_cert",
    "--client-cert": "client_cert",
    "--client-key": "client_key",
    "--tls-server-name": "server_name",
}
"""Options that tell where Milvus is and are no secret, by their names in `Connection` and, in capitals, variables."""

Artifact = Annotated[
    str, typer.Option(help="A model's directory, or a directory or URL (s3://bucket/models) of them: then the newest.")
]
ReleasedArtifact = Annotated[
    str,
    typer.Option("--artifact", help="The model's directory, or a directory or URL of models."),
]
ArtifactCache = Annotated[Path, typer.Option(help="Directory that keeps models from a URL.", show_default=False)]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait", rich_help_panel=_SERVERS, help="Return when every server serves it; fail if one refuses it."
    ),
]
WaitTimeout = Annotated[
    float, typer.Option(min=0, rich_help_panel=_SERVERS, help="Longest that --wait waits, in seconds.")
]


def _connection(
    milvus_uri: Annotated[
        str,
        typer.Option(
            envvar=_URI_VARIABLE,
            rich_help_panel=_MILVUS,
            help="http://host:port, https://host:port, or a path that ends in .db: Milvus Lite in that file.",
        ),
    ] = _DEFAULT_URI,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="RECALL_MILVUS_TOKEN_FILE",
            rich_help_panel=_MILVUS,
            help="File that holds user:password or an API key. Without it, RECALL_MILVUS_TOKEN holds the token itself.",
        ),
    ] = None,
    db_name: Annotated[
        str, typer.Option(envvar="RECALL_MILVUS_DB_NAME", rich_help_panel=_MILVUS, help="Milvus database.")
    ] = "",
    ca_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="RECALL_MILVUS_CA_CERT",
            rich_help_panel=_MILVUS,
            help="PEM file of the authority to trust, for https://.",
        ),
    ] = None,
    client_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="RECALL_MILVUS_CLIENT_CERT",
            rich_help_panel=_MILVUS,
            help="PEM file for mutual TLS; needs the two other files.",
        ),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option(
            envvar="RECALL_MILVUS_CLIENT_KEY", rich_help_panel=_MILVUS, help="Private key of the client certificate."
        ),
    ] = None,
    tls_server_name: Annotated[
        str,
        typer.Option(
            envvar="RECALL_MILVUS_SERVER_NAME",
            rich_help_panel=_MILVUS,
            help="Name in the server's certificate, if not the host.",
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(rich_help_panel=_MILVUS, min=0.1, help="Longest that one call may take, in seconds.")
    ] = 30,
    wait_s: Annotated[
        float,
        typer.Option(
            rich_help_panel=_MILVUS,
            min=1,
            help="Longest that flush, joining or load may take, and an index build without progress.",
        ),
    ] = 3600,
) -> Connection:
    token = os.environ.get("RECALL_MILVUS_TOKEN", "")
    if token_file is not None:
        token = _read_secret(token_file, "--token-file")
    return Connection(
        uri=milvus_uri,
        token=token,
        db_name=db_name,
        ca_cert=ca_cert,
        client_cert=client_cert,
        client_key=client_key,
        server_name=tls_server_name,
        timeout_s=timeout_s,
        wait_s=wait_s,
    )


def milvus_options(connection: Connection) -> str:
    """What a printed command needs at its end to reach the same Milvus; without credentials."""
    found_without = os.environ.get(_URI_VARIABLE) or _DEFAULT_URI
    given = {"--milvus-uri": "" if connection.uri == found_without else connection.shown}
    for flag, name in _OTHERS.items():
        value = str(getattr(connection, name) or "")
        given[flag] = "" if value == os.environ.get(f"RECALL_MILVUS_{name.upper()}", "") else value
    return "".join(f" {flag} {shlex.quote(value)}" for flag, value in given.items() if value)


def _servers(
    server: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_SERVERS, help="host:port of a server, or of all servers of that name. Repeatable."
        ),
    ] = None,
    server_token_file: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="File that holds the token that they ask for.")
    ] = None,
    server_ca_cert: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_SERVERS, help="PEM file of the authority to trust; without it there is no TLS."),
    ] = None,
    server_client_cert: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="PEM file for mutual TLS.")
    ] = None,
    server_client_key: Annotated[
        Path | None, typer.Option(rich_help_panel=_SERVERS, help="Private key of that certificate.")
    ] = None,
) -> "Servers | None":
    from indexer.rollout.servers import Servers  # what most commands do without: gRPC's stubs

    if not server:
        return None
    token = _read_secret(server_token_file, "--server-token-file") if server_token_file else ""
    return Servers(tuple(server), token, server_ca_cert, server_client_cert, server_client_key)


def _read_secret(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(f"{file}: {option} cannot be read: {error}") from error


_SHARED: dict[str, Callable[..., Any]] = {"connection": _connection, "servers": _servers}
"""Parameters that a command may have, and the options that each is made from."""


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the `_SHARED` parameters it has; failures become one line and an exit code."""
    own = dict(inspect.signature(command).parameters)
    shared = {name: inspect.signature(_SHARED[name]).parameters for name in list(own) if name in _SHARED}
    for name in shared:
        del own[name]

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            made = {
                name: _SHARED[name](**{option: options.pop(option) for option in parameters})
                for name, parameters in shared.items()
            }
            command(**made, **options)
        except (IndexerError, MindError) as error:
            display.err.print("[bold red]error:[/]", end=" ")
            display.err.print(str(error), markup=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            display.err.print("interrupted")
            raise typer.Exit(130) from error

    parameters = [*own.values(), *(option for options in shared.values() for option in options.values())]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run

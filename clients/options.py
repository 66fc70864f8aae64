"""Groups of options as pydantic models, and the one that `recall-client` and `recall-gateway` share.

A field is an option, and its docstring is the help. A value comes from the command line, else from the environment,
else it is the default; the model alone checks it. `clients.command` turns a group into options of a command; this
module does not import typer, because a running gateway keeps it loaded. Server and indexer have the same in
`mind.options`, which clients may not import.
"""

import os
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FilePath, ValidationError

SHARED = {
    "server": "SERVER",
    "server_tls": "TLS",
    "server_ca_cert": "CA",
    "server_client_cert": "CERT",
    "server_client_key": "KEY",
    "server_token_file": "TOKEN_FILE",
    "timeout_ms": "TIMEOUT_MS",
    "log_level": "LOG_LEVEL",
}
"""Options that all programs share, and how their variables ended in version 0.1, after the prefix of a program."""


class OptionError(ValueError):
    """An option that cannot be used; the message names the flag or variable that gives it, and the value."""


class Options(BaseModel):
    """A group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    panels: ClassVar[Mapping[str, str]] = {}
    """Panels of the help: the field that a panel begins with, and the panel's title."""
    prefix: ClassVar[str]
    """Prefix of the variables of a program's own options and, in version 0.1, of all its variables."""

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a field."""
        return f"{'RECALL_' if name in SHARED else cls.prefix}{name.upper()}"


Group = TypeVar("Group", bound=Options)


class Connection(Options):
    """The server to call, and the credentials for it."""

    panels: ClassVar = {"server": "Servers"}
    prefix: ClassVar = "RECALL_CLIENT_"

    server: str = "localhost:50051"
    """host:port of the server."""
    timeout_ms: int = Field(default=2_000, gt=0)
    """Deadline of a call to a server, retries included."""
    server_tls: bool = False
    """Use TLS and trust the system's authorities."""
    server_ca_cert: FilePath | None = None
    """Use TLS and trust the authorities in this PEM file."""
    server_client_cert: FilePath | None = None
    """PEM file of the certificate to show (mutual TLS); needs its key, and --server-ca-cert or --server-tls."""
    server_client_key: FilePath | None = None
    """PEM file with the private key of that certificate."""
    server_token_file: FilePath | None = None
    """File whose first line is the bearer token to send."""

    def arguments(self) -> dict[str, Any]:
        """Arguments of either client.

        Raises:
            OptionError: a file cannot be read, or an option lacks another one.
        """
        for name in ("server_token_file", "server_ca_cert", "server_client_cert", "server_client_key"):
            if file := getattr(self, name):
                try:
                    file.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise OptionError(f"{flag(name)} is '{file}': cannot be read: {error}") from error
        if (self.server_client_cert is None) != (self.server_client_key is None):
            raise OptionError("--server-client-cert and --server-client-key must be given together")
        if self.server_client_cert and not (self.server_ca_cert or self.server_tls):
            raise OptionError("--server-client-cert needs --server-ca-cert or --server-tls")
        return {
            "target": self.server,
            "timeout_s": self.timeout_ms / 1000,
            "tls": self.server_ca_cert or self.server_tls,
            "client_cert": (self.server_client_cert, self.server_client_key) if self.server_client_cert else None,
            "token": self._token(),
        }

    def _token(self) -> str | None:
        if self.server_token_file is None:
            return None
        words = self.server_token_file.read_text(encoding="utf-8").split()
        if not words:
            raise OptionError(f"--server-token-file {self.server_token_file}: has no token")
        return words[0]


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


RENAMED = {flag(earlier.lower()): flag(name) for name, earlier in SHARED.items() if earlier.lower() != name}
"""Flags of version 0.1, which still work, and what they are called now."""


def read(group: type[Group], flags: Mapping[str, Any]) -> Group:
    """Read a group of options from the command line and the environment.

    Args:
        group: the model.
        flags: what the command line gives, by field; nothing for the others. An empty variable counts as not given.

    Raises:
        OptionError: an option has a wrong type or breaks a limit.
    """
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    for name in group.model_fields:
        earlier = [group.prefix + SHARED[name]] if name in SHARED else []  # wins: it is meant for this program alone
        for variable in (group.variable(name), *earlier):
            if text := os.environ.get(variable):
                given[name], called[name] = text, variable
    try:
        return group.model_validate({**given, **flags})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        raise OptionError(str(fault["ctx"]["error"]))
    name = str(fault["loc"][0])
    option = flag(name) if name in flags else called.get(name, flag(name))
    raise OptionError(f"{option}: {fault['msg'].removeprefix('Value error, ')} (value: {fault['input']!r})")

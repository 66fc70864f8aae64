"""Where Milvus is and how to get in; told by server and indexer in the same way.

Knows nothing of collections.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mind.errors import ConfigError


@dataclass(frozen=True)
class Connection:
    """Where Milvus is and how to get in."""

    uri: str
    """`http://host:19530`, `https://...`, or a path that ends in `.db`: Milvus Lite inside this process."""
    token: str = field(default="", repr=False)
    """`user:password` or an API key; empty without authentication."""
    db_name: str = ""
    """Milvus database; empty is the default one."""
    ca_cert: Path | None = None
    """PEM file that the server's certificate is checked against."""
    client_cert: Path | None = None
    """PEM file for mutual TLS; needs `client_key` and `ca_cert`."""
    client_key: Path | None = None
    """Private key of `client_cert`."""
    server_name: str = ""
    """Name in the server's certificate, where it differs from the host."""
    timeout_s: float = 30
    """Longest that one call may take."""
    wait_s: float = 3600
    """Longest that flush, joining or load may take, and an index build without progress."""

    def __post_init__(self) -> None:
        """Refuse what pymilvus would ignore in silence. Raises ConfigError."""
        if (self.client_cert or self.client_key) and not (self.client_cert and self.client_key and self.ca_cert):
            raise ConfigError("mutual TLS needs all of --milvus-client-cert, --milvus-client-key and --milvus-ca-cert")
        if (self.ca_cert or self.server_name) and not self.uri.startswith("https://"):
            raise ConfigError(f"TLS options need an https:// address, --milvus-uri is {self.shown}")

    @property
    def is_lite(self) -> bool:
        """Whether it is a Milvus Lite file."""
        return self.uri.endswith(".db")

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return without_credentials(self.uri)

    def options(self) -> dict[str, Any]:
        """Arguments of pymilvus' clients."""
        authority = "ca_pem_path" if self.client_cert else "server_pem_path"  # pymilvus' two names for the same file
        files = (self.ca_cert, self.client_cert, self.client_key, self.server_name)
        names = (authority, "client_pem_path", "client_key_path", "server_name")
        tls: dict[str, Any] = {name: str(value) for name, value in zip(names, files, strict=True) if value}
        if self.ca_cert:
            tls["secure"] = True
        return {"token": self.token, "db_name": self.db_name, "timeout": self.timeout_s, **tls}


def without_credentials(uri: str) -> str:
    """An address without user and password, for logs and messages, however badly it is written."""
    return re.sub(r"^([A-Za-z]+:/+)?.*@", r"\1", uri)

"""The address of Milvus and the credentials for it, as plain values. Server and indexer share them."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mind.errors import ConfigError


@dataclass(frozen=True)
class Connection:
    """The address of Milvus, the credentials, and the time limits."""

    uri: str
    """`http://host:19530`, `https://...`, or a path that ends in `.db` for Milvus Lite inside this process."""
    token: str = field(default="", repr=False)
    """`user:password` or an API key; empty without authentication."""
    db_name: str = ""
    """The Milvus database; empty is the default database."""
    ca_cert: Path | None = None
    """PEM file that the certificate of Milvus is checked against."""
    client_cert: Path | None = None
    """PEM file with the client certificate for mutual TLS; needs `client_key` and `ca_cert`."""
    client_key: Path | None = None
    """PEM file with the private key of `client_cert`."""
    server_name: str = ""
    """The name in the certificate of Milvus, if it differs from the host."""
    timeout_s: float = 30
    """Maximum time of one call."""
    wait_s: float = 3600
    """Maximum time of a flush, compaction or load, and of an index build without progress."""

    def __post_init__(self) -> None:
        """Refuse what pymilvus would ignore without an error, and a file without its engine. Raises ConfigError."""
        if self.is_lite and find_spec("milvus_lite") is None:
            raise ConfigError(
                f"--milvus-uri is {self.uri}: a .db path needs Milvus Lite, which is not installed: "
                "pip install 'mind-recall[lite]'; a Milvus server has an address such as http://host:19530"
            )
        if (self.client_cert or self.client_key) and not (self.client_cert and self.client_key and self.ca_cert):
            raise ConfigError("mutual TLS needs all of --milvus-client-cert, --milvus-client-key and --milvus-ca-cert")
        if (self.ca_cert or self.server_name) and not self.uri.startswith("https://"):
            raise ConfigError(f"TLS options need an https:// address, but --milvus-uri is {self.shown}")

    @property
    def is_lite(self) -> bool:
        """Return whether the address is a Milvus Lite file."""
        return self.uri.endswith(".db")

    @property
    def shown(self) -> str:
        """Return the address without credentials."""
        return without_credentials(self.uri)

    def options(self) -> dict[str, Any]:
        """Return the arguments for the clients of pymilvus."""
        authority = "ca_pem_path" if self.client_cert else "server_pem_path"  # pymilvus' two names for the same file
        files = (self.ca_cert, self.client_cert, self.client_key, self.server_name)
        names = (authority, "client_pem_path", "client_key_path", "server_name")
        tls: dict[str, Any] = {name: str(value) for name, value in zip(names, files, strict=True) if value}
        if self.ca_cert:
            tls["secure"] = True
        return {"token": self.token, "db_name": self.db_name, "timeout": self.timeout_s, **tls}


def without_credentials(uri: str) -> str:
    """Remove user and password from an address, for logs and messages. This works for malformed addresses too."""
    return re.sub(r"^([A-Za-z]+:/+)?.*@", r"\1", uri)

"""The options for the address of Milvus and its credentials. They are the same in server and indexer."""

import re
from pathlib import Path
from typing import ClassVar, Self

from pydantic import SecretStr, model_validator

from mind.errors import ConfigError
from mind.milvus.connection import Connection, without_credentials
from mind.options import Options

_TOGETHER = (
    ("milvus_client_cert", "milvus_client_key"),
    ("milvus_client_key", "milvus_client_cert"),
    ("milvus_client_cert", "milvus_ca_cert"),
)
"""Pairs of options: the first one needs the second one."""


class MilvusOptions(Options):
    """The address of Milvus and the credentials for it."""

    panels: ClassVar = {"milvus_uri": "Milvus"}

    milvus_uri: str = "milvus.db"
    """Address of Milvus: a .db path (Milvus Lite, the extra lite) or http(s)://host:19530 (Standalone, Distributed)."""
    milvus_token: SecretStr = SecretStr("")
    """Token or user:password for Milvus. It has no flag, because a flag is visible in the process list."""
    milvus_token_file: Path | None = None
    """File with the token for Milvus, read at start. Alternatively, RECALL_MILVUS_TOKEN holds the token itself."""
    milvus_db_name: str = ""
    """The Milvus database to use. Empty is the default database."""
    milvus_ca_cert: Path | None = None
    """PEM file to check the certificate of an https:// Milvus against. The default is the system's authorities."""
    milvus_client_cert: Path | None = None
    """PEM file with the client certificate for mutual TLS. It needs --milvus-client-key and --milvus-ca-cert."""
    milvus_client_key: Path | None = None
    """PEM file with the private key of --milvus-client-cert."""
    milvus_server_name: str = ""
    """Name in the certificate of Milvus, if it differs from the host of --milvus-uri."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        uri = without_credentials(self.milvus_uri)
        if not re.fullmatch(r".+\.db|https?://.+", self.milvus_uri):
            raise ValueError(f"milvus_uri is {uri!r}: expected a path that ends in .db, or http(s)://host:port")
        if self.milvus_token.get_secret_value() and self.milvus_token_file:
            raise ValueError("milvus_token and milvus_token_file are both given; give only one of them")
        for name in ("milvus_ca_cert", "milvus_client_cert", "milvus_server_name"):
            if getattr(self, name) and not self.milvus_uri.startswith("https://"):
                raise ValueError(
                    f"{name} is {getattr(self, name)}: it needs an https:// address, but milvus_uri is {uri!r}"
                )
        for name, needed in _TOGETHER:
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} is {getattr(self, name)}, but {needed} is not given; give both")
        _ = self.milvus_secret
        return self

    def connection(self, timeout_s: float, wait_s: float = 3600) -> Connection:
        """Make the connection of these options. `Connection` documents the two times. Raises ConfigError."""
        return Connection(
            uri=self.milvus_uri,
            token=self.milvus_secret,
            db_name=self.milvus_db_name,
            ca_cert=self.milvus_ca_cert,
            client_cert=self.milvus_client_cert,
            client_key=self.milvus_client_key,
            server_name=self.milvus_server_name,
            timeout_s=timeout_s,
            wait_s=wait_s,
        )

    @property
    def milvus_secret(self) -> str:
        """Return the token for Milvus, from the variable or from the file. Raises ConfigError."""
        if self.milvus_token_file is None:
            return self.milvus_token.get_secret_value()
        try:
            token = self.milvus_token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"milvus_token_file {self.milvus_token_file}: cannot be read: {reason}") from None
        if not token:
            raise ConfigError(
                f"milvus_token_file {self.milvus_token_file}: has no token; write the token into this file"
            )
        return token

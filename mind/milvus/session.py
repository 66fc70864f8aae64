"""A blocking connection to Milvus. Errors of pymilvus and gRPC become a `StoreError` with one bounded line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from pymilvus import MilvusClient, MilvusException

from mind.errors import ConfigError
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError, StoreUnavailableError
from mind.milvus.lite import lite_failure
from mind.milvus.translation import explained, unreached
from mind.milvus.version import Version, refusal


class Session:
    """A connection to Milvus. Every call of pymilvus goes through `calling`."""

    def __init__(self, connection: Connection) -> None:
        """Connect to Milvus.

        Raises:
            StoreUnavailableError: Milvus does not answer, the credentials are wrong, or the file cannot be opened.
            FileInUseError: another process holds the file.
            StoreError: this version of Milvus is too old.
            ConfigError: a certificate cannot be read.
        """
        self.connection = connection
        self.timeout_s = connection.timeout_s
        """Maximum time of one call."""
        try:
            with self.calling("connect"):
                self.client = MilvusClient(uri=connection.uri, **connection.options())
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
        except StoreError as error:
            if connection.is_lite and Path(connection.uri).parent.is_dir():
                raise lite_failure(connection.uri) from error
            if says := unreached(connection.shown, str(error)):
                raise StoreUnavailableError(says) from error
            raise
        if says := refusal(self.version()):
            self.client.close()
            raise StoreError(f"{connection.shown}: {says}")

    def version(self) -> Version:
        """Ask Milvus for its version."""
        with self.calling("ask for the version"):
            return Version(str(self.client.get_server_version(timeout=self.timeout_s)))

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    @contextmanager
    def calling(self, doing: str, slow: bool = False) -> Iterator[None]:
        """Turn the errors of a call into a StoreError that names what was tried, such as "load items_1"."""
        limit = f"{self.connection.wait_s:g} s (--wait-s)" if slow else f"{self.timeout_s:g} s (--timeout-s)"
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            raise explained(error, f"{self.connection.shown}: cannot {doing}", limit) from error

"""A blocking connection to Milvus: what pymilvus or gRPC raise leaves here as a `StoreError` with one bounded line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from pymilvus import MilvusClient, MilvusException

from mind.errors import ConfigError
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.lite import lite_failure
from mind.milvus.translation import explained


class Session:
    """A connection, and the one way to call pymilvus over it."""

    def __init__(self, connection: Connection) -> None:
        """Connect.

        Raises:
            StoreUnavailableError: nobody answers, the credentials are wrong, or the file cannot be opened.
            FileInUseError: another process holds the file.
            ConfigError: a certificate cannot be read.
        """
        self.connection = connection
        self.timeout_s = connection.timeout_s
        """Longest that one call may take."""
        try:
            with self.calling("connect"):
                self.client = MilvusClient(uri=connection.uri, **connection.options())
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
        except StoreError as error:
            if connection.is_lite and Path(connection.uri).parent.is_dir():
                raise lite_failure(connection.uri) from error
            raise

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    @contextmanager
    def calling(self, doing: str, slow: bool = False) -> Iterator[None]:
        """Turn what a call raises into a StoreError that says what was tried, such as "load items_1"."""
        limit = f"{self.connection.wait_s:g} s (--wait-s)" if slow else f"{self.timeout_s:g} s (--timeout-s)"
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            raise explained(error, f"{self.connection.shown}: cannot {doing}", limit) from error

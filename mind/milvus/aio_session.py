"""An asyncio connection to Milvus. Each call is tried once, has a timeout, and raises our errors."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from pymilvus import AsyncMilvusClient, MilvusException

from mind.milvus.connection import Connection
from mind.milvus.errors import FileInUseError, StoreError, StoreTimeoutError, StoreUnavailableError
from mind.milvus.lite import lite_failure
from mind.milvus.translation import bounded, translated, unreached
from mind.milvus.version import Version, caution, refusal

ONCE: dict[str, Any] = {"timeout": None, "retry_times": 0}
"""Arguments that make pymilvus try once. With a timeout it would retry until the timeout; `call` sets the limit."""
_CHANNEL = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1_000}
"""Short pauses between attempts to reconnect. With gRPC's defaults a pause may take up to two minutes."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class AioSession:
    """A connection that is made on first use. If that fails, the next call tries again, so Milvus may start later."""

    def __init__(self, connection: Connection, on_error: Callable[[StoreError], None] = lambda _: None) -> None:
        """Prepare a connection. `on_error` is called with every error of Milvus."""
        self.connection = connection
        self._on_error = on_error
        self._client: AsyncMilvusClient | None = None
        self._connecting = asyncio.Lock()

    async def call(
        self, call: Callable[[AsyncMilvusClient], Awaitable[T]], filter_: str = "", timeout_s: float | None = None
    ) -> T:
        """Call Milvus once.

        Args:
            call: the function that calls the client.
            filter_: the filter of the call, if it has one.
            timeout_s: maximum time to wait; None takes the timeout of the connection.

        Raises:
            StoreError: Milvus failed or did not answer.
            FilterError: Milvus cannot use the filter.
        """
        try:
            return await self._translated(call, filter_, self.connection.timeout_s if timeout_s is None else timeout_s)
        except StoreError as error:
            self._on_error(error)
            raise

    async def close(self) -> None:
        """Close the connection."""
        if self._client:
            await self._client.close()

    async def _translated(self, call: Callable[[AsyncMilvusClient], Awaitable[T]], filter_: str, timeout_s: float) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                async with self._connecting:
                    if self._client is None:
                        self._client = await self._connect()
                return await call(self._client)
        except TimeoutError as error:
            raise StoreTimeoutError(f"Milvus does not answer within {timeout_s:.3g} s") from error
        except MilvusException as error:
            raise translated(error.code, error.message, filter_) from error
        except grpc.RpcError as error:
            raise translated(error.code(), error.details() or error.code().name, filter_) from error
        except grpc.aio.UsageError as error:  # pymilvus closed the channel under the call
            raise StoreUnavailableError("Milvus does not answer: the connection is being renewed; try again") from error

    async def _connect(self) -> AsyncMilvusClient:
        uri, shown = self.connection.uri, self.connection.shown
        try:
            client = AsyncMilvusClient(uri, grpc_options=_CHANNEL, **self.connection.options())
            await client.list_collections(timeout=self.connection.timeout_s)
            version = Version(str(await client.get_server_version(timeout=self.connection.timeout_s)))
        except (MilvusException, grpc.RpcError, ValueError, OSError) as error:
            if self.connection.is_lite and isinstance(reason := lite_failure(uri), FileInUseError):
                raise reason from error
            message = error.message if isinstance(error, MilvusException) else str(error)
            if isinstance(error, grpc.RpcError):
                message = error.details() or error.code().name
            text = bounded(str(message).replace(uri, shown))
            raise StoreUnavailableError(unreached(shown, text) or f"Milvus at {shown}: {text}") from error
        if says := refusal(version):
            await client.close()
            raise StoreError(f"Milvus at {shown}: {says}")
        if says := caution(version):
            _log.warning("%s", says)
        return client

"""The only file that uses private parts of pymilvus.

Searches, queries and writes with many rows use pymilvus' own channel and are sent as bytes (`mind.milvus.wire`). That
takes 0.13 ms of CPU time for 256 searches of 50 hits; the public client takes 14 to 46 ms. And a thread can write and
read bytes, while the event loop answers other calls. pymilvus does not document the channel or its generated messages,
so pyproject.toml limits its version. `check` names what an installed version lacks.
"""

from importlib.metadata import version
from typing import Any

import grpc
import pymilvus
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2

SEARCH, QUERY, UPSERT = (f"/milvus.proto.milvus.MilvusService/{name}" for name in ("Search", "Query", "Upsert"))
_NEEDED = {
    pymilvus.MilvusClient: ("_get_connection", "_generate_call_context"),
    pymilvus.AsyncMilvusClient: ("_get_connection", "_generate_call_context"),
    Prepare: ("search_requests_with_expr", "query_request", "row_upsert_param", "create_index_request"),
}


class UnfitPymilvusError(ImportError):
    """The installed pymilvus lacks something that we use."""


def check() -> None:
    """Raise UnfitPymilvusError if the installed pymilvus lacks something that we use. The message names it."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _NEEDED.items() for name in names if not hasattr(owner, name)
    ]
    if missing:
        raise UnfitPymilvusError(
            f"pymilvus {version('pymilvus')} lacks {', '.join(missing)}; install a version that pyproject.toml allows"
        )


def stub(client: Any) -> Any:
    """Return the blocking gRPC stub of a `MilvusClient`."""
    return client._get_connection()._stub


def metadata(client: Any) -> list[tuple[str, str]]:
    """Return the gRPC metadata that names the Milvus database of a client."""
    return [*client._generate_call_context().to_grpc_metadata()]


def time_ms(client: Any, timeout_s: float) -> int:
    """Return the time of the clock of Milvus in milliseconds since 1970: the upper bits of its timestamps."""
    answer = stub(client).AllocTimestamp(
        milvus_pb2.AllocTimestampRequest(), timeout=timeout_s, metadata=metadata(client)
    )
    if answer.status.code or answer.status.error_code:
        raise pymilvus.MilvusException(answer.status.code or answer.status.error_code, answer.status.reason)
    return int(answer.timestamp) >> 18


async def aio_stub(client: Any) -> Any:
    """Return the asyncio gRPC stub of an `AsyncMilvusClient`."""
    return (await client._get_connection())._async_stub


class ByteCalls:
    """Sends searches, queries and upserts as bytes over the channel of an `AsyncMilvusClient`."""

    def __init__(self) -> None:
        """Start without a channel. The first call takes the client's."""
        self._channel: Any = None
        """The channel that `_methods` belong to. pymilvus makes a new channel when one of its own calls fails."""
        self._methods: dict[str, Any] = {}
        self._metadata: tuple[tuple[str, str | bytes], ...] = ()

    async def ask(self, client: Any, method: str, request: bytes, more: tuple[tuple[str, str], ...] = ()) -> bytes:
        """Send a serialized request to `SEARCH`, `QUERY` or `UPSERT`, with the additional metadata `more`.

        Returns:
            The serialized answer.
        """
        channel = (await client._get_connection())._final_channel
        if channel is not self._channel:
            made = {name: _method(channel, name) for name in (SEARCH, QUERY, UPSERT)}
            self._methods = {name: call for name, (call, _) in made.items()}
            self._channel, self._metadata = channel, (*metadata(client), *made[SEARCH][1])
        return bytes(await self._methods[method](request, metadata=(*self._metadata, *more)))


def _method(channel: Any, name: str) -> tuple[Any, tuple[tuple[str, str | bytes], ...]]:
    """Return a method of a channel, and the metadata that pymilvus' interceptors would add to each call.

    They add the same metadata to every call. Running them for each call creates a task, which takes 2 to 3 % of the
    throughput of single-user requests.
    """
    method = channel.unary_unary(name)
    details = grpc.aio.ClientCallDetails(name, None, None, None, None)
    for interceptor in method._interceptors or ():
        details, _ = interceptor._fn(details, b"")
    method._interceptors = None
    return method, tuple(details.metadata or ())


check()

"""The private parts of pymilvus that we use, all of them in this file.

Searches go over pymilvus' own channel as bytes (`mind.milvus.wire`): 0.13 ms of our time for 256 queries of 50 hits;
the public client spends 14 to 46 ms. pymilvus documents neither that channel nor its generated messages, hence the cap
on its version. `check` names what a version of pymilvus lacks.
"""

from importlib.metadata import version
from typing import Any

import grpc
import pymilvus
from pymilvus.client.prepare import Prepare

SEARCH = "/milvus.proto.milvus.MilvusService/Search"
_NEEDED = {
    pymilvus.MilvusClient: ("_get_connection", "_generate_call_context"),
    pymilvus.AsyncMilvusClient: ("_get_connection", "_generate_call_context"),
    Prepare: ("search_requests_with_expr", "create_index_request"),
}


class UnfitPymilvusError(ImportError):
    """The installed pymilvus lacks something that we use."""


def check() -> None:
    """Raise UnfitPymilvusError if the installed pymilvus lacks something that we use; the message names it."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _NEEDED.items() for name in names if not hasattr(owner, name)
    ]
    if missing:
        raise UnfitPymilvusError(
            f"pymilvus {version('pymilvus')} lacks {', '.join(missing)}; install a version that pyproject.toml admits"
        )


def stub(client: Any) -> Any:
    """The blocking gRPC stub of a `MilvusClient`."""
    return client._get_connection()._stub


def metadata(client: Any) -> list[tuple[str, str]]:
    """gRPC metadata that names the Milvus database of a client."""
    return [*client._generate_call_context().to_grpc_metadata()]


async def aio_stub(client: Any) -> Any:
    """The asyncio gRPC stub of an `AsyncMilvusClient`."""
    return (await client._get_connection())._async_stub


class Searches:
    """The method Search of an `AsyncMilvusClient`, asked in bytes."""

    def __init__(self) -> None:
        """Nothing is connected yet."""
        self._channel: Any = None
        """Where `_method` belongs to; pymilvus makes a new channel when one of its own calls fails."""
        self._method: Any = None
        self._metadata: tuple[tuple[str, str | bytes], ...] = ()

    async def ask(self, client: Any, request: bytes, more: tuple[tuple[str, str], ...]) -> bytes:
        """Send a serialized SearchRequest, with more metadata; gives the serialized SearchResults."""
        channel = (await client._get_connection())._final_channel
        if channel is not self._channel:
            self._method, added = _search_method(channel)
            self._channel, self._metadata = channel, (*metadata(client), *added)
        return bytes(await self._method(request, metadata=(*self._metadata, *more)))


def _search_method(channel: Any) -> tuple[Any, tuple[tuple[str, str | bytes], ...]]:
    """The method Search of a channel, and the metadata that pymilvus' interceptors would add to each call.

    They add the same to all. Run for each call, they cost a task: 2 to 3 % of the throughput of single users.
    """
    method = channel.unary_unary(SEARCH)
    details = grpc.aio.ClientCallDetails(SEARCH, None, None, None, None)
    for interceptor in method._interceptors or ():
        details, _ = interceptor._fn(details, b"")
    method._interceptors = None
    return method, tuple(details.metadata or ())


check()

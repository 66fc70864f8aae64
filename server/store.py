"""The item collection in Milvus, as the server sees it. Only this file speaks to pymilvus; its errors end here.

Searches travel over pymilvus' channel as bytes (`mind.milvus.wire`): 0.13 ms of ours for 256 queries of 50 hits; the
public client spends 14 to 46. The channel is not documented, hence the cap on pymilvus' version.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
import numpy as np
from pymilvus import AsyncMilvusClient, MilvusException
from pymilvus.client.types import LoadState

from mind.artifact import Float32
from mind.milvus.collection import (
    ALIAS,
    EMBEDDING,
    FINGERPRINT,
    ITEM_ID,
    Fingerprint,
    Hits,
    is_item_collection,
    wide_enough,
)
from mind.milvus.journal import COUNTED, DELETED, Changes, journal_of
from mind.milvus.options import without_credentials
from mind.milvus.wire import read_search, write_search
from server.errors import (
    CollectionGoneError,
    InvalidRequestError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)

_NO_COLLECTION, _NO_ALIAS, _NOT_LOADED, _BAD_PARAMETER = 100, 1600, 101, 1100
_LITE_BAD_FILTER = 6
_SEARCH = "/milvus.proto.milvus.MilvusService/Search"
_LONGEST_REASON = 300
_LOADING_S = 10 * 60
_CHANNEL = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 1_000}
"""Or a Milvus that was away for minutes would be noticed up to two minutes after it is back."""
ONCE: dict[str, Any] = {"timeout": None, "retry_times": 0}
"""pymilvus tries again until a timeout passes; without one it heeds the number of tries. The time is up to `_call`."""
SEARCH_METADATA: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("SEARCH_METADATA", default=())
"""gRPC metadata that goes to Milvus with the searches of a task, such as the trace that they belong to."""
_SILENT = re.compile(
    "unavailable|retry timeout|retry run out|context (canceled|deadline|done)|shard leader"
    "|(channel|collection|segment|node) not found"  # by a query node that has just been told to let go of it
    "|service not ready|(rate|request) limit exceeded|too many concurrent requests",  # what its merr calls retriable
    re.IGNORECASE,
)
"""How pymilvus and Milvus say, with a code that means other things too, that nobody can answer now."""

T = TypeVar("T")


class ItemStore(Protocol):
    """What serving needs of a vector database. Every method raises StoreError or a child of it."""

    async def live_collection(self) -> str | None:
        """The collection that the release alias names; None without a release."""

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """What the collection was built from; None for an unfinished build."""

    async def load(self, collection: str) -> None:
        """Bring the collection into memory, if it is not there."""

    async def count(self, collection: str, filter_: str = "", timeout_s: float | None = None) -> int:
        """Items that match, exactly, counted in `timeout_s`. Raises InvalidRequestError for a bad filter."""

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """Stored embeddings of the given items, [D] float32 each; missing ones are absent."""

    async def changes(self, collection: str) -> Changes:
        """What the collection's journal says was changed since its build; loads the journal, if it is not there."""

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """Those of the given items that the collection's journal says may be gone."""

    async def matching(self, collection: str, item_ids: list[int], filter_: str) -> set[int]:
        """Those of the given items that are there, and that match unless the filter is empty.

        Raises InvalidRequestError for a filter that cannot be used. It must be canonical: it is
        joined with another condition, which any other text could escape.
        """

    async def search(
        self, collection: str, vectors: Float32, limit: int, filter_: str, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """The `limit` items nearest to each of the [Q, D] vectors. Raises InvalidRequestError for a bad filter."""

    async def drop(self, collection: str) -> None:
        """Drop a collection, and the release alias if it names it."""

    async def close(self) -> None:
        """Give the connection back."""


class MilvusStore:
    """`ItemStore` on Milvus Lite, Standalone or Distributed."""

    def __init__(
        self,
        uri: str,
        token: str,
        db_name: str,
        ca_cert: Path | None,
        timeout_s: float,
        *,
        client_cert: tuple[Path, Path] | None = None,
        server_name: str = "",
        on_error: Callable[[StoreError], None] = lambda _: None,
    ) -> None:
        """Connects on first use, and again when that failed: a server may start before its database.

        Args:
            uri: a path that ends in .db, or http(s)://host:port.
            token: user:password or a token; empty without authentication.
            db_name: Milvus database; empty is the default one.
            ca_cert: PEM file that the certificate of an https:// Milvus is checked against.
            timeout_s: longest wait for anything but loading a collection.
            client_cert: PEM files of our certificate and its key, for mutual TLS; needs `ca_cert`.
            server_name: name in Milvus' certificate, where it differs from the host.
            on_error: told what Milvus fails at.
        """
        self._uri = uri
        self._on_error = on_error
        self._timeout_s = timeout_s
        self._options: dict[str, Any] = {"token": token, "db_name": db_name, "timeout": timeout_s}
        self._options["grpc_options"] = _CHANNEL
        if ca_cert:  # which pymilvus calls otherwise where we have a certificate too
            self._options |= {"secure": True, "ca_pem_path" if client_cert else "server_pem_path": str(ca_cert)}
        if client_cert:
            self._options |= {"client_pem_path": str(client_cert[0]), "client_key_path": str(client_cert[1])}
        if server_name:
            self._options["server_name"] = server_name
        self._client: AsyncMilvusClient | None = None
        self._searching_on: Any = None
        """The channel that `_search_method` belongs to; pymilvus makes a new one when a call of its own fails."""
        self._search_method: Any = None
        self._search_metadata: tuple[tuple[str, str | bytes], ...] = ()
        self._connecting = asyncio.Lock()

    async def live_collection(self) -> str | None:
        """See `ItemStore`."""
        try:
            found = await self._call(lambda milvus: milvus.describe_collection(ALIAS, **ONCE))
        except CollectionGoneError:
            return None
        return str(found["collection_name"])  # DescribeAlias of 2.3.5 looks in the default database only

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """See `ItemStore`."""
        found = await self._call(lambda milvus: milvus.describe_collection(collection, **ONCE))
        return Fingerprint.from_json((found.get("properties") or {}).get(FINGERPRINT, ""))

    async def load(self, collection: str) -> None:
        """See `ItemStore`."""
        state = await self._call(lambda milvus: milvus.get_load_state(collection, **ONCE))
        if state["state"] != LoadState.Loaded:
            await self._call(lambda milvus: milvus.load_collection(collection, **ONCE), timeout_s=_LOADING_S)

    async def count(self, collection: str, filter_: str = "", timeout_s: float | None = None) -> int:
        """See `ItemStore`."""
        rows = await self._query(collection, filter_, ["count(*)"], timeout_s, consistency_level="Strong")
        return int(rows[0]["count(*)"])

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """See `ItemStore`."""
        rows = await self._query(collection, f"{ITEM_ID} in {json.dumps(item_ids)}", [ITEM_ID, EMBEDDING])
        return {row[ITEM_ID]: np.asarray(row[EMBEDDING], np.float32) for row in rows}

    async def changes(self, collection: str) -> Changes:
        """See `ItemStore`."""
        journal = journal_of(collection)
        if not await self._is_used(journal):
            return Changes()
        await self.load(journal)
        queries = (
            self._query(journal, filter_, ["count(*)"], consistency_level="Strong") for filter_ in COUNTED.values()
        )
        counts = [int(rows[0]["count(*)"]) for rows in await asyncio.gather(*queries)]
        return Changes(*counts)

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """See `ItemStore`."""
        journal = journal_of(collection)
        if not item_ids or not await self._is_used(journal):
            return set()
        await self.load(journal)
        gone = f"{ITEM_ID} in {json.dumps(item_ids)} and ({DELETED})"
        rows = await self._query(journal, gone, [ITEM_ID], consistency_level="Strong")
        return {row[ITEM_ID] for row in rows}

    async def _is_used(self, journal: str) -> bool:
        """Whether a journal is there, and its making came as far as the index, before which nothing is written."""
        if journal not in await self._call(lambda milvus: milvus.list_collections(**ONCE)):
            return False
        return bool(await self._call(lambda milvus: milvus.list_indexes(journal, **ONCE)))

    async def matching(self, collection: str, item_ids: list[int], filter_: str) -> set[int]:
        """See `ItemStore`."""
        both = f"{ITEM_ID} in {json.dumps(item_ids)}"
        if filter_:
            both = f"({filter_}) and {both}"
        rows = await self._query(collection, both, [ITEM_ID], limit=len(item_ids))
        return {row[ITEM_ID] for row in rows}

    async def search(
        self, collection: str, vectors: Float32, limit: int, filter_: str, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """See `ItemStore`."""
        params = wide_enough(params, limit)
        request = write_search(collection, vectors, limit, filter_, tuple(params.items()))

        async def ask(milvus: AsyncMilvusClient) -> Hits:
            return _hits(await self._search(milvus, request), filter_)

        return await self._call(ask, filter_, timeout_s)

    async def _search(self, milvus: AsyncMilvusClient, request: bytes) -> bytes:
        channel = (await milvus._get_connection())._final_channel
        if channel is not self._searching_on:
            self._search_method, added = _search_method(channel)
            database = milvus._generate_call_context().to_grpc_metadata()
            self._searching_on, self._search_metadata = channel, (*database, *added)
        metadata = (*self._search_metadata, *SEARCH_METADATA.get())
        return bytes(await self._search_method(request, metadata=metadata))

    async def drop(self, collection: str) -> None:
        """See `ItemStore`."""
        if await self.live_collection() == collection:
            await self._call(lambda milvus: milvus.drop_alias(ALIAS, **ONCE))
        await self._call(lambda milvus: milvus.drop_collection(collection, **ONCE))
        if is_item_collection(collection):
            journal = journal_of(collection)
            await self._call(lambda milvus: milvus.drop_collection(journal, **ONCE))

    async def close(self) -> None:
        """See `ItemStore`."""
        if self._client:
            await self._client.close()

    async def _query(
        self, collection: str, filter_: str, fields: list[str], timeout_s: float | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        query = {"filter": filter_, "output_fields": fields} | ONCE | options
        return list(await self._call(lambda milvus: milvus.query(collection, **query), filter_, timeout_s))

    async def _call(
        self, call: Callable[[AsyncMilvusClient], Awaitable[T]], filter_: str = "", timeout_s: float | None = None
    ) -> T:
        """Make one attempt, and give up when `timeout_s`, or the store's own, has passed."""
        try:
            return await self._translated(call, filter_, self._timeout_s if timeout_s is None else timeout_s)
        except StoreError as error:
            self._on_error(error)
            raise

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
            raise translate(error.code, error.message, filter_) from error
        except grpc.RpcError as error:
            details = _shorten(error.details() or error.code().name)
            raise StoreUnavailableError(f"Milvus does not answer: {details}") from error
        except grpc.aio.UsageError as error:  # pymilvus closed the channel under the call
            raise StoreUnavailableError("Milvus does not answer: the connection is being made anew") from error

    async def _connect(self) -> AsyncMilvusClient:
        try:
            client = AsyncMilvusClient(self._uri, **self._options)
            await client.list_collections(timeout=self._timeout_s)
        except (MilvusException, grpc.RpcError, ValueError, OSError) as error:
            reason = error.message if isinstance(error, MilvusException) else str(error)
            if isinstance(error, grpc.RpcError):
                reason = error.details()
            if self._uri.endswith(".db") and _held_by_another(self._uri):
                reason = "another process holds this Milvus Lite file; stop it, or serve the file to all with "
                reason += "`milvus-lite server` and give its http:// address"
            shown = without_credentials(self._uri)
            reason = _shorten(str(reason).replace(self._uri, shown))
            raise StoreUnavailableError(f"Milvus at {shown}: {reason}") from error
        return client


def _search_method(channel: Any) -> tuple[Any, tuple[tuple[str, str | bytes], ...]]:
    """The method Search of a channel, and the metadata that pymilvus' interceptors would add to each call.

    They add the same to all; run anew for each, they cost a task, 2 to 3 % of what single users' calls get done.
    """
    method = channel.unary_unary(_SEARCH)
    details = grpc.aio.ClientCallDetails(_SEARCH, None, None, None, None)
    for interceptor in method._interceptors or ():
        details, _ = interceptor._fn(details, b"")
    method._interceptors = None
    return method, tuple(details.metadata or ())


def _hits(answer: bytes, filter_: str) -> Hits:
    try:
        status, hits = read_search(answer)
    except ValueError as error:
        raise StoreError(f"Milvus answered a search with what is no answer: {error}") from error
    if status.code or status.error_code:
        raise translate(status.code or status.error_code, status.reason, filter_)
    if not filter_ and not hits.lengths.all():
        raise StoreUnavailableError("Milvus finds nothing: the collection is being loaded or released")
    return hits


def _held_by_another(path: str) -> bool:
    """Lite only logs why a file did not open: open it once more to hear it."""
    if not Path(path).exists():
        return False  # opening would make it
    from milvus_lite import DataDirLockedError, MilvusLite  # a real Milvus does without

    try:
        MilvusLite(str(Path(path).absolute())).close()
    except DataDirLockedError:
        return True
    except Exception:
        return False
    return False


def translate(code: Any, message: str, filter_: str) -> StoreError | InvalidRequestError:
    """What an error of Milvus is to a caller; `code` is Milvus' or gRPC's."""
    reason = _shorten(message)
    if filter_ and (code in (_LITE_BAD_FILTER, _BAD_PARAMETER) or "expression" in message):
        return InvalidRequestError("filter", f"Milvus cannot use {filter_[:100]!r}: {reason}", "FILTER_INVALID")
    if code in (_NO_COLLECTION, _NO_ALIAS):
        return CollectionGoneError(f"Milvus: {reason}")
    if code == _NOT_LOADED:  # a Milvus that has just started says so of what it will load by itself
        return StoreUnavailableError(f"Milvus: {reason}")
    if isinstance(code, grpc.StatusCode) or code in (2, 503) or _SILENT.search(message):
        return StoreUnavailableError(f"Milvus does not answer: {reason}")
    return StoreError(f"Milvus (code {code}): {reason}")


def _shorten(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"

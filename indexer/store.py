"""The few verbs that indexing needs from Milvus; the only file that knows pymilvus.

Every call has a timeout, and whatever pymilvus or gRPC raise leaves here as an `IndexerError` with one bounded line.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.prepare import Prepare
from tenacity import RetryCallState, RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from indexer.errors import FileInUseError, IndexerError, RefusedError, StoreError, UnreachableError
from indexer.items.attributes import MAX_TEXT_BYTES, Attribute
from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.collection import ALIAS, BY_KEY, EMBEDDING, ITEM_ID, METRIC, is_item_collection, wide_enough
from mind.milvus.journal import APPLIED, CHANGED_AT, COUNTED, KNOWN, NAMES, NEIGHBOURS, OP, Changes, journal_of
from mind.sequences import Int64

Params = Mapping[str, int | float | str]
Row = dict[str, Any]

_log = logging.getLogger(__name__)

_DEAD, _NO_COLLECTION, _NO_ALIAS = 2, 100, 1600
_REASON_LENGTH = 300
_BOUNDED = 2  # consistency level: what servers search with
_JOURNAL = {OP: 64, KNOWN: None, APPLIED: None, NAMES: 65_535, NEIGHBOURS: 4_096, CHANGED_AT: 64}  # bytes; None is BOOL


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
        """Refuse what pymilvus would ignore in silence."""
        if (self.client_cert or self.client_key) and not (self.client_cert and self.client_key and self.ca_cert):
            raise RefusedError("mutual TLS needs all of --client-cert, --client-key and --ca-cert")
        if (self.ca_cert or self.server_name) and not self.uri.startswith("https://"):
            raise RefusedError(f"TLS options need an https:// address, --milvus-uri is {self.shown}")

    @property
    def is_lite(self) -> bool:
        """Whether it is a Milvus Lite file."""
        return self.uri.endswith(".db")

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def tls(self) -> dict[str, str]:
        """pymilvus's options; it calls the authority `server_pem_path` unless the client has a certificate too."""
        authority = "ca_pem_path" if self.client_cert else "server_pem_path"
        names = (authority, "client_pem_path", "client_key_path", "server_name")
        values = (self.ca_cert, self.client_cert, self.client_key, self.server_name)
        return {name: str(value) for name, value in zip(names, values, strict=True) if value}


@dataclass(frozen=True)
class Column:
    """What an attribute of a collection can hold."""

    type: str
    """As in `Fingerprint.attributes`."""
    max_length: int
    """VARCHAR: most bytes of a value."""
    max_capacity: int
    """ARRAY: most values."""

    @property
    def max_bytes(self) -> int:
        """Bytes of the largest value."""
        return max(self.max_length, 8) * max(self.max_capacity, 1)


class Store:
    """A connection to Milvus. Use it as a context manager."""

    def __init__(self, connection: Connection) -> None:
        """Connect.

        Raises:
            UnreachableError: nobody answers, the credentials are wrong, or the file cannot be opened.
            FileInUseError: another process holds the file.
        """
        self.connection = connection
        self._timeout = connection.timeout_s
        try:
            with self._speaking("connect"):
                self._client = MilvusClient(
                    uri=connection.uri,
                    token=connection.token,
                    db_name=connection.db_name,
                    timeout=connection.timeout_s,
                    **connection.tls(),
                )
        except OSError as error:
            raise RefusedError(f"{error.filename}: cannot be read: {error.strerror}") from error
        except IndexerError as error:
            if connection.is_lite and Path(connection.uri).parent.is_dir():
                raise _why_lite_failed(connection.uri) from error
            raise

    def __enter__(self) -> "Store":
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._client.close()

    def version(self) -> str:
        """What Milvus calls its version."""
        with self._speaking("ask for the version"):
            return str(self._client.get_server_version(timeout=self._timeout))

    def collections(self) -> list[str]:
        """Names of all collections, ours and others."""
        with self._speaking("list the collections"):
            return list(self._client.list_collections(timeout=self._timeout))

    def properties(self, name: str) -> dict[str, str] | None:
        """Properties of a collection; None if there is no such collection."""
        with self._speaking(f"describe {name}"):
            try:
                return dict(self._client.describe_collection(name, timeout=self._timeout).get("properties") or {})
            except MilvusException as error:
                if error.code == _NO_COLLECTION:
                    return None
                raise

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Set some properties of a collection, all at once; the others stay."""
        with self._speaking(f"set properties of {name}"):
            self._client.alter_collection_properties(name, dict(properties), timeout=self._timeout)

    def create(self, name: str, dim: int, attributes: Sequence[Attribute]) -> None:
        """Create an empty item collection."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ITEM_ID, DataType.INT64, is_primary=True)
        schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dim)
        for attribute in attributes:
            schema.add_field(attribute.name, **_field_type(attribute))
        with self._speaking(f"create {name}"):
            self._client.create_collection(name, schema=schema, timeout=self._timeout)

    def columns(self, name: str) -> dict[str, Column]:
        """The attributes of an item collection, the source of the vector among them."""
        with self._speaking(f"describe {name}"):
            fields = self._client.describe_collection(name, timeout=self._timeout)["fields"]
        return {field_["name"]: _column(field_) for field_ in fields if field_["name"] not in (ITEM_ID, EMBEDDING)}

    def create_journal(self, collection: str) -> str:
        """Make the journal of an item collection if it is not there, and load it; returns its name.

        It has the fields of the collection and its own. What an interrupted call left is completed.
        """
        name = journal_of(collection)
        if name not in self.collections():
            with self._speaking(f"describe {collection}"):
                fields = self._client.describe_collection(collection, timeout=self._timeout)["fields"]
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            for field_ in fields:
                kind = {"datatype": field_["type"], "is_primary": field_.get("is_primary", False), **field_["params"]}
                element = {"element_type": field_["element_type"]} if field_.get("element_type") else {}
                schema.add_field(field_["name"], **kind, **element)
            for own, max_length in _JOURNAL.items():
                text = {"datatype": DataType.VARCHAR, "max_length": max_length}
                schema.add_field(own, **(text if max_length else {"datatype": DataType.BOOL}))
            with self._speaking(f"create {name}"):
                self._client.create_collection(name, schema=schema, timeout=self._timeout)
        with self._speaking(f"list the indexes of {name}"):
            indexed = self._client.list_indexes(name, timeout=self._timeout)
        if not indexed:  # Milvus loads nothing without an index; nobody searches here
            self.index(name, "FLAT", {}, 0, lambda rows: None)
        self.load(name)
        return name

    def insert(self, name: str, rows: list[Row]) -> None:
        """Add rows; a message must stay under 64 MiB."""
        with self._speaking(f"insert into {name}"):
            self._client.insert(name, rows, timeout=self._timeout)

    def upsert(self, name: str, rows: list[Row]) -> None:
        """Add rows, or replace those that are there; a message must stay under 64 MiB."""
        if rows:
            with self._speaking(f"change {name}"):
                self._client.upsert(name, rows, timeout=self._timeout)

    def delete(self, name: str, item_id: list[int]) -> None:
        """Remove rows; those that are not there are no fault."""
        if item_id:
            with self._speaking(f"delete rows of {name}"):
                self._client.delete(name, ids=item_id, timeout=self._timeout)

    def rows(self, name: str, item_id: list[int] | str, limit: int = 0, first: bool = False) -> list[Row]:
        """Whole rows of a loaded collection, by ascending id, all that was acknowledged before.

        Args:
            name: of the collection.
            item_id: ids, of which those that are there are given; or a filter.
            limit: most rows for a filter.
            first: those with the smallest ids of all that pass the filter, maybe fewer than `limit`; else any.
        """
        chosen: dict[str, Any] = {"filter": item_id, "limit": limit} if isinstance(item_id, str) else {"ids": item_id}
        if first:
            chosen |= BY_KEY
        with self._speaking(f"read from {name}"):
            found = self._client.query(
                name, **chosen, output_fields=["*"], consistency_level="Strong", timeout=self._timeout
            )
        return sorted((dict(row) for row in found), key=lambda row: int(row[ITEM_ID]))

    def flush(self, name: str) -> None:
        """Seal what was inserted."""
        with self._speaking(f"flush {name}", slow=True):
            self._client.flush(name, timeout=self.connection.wait_s)

    def segments(self, name: str) -> int:
        """Parts that the flushed rows of a collection lie in; each has an index of its own, and all are searched."""
        with self._speaking(f"list the segments of {name}"):
            return len(self._client.list_persistent_segments(name, timeout=self._timeout))

    def join_segments(self, name: str, count: int) -> None:
        """Make few large segments of all `count` rows; to be done before the embeddings are indexed.

        Milvus joins segments by itself, but only those that have an index, and then indexes all anew beside the
        searches, which takes as long as the first index did. So here is an index that costs nothing, for a moment.
        """
        if self.connection.is_lite:
            return
        try:
            if self.segments(name) < 2:
                return
            self.index(name, "FLAT", {}, count, lambda rows: None)
            self._compact(name)
        except StoreError as error:  # which rights may forbid; it is no condition of a build
            _log.warning("%s: segments could not be joined, so Milvus may do it later: %s", name, error)
        self.drop_index(name)

    def _compact(self, name: str) -> None:
        with self._speaking(f"compact {name}"):
            job = self._client.compact(name, timeout=self._timeout)

        def completed() -> bool:
            with self._speaking(f"see how compacting {name} goes"):
                return bool(self._client.get_compaction_state(job, timeout=self._timeout) != "Executing")

        try:
            _ask_until(completed, stop_after_delay(self.connection.wait_s))
        except RetryError as error:
            raise StoreError(f"not done after {self.connection.wait_s:g} s (--wait-s)") from error

    def index(self, name: str, index_type: str, params: Params, count: int, on_progress: Callable[[int], None]) -> None:
        """Index the embeddings and wait until all `count` rows are in; "Finished" alone comes too early."""
        indexes = self._client.prepare_index_params()
        indexes.add_index(
            EMBEDDING, index_name=EMBEDDING, index_type=index_type, metric_type=METRIC, params=dict(params)
        )
        with self._speaking(f"index {name}"):
            self._client.create_index(name, indexes, timeout=self._timeout, sync=False)

        most, since = 0, time.monotonic()

        def indexed() -> bool:
            nonlocal most, since
            with self._speaking(f"describe the index of {name}"):
                state = self._client.describe_index(name, EMBEDDING, timeout=self._timeout)
            if state["state"] == "Failed":
                raise StoreError(f"{self.connection.shown}: {index_type} of {name} failed: Milvus gives no reason here")
            on_progress(state["indexed_rows"])
            if state["indexed_rows"] > most:
                most, since = state["indexed_rows"], time.monotonic()
            return bool(state["state"] == "Finished" and state["indexed_rows"] >= count)

        try:
            _ask_until(indexed, lambda _: time.monotonic() - since > self.connection.wait_s)
        except RetryError as error:
            raise StoreError(
                f"{self.connection.shown}: {index_type} of {name} has {most:,} of {count:,} rows and no more after "
                f"{self.connection.wait_s:g} s (--wait-s)"
            ) from error

    def load(self, name: str) -> None:
        """Bring a collection into memory; searching and counting need it. Already loaded is fine."""
        with self._speaking(f"load {name}", slow=True):
            self._client.load_collection(name, timeout=self.connection.wait_s)

    def release(self, name: str) -> None:
        """Take a collection out of memory. Not loaded is fine."""
        with self._speaking(f"release {name}"):
            self._client.release_collection(name, timeout=self._timeout)

    def drop_index(self, name: str) -> None:
        """Remove the index of a collection that is not loaded. None there is fine."""
        with self._speaking(f"drop the index of {name}"):
            self._client.drop_index(name, EMBEDDING, timeout=self._timeout)

    def count(self, name: str, filter_: str = "") -> int:
        """Rows of a loaded collection that match, exactly."""
        with self._speaking(f"count {name}"):
            answer = self._client.query(
                name, filter=filter_, output_fields=["count(*)"], consistency_level="Strong", timeout=self._timeout
            )
        return int(answer[0]["count(*)"])

    def changes(self, collection: str) -> Changes:
        """What the journal of an item collection says; loads it if it is not."""
        name = journal_of(collection)
        if name not in self.collections():
            return Changes()
        self.create_journal(collection)
        with ThreadPoolExecutor(len(COUNTED)) as pool:  # an exact count waits 0.2 s for Milvus' clock
            counts = pool.map(lambda filter_: self.count(name, filter_), COUNTED.values())
            return Changes(**dict(zip(COUNTED, counts, strict=True)))

    def vectors(self, name: str, item_id: Int64) -> dict[int, Float32]:
        """Stored embeddings by item id; ids that are not there are left out."""
        with self._speaking(f"read from {name}"):
            rows = self._client.query(
                name, ids=item_id.tolist(), output_fields=[EMBEDDING], consistency_level="Strong", timeout=self._timeout
            )
        return {row[ITEM_ID]: np.asarray(row[EMBEDDING], np.float32) for row in rows}

    def search(self, name: str, queries: Float32, limit: int, params: Params) -> list[list[int]]:
        """Item ids nearest to each query, best first. `queries`: [Q, D] float32."""
        with self._speaking(f"search {name}"):
            answer = self._client.search(
                name,
                list(queries),
                limit=limit,
                anns_field=EMBEDDING,
                search_params={"metric_type": METRIC, "params": dict(params)},
                consistency_level="Strong",
                timeout=self._timeout,
            )
        return [list(hits.ids) for hits in answer]

    def search_columns(self, name: str, queries: Float32, limit: int, params: Params, filter_: str = "") -> Hits:
        """What a server would get for a search: past pymilvus' objects, whose making takes longer than searching.

        Safe from several threads. `queries`: [Q, D] float32.
        """
        request = Prepare.search_requests_with_expr(
            name,
            anns_field=EMBEDDING,
            param={"metric_type": METRIC, "params": wide_enough(params, limit)},
            limit=limit,
            data=queries,
            expr=filter_,
            consistency_level=_BOUNDED,
        )
        metadata = self._client._generate_call_context().to_grpc_metadata()  # names the Milvus database
        with self._speaking(f"search {name}"):
            stub = self._client._get_connection()._stub
            answer = stub.Search(request, timeout=self._timeout, metadata=metadata)
            if answer.status.code or answer.status.error_code:
                raise MilvusException(answer.status.code or answer.status.error_code, answer.status.reason)
        return Hits(
            np.array(answer.results.ids.int_id.data, np.int64),
            np.array(answer.results.scores, np.float32),
            np.array(answer.results.topks, np.int64),
        )

    def alias(self) -> str | None:
        """The collection that the release alias names; None without one."""
        with self._speaking(f"look up alias {ALIAS}"):
            try:
                # DescribeAlias of 2.3.5 looks in the default database only
                return str(self._client.describe_collection(ALIAS, timeout=self._timeout)["collection_name"])
            except MilvusException as error:
                if error.code in (_NO_ALIAS, _NO_COLLECTION):
                    return None
                raise

    def point_alias(self, name: str) -> None:
        """Make the release alias name this collection, whatever it named: one that was dropped, too."""
        with self._speaking(f"point alias {ALIAS} to {name}"):
            try:
                self._client.alter_alias(name, ALIAS, timeout=self._timeout)
            except MilvusException as error:
                if error.code not in (_NO_ALIAS, _NO_COLLECTION):
                    raise
                self._client.create_alias(name, ALIAS, timeout=self._timeout)

    def drop_alias(self) -> None:
        """Remove the release alias."""
        with self._speaking(f"drop alias {ALIAS}"):
            self._client.drop_alias(ALIAS, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Remove a collection with its rows and journal; the caller makes sure that it is not the released one."""
        for doomed in (name, journal_of(name)) if is_item_collection(name) else (name,):
            with self._speaking(f"drop {doomed}"):
                self._client.drop_collection(doomed, timeout=self._timeout)

    @contextmanager
    def _speaking(self, doing: str, slow: bool = False) -> Iterator[None]:
        limit = f"{self.connection.wait_s:g} s (--wait-s)" if slow else f"{self._timeout:g} s (--timeout-s)"
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            raise _explained(f"{self.connection.shown}: cannot {doing}", error, limit) from error


def _ask_until(done: Callable[[], bool], stop: Callable[[RetryCallState], bool]) -> None:
    """Ask ever more seldom whether Milvus is done. Raises RetryError."""
    Retrying(
        retry=retry_if_result(lambda is_done: not is_done), wait=wait_exponential(multiplier=0.1, max=2), stop=stop
    )(done)


def _explained(attempt: str, error: Any, limit: str) -> IndexerError:
    rpc = error.__cause__ if isinstance(error.__cause__, grpc.Call) else error
    if isinstance(rpc, grpc.Call):
        if rpc.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnreachableError(f"{attempt}: Milvus did not answer within {limit}")
        return UnreachableError(f"{attempt}: {_bounded(rpc.details() or rpc.code().name)}")
    unreachable = error.code == _DEAD or isinstance(error.code, grpc.StatusCode)
    return (UnreachableError if unreachable else StoreError)(f"{attempt}: {_bounded(error.message)}")


def _bounded(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON_LENGTH else line[:_REASON_LENGTH] + "..."


def _why_lite_failed(path: str) -> IndexerError:
    """Lite only logs why a file did not open: open it once more to hear it."""
    from milvus_lite import DataDirLockedError, MilvusLite  # a real Milvus does without

    try:
        MilvusLite(str(Path(path).absolute())).close()
    except DataDirLockedError:
        return FileInUseError(
            f"{path}: another process holds this Milvus Lite file; stop it, or let one process serve the file to all "
            f"(milvus-lite server --host 127.0.0.1 --data-dir {path}) and give its address: --milvus-uri http://..."
        )
    except Exception as cause:  # whatever Lite meets in a damaged file
        return UnreachableError(f"{path}: cannot be opened as a Milvus Lite file: {_bounded(str(cause))}")
    return UnreachableError(f"{path}: could not be opened a moment ago; try again")


def _column(described: Mapping[str, Any]) -> Column:
    kind, params = DataType(described["type"]), described["params"]
    name = f"ARRAY<{DataType(described['element_type']).name}>" if kind == DataType.ARRAY else kind.name
    longest = MAX_TEXT_BYTES if "VARCHAR" in name else 0  # Lite does not tell that of texts in arrays
    return Column(name, int(params.get("max_length", longest)), int(params.get("max_capacity", 0)))


def _field_type(attribute: Attribute) -> dict[str, Any]:
    if not attribute.type.startswith("ARRAY<"):
        text = {"max_length": attribute.max_length} if attribute.type == "VARCHAR" else {}
        return {"datatype": DataType[attribute.type], **text}
    element = attribute.type.removeprefix("ARRAY<").removesuffix(">")
    text = {"max_length": attribute.max_length} if element == "VARCHAR" else {}
    return {
        "datatype": DataType.ARRAY,
        "element_type": DataType[element],
        "max_capacity": attribute.max_capacity,
        **text,
    }

"""The few calls that the indexer makes to Milvus. Every call has a timeout and raises `StoreError`."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from pymilvus import MilvusException
from pymilvus.client.prepare import Prepare
from tenacity import RetryCallState, RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus import internals, schemas
from mind.milvus.collection import ALIAS, BY_KEY, EMBEDDING, ITEM_ID, METRIC, is_item_collection, wide_enough
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError, StoreUnavailableError
from mind.milvus.journal import COUNTED, Changes, journal_of
from mind.milvus.record_store import RecordStore
from mind.milvus.schemas import Column
from mind.milvus.session import Session
from mind.milvus.translation import is_missing
from mind.sequences import Int64

Params = Mapping[str, int | float | str]
Row = dict[str, Any]

_log = logging.getLogger(__name__)

_BOUNDED = 2  # consistency level: what servers search with


class Store:
    """A connection to Milvus. Use it as a context manager."""

    def __init__(self, connection: Connection) -> None:
        """Connect. Raises what `Session` raises."""
        self.connection = connection
        self.session = Session(connection)
        self.records = RecordStore(self)
        """What is known of collections (`mind.milvus.records`)."""
        self._client = self.session.client
        self._timeout = connection.timeout_s

    def __enter__(self) -> "Store":
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.session.close()

    def version(self) -> str:
        """What Milvus calls its version."""
        with self.session.calling("ask for the version"):
            return str(self._client.get_server_version(timeout=self._timeout))

    def collections(self) -> list[str]:
        """Names of all collections, ours and others."""
        with self.session.calling("list the collections"):
            return list(self._client.list_collections(timeout=self._timeout))

    def properties(self, name: str) -> dict[str, str] | None:
        """Properties of a collection; None if there is no such collection."""
        with self.session.calling(f"describe {name}"):
            try:
                return dict(self._client.describe_collection(name, timeout=self._timeout).get("properties") or {})
            except MilvusException as error:
                if is_missing(error):
                    return None
                raise

    def create(self, name: str, dim: int, attributes: Mapping[str, Column]) -> None:
        """Create an empty item collection."""
        self.create_collection(name, schemas.items(dim, attributes))

    def columns(self, name: str) -> dict[str, Column]:
        """The attributes of an item collection, the source of the vector among them."""
        return schemas.columns(self._fields(name))

    def create_journal(self, collection: str) -> str:
        """Make the journal of an item collection if it is not there, and load it; returns its name.

        It has the fields of the collection and its own. What an interrupted call left is completed.
        """
        name = journal_of(collection)
        if name not in self.collections():
            self.create_collection(name, schemas.journal(self._fields(collection)))
        self.open(name, EMBEDDING)
        return name

    def create_collection(self, name: str, schema: Any) -> None:
        """Create an empty collection."""
        with self.session.calling(f"create {name}"):
            self._client.create_collection(name, schema=schema, timeout=self._timeout)

    def open(self, name: str, vector: str, index_type: str = "FLAT", params: Params | None = None) -> None:
        """Load a collection, and first give it an index if it has none: Milvus loads nothing without one."""
        with self.session.calling(f"list the indexes of {name}"):
            indexed = self._client.list_indexes(name, timeout=self._timeout)
        if not indexed:
            self.start_index(name, vector, index_type, params or {})
        self.load(name)

    def _fields(self, name: str) -> list[dict[str, Any]]:
        with self.session.calling(f"describe {name}"):
            return list(self._client.describe_collection(name, timeout=self._timeout)["fields"])

    def insert(self, name: str, rows: list[Row]) -> None:
        """Add rows; a message must stay under 64 MiB."""
        with self.session.calling(f"insert into {name}"):
            self._client.insert(name, rows, timeout=self._timeout)

    def upsert(self, name: str, rows: list[Row]) -> None:
        """Add rows, or replace those that are there; a message must stay under 64 MiB."""
        if rows:
            with self.session.calling(f"change {name}"):
                self._client.upsert(name, rows, timeout=self._timeout)

    def delete(self, name: str, item_id: list[int]) -> None:
        """Remove rows; those that are not there are no fault."""
        if item_id:
            with self.session.calling(f"delete rows of {name}"):
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
        with self.session.calling(f"read from {name}"):
            found = self._client.query(
                name, **chosen, output_fields=["*"], consistency_level="Strong", timeout=self._timeout
            )
        return sorted((dict(row) for row in found), key=lambda row: int(row[ITEM_ID]))

    def flush(self, name: str) -> None:
        """Seal what was inserted."""
        with self.session.calling(f"flush {name}", slow=True):
            self._client.flush(name, timeout=self.connection.wait_s)

    def segments(self, name: str) -> int:
        """Parts that the flushed rows of a collection lie in; each has an index of its own, and all are searched."""
        with self.session.calling(f"list the segments of {name}"):
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
        except StoreUnavailableError:
            raise
        except StoreError as error:  # rights may forbid it, and a build does not depend on it
            _log.warning("%s: segments could not be joined, so Milvus may do it later: %s", name, error)
        self.drop_index(name)

    def _compact(self, name: str) -> None:
        with self.session.calling(f"compact {name}"):
            job = self._client.compact(name, timeout=self._timeout)

        def completed() -> bool:
            with self.session.calling(f"see how compacting {name} goes"):
                return bool(self._client.get_compaction_state(job, timeout=self._timeout) != "Executing")

        try:
            _ask_until(completed, stop_after_delay(self.connection.wait_s))
        except RetryError as error:
            raise StoreError(f"not done after {self.connection.wait_s:g} s (--wait-s)") from error

    def index(self, name: str, index_type: str, params: Params, count: int, on_progress: Callable[[int], None]) -> None:
        """Index the embeddings and wait until all `count` rows are in; "Finished" alone comes too early."""
        self.start_index(name, EMBEDDING, index_type, params)
        most, since = 0, time.monotonic()

        def indexed() -> bool:
            nonlocal most, since
            with self.session.calling(f"describe the index of {name}"):
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

    def start_index(self, name: str, vector: str, index_type: str, params: Params) -> None:
        """Have Milvus index a field of vectors, without waiting for it."""
        indexes = self._client.prepare_index_params()
        indexes.add_index(vector, index_name=vector, index_type=index_type, metric_type=METRIC, params=dict(params))
        with self.session.calling(f"index {name}"):
            self._client.create_index(name, indexes, timeout=self._timeout, sync=False)

    def load(self, name: str) -> None:
        """Bring a collection into memory; searching and counting need it. Already loaded is fine."""
        with self.session.calling(f"load {name}", slow=True):
            self._client.load_collection(name, timeout=self.connection.wait_s)

    def release(self, name: str) -> None:
        """Take a collection out of memory. Not loaded is fine."""
        with self.session.calling(f"release {name}"):
            self._client.release_collection(name, timeout=self._timeout)

    def drop_index(self, name: str) -> None:
        """Remove the index of a collection that is not loaded. None there is fine."""
        with self.session.calling(f"drop the index of {name}"):
            self._client.drop_index(name, EMBEDDING, timeout=self._timeout)

    def count(self, name: str, filter_: str = "") -> int:
        """Rows of a loaded collection that match, exactly."""
        with self.session.calling(f"count {name}"):
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
        with self.session.calling(f"read from {name}"):
            rows = self._client.query(
                name, ids=item_id.tolist(), output_fields=[EMBEDDING], consistency_level="Strong", timeout=self._timeout
            )
        return {row[ITEM_ID]: np.asarray(row[EMBEDDING], np.float32) for row in rows}

    def search(self, name: str, queries: Float32, limit: int, params: Params) -> list[list[int]]:
        """Item ids nearest to each query, best first. `queries`: [Q, D] float32."""
        with self.session.calling(f"search {name}"):
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
        with self.session.calling(f"search {name}"):
            stub, metadata = internals.stub(self._client), internals.metadata(self._client)
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
        with self.session.calling(f"look up alias {ALIAS}"):
            try:
                # DescribeAlias of 2.3.5 looks in the default database only
                return str(self._client.describe_collection(ALIAS, timeout=self._timeout)["collection_name"])
            except MilvusException as error:
                if is_missing(error):
                    return None
                raise

    def point_alias(self, name: str) -> None:
        """Make the release alias name this collection, whatever it named: one that was dropped, too."""
        with self.session.calling(f"point alias {ALIAS} to {name}"):
            try:
                self._client.alter_alias(name, ALIAS, timeout=self._timeout)
            except MilvusException as error:
                if not is_missing(error):
                    raise
                self._client.create_alias(name, ALIAS, timeout=self._timeout)

    def drop_alias(self) -> None:
        """Remove the release alias."""
        with self.session.calling(f"drop alias {ALIAS}"):
            self._client.drop_alias(ALIAS, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Remove a collection with its record and journal; the caller makes sure that it is not the released one.

        The record goes first: one that outlived its collection would vouch for the next of that name.
        """
        self.records.delete(name)
        for doomed in (name, journal_of(name)) if is_item_collection(name) else (name,):
            with self.session.calling(f"drop {doomed}"):
                self._client.drop_collection(doomed, timeout=self._timeout)


def _ask_until(done: Callable[[], bool], stop: Callable[[RetryCallState], bool]) -> None:
    """Ask ever more seldom whether Milvus is done. Raises RetryError."""
    Retrying(
        retry=retry_if_result(lambda is_done: not is_done), wait=wait_exponential(multiplier=0.1, max=2), stop=stop
    )(done)

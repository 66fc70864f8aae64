"""The calls that the indexer makes to Milvus. Every call has a timeout and may raise `StoreError`."""

import logging
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
from mind.milvus.errors import NotFlushedError, StoreError, StoreUnavailableError, UnfinishedError
from mind.milvus.index_wait import IndexWait
from mind.milvus.journal import COUNTED, Changes, journal_of
from mind.milvus.record_store import RecordStore
from mind.milvus.schemas import Column
from mind.milvus.session import Session
from mind.milvus.translation import is_missing
from mind.milvus.version import Version
from mind.sequences import Int64

Params = Mapping[str, int | float | str]
Row = dict[str, Any]

_log = logging.getLogger(__name__)

_FLUSH_TIMEOUT, _FLUSH_LIMIT = "wait for flush timeout", "rate limit exceeded"
"""The messages of pymilvus, and of a Milvus from 2.4 on that was flushed a moment ago."""
SECURE_S = 60
"""Maximum time in seconds for Milvus to write to its storage what it has in its log."""
_BOUNDED = 2  # the consistency level of the searches of servers


class Store:
    """A connection to Milvus. Use it as a context manager."""

    def __init__(self, connection: Connection) -> None:
        """Connect to Milvus. Raises the errors of `Session`."""
        self.connection = connection
        self.session = Session(connection)
        self.records = RecordStore(self)
        """The release records (`mind.milvus.records`)."""
        self._client = self.session.client
        self._timeout = connection.timeout_s

    def __enter__(self) -> "Store":
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.session.close()

    def version(self) -> Version:
        """Return the version of Milvus."""
        return self.session.version()

    def collections(self) -> list[str]:
        """List the names of all collections, including those of other programs."""
        with self.session.calling("list the collections"):
            return list(self._client.list_collections(timeout=self._timeout))

    def properties(self, name: str) -> dict[str, str] | None:
        """Return the properties of a collection, or None if the collection does not exist."""
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
        """Return the attributes of an item collection, including `vector_source`."""
        return schemas.columns(self._fields(name))

    def create_journal(self, collection: str) -> str:
        """Create the journal of an item collection if it does not exist, load it, and return its name.

        An earlier call that was interrupted is completed.
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
        """Load a collection. If it has no index, create one first, because Milvus cannot load it without one."""
        with self.session.calling(f"list the indexes of {name}"):
            indexed = self._client.list_indexes(name, timeout=self._timeout)
        if not indexed:
            self.start_index(name, vector, index_type, params or {})
        self.load(name)

    def _fields(self, name: str) -> list[dict[str, Any]]:
        with self.session.calling(f"describe {name}"):
            return list(self._client.describe_collection(name, timeout=self._timeout)["fields"])

    def rename(self, name: str, to: str) -> bool:
        """Give a collection another name. Return False, and change nothing, if another collection has that name.

        Whoever still writes under the old name gets an error. Milvus Lite must load the collection again.
        """
        try:
            with self.session.calling(f"rename {name} to {to}"):
                self._client.rename_collection(name, to, timeout=self._timeout)
        except StoreError:
            if to not in self.collections():
                raise
            return False
        return True

    def insert(self, name: str, rows: list[Row]) -> None:
        """Insert rows into a collection. They must fit into one message, which has at most 64 MiB."""
        with self.session.calling(f"insert into {name}"):
            self._client.insert(name, rows, timeout=self._timeout)

    def upsert(self, name: str, rows: list[Row]) -> None:
        """Insert rows, or replace rows with the same key. They must fit into one message, which has at most 64 MiB."""
        if rows:
            with self.session.calling(f"change {name}"):
                self._client.upsert(name, rows, timeout=self._timeout)

    def delete(self, name: str, item_id: list[int]) -> None:
        """Delete rows by id. Ids without a row are ignored."""
        if item_id:
            with self.session.calling(f"delete rows of {name}"):
                self._client.delete(name, ids=item_id, timeout=self._timeout)

    def rows(self, name: str, item_id: list[int] | str, limit: int = 0, first: bool = False) -> list[Row]:
        """Read whole rows of a loaded collection, by ascending id, under strong consistency.

        Equal rows compare equal: vectors are float32 arrays, and other sequences are lists.

        Args:
            name: the name of the collection.
            item_id: a list of ids, of which missing ones are left out; or a filter.
            limit: maximum number of rows for a filter.
            first: whether to return the rows with the smallest ids that match the filter, possibly fewer than `limit`.
                Otherwise any rows that match are returned.
        """
        chosen: dict[str, Any] = {"filter": item_id, "limit": limit} if isinstance(item_id, str) else {"ids": item_id}
        if first:
            chosen |= BY_KEY
        with self.session.calling(f"read from {name}"):
            found = self._client.query(
                name, **chosen, output_fields=["*"], consistency_level="Strong", timeout=self._timeout
            )
        return sorted((_plain(row) for row in found), key=lambda row: int(row[ITEM_ID]))

    def flush(self, name: str, wait_s: float | None = None) -> None:
        """Write all inserted rows to disk and seal their segments.

        Args:
            name: the name of the collection.
            wait_s: maximum time to wait for it; None takes `--wait-s`.

        Raises:
            NotFlushedError: Milvus took the request and did not complete it in this time, or refused it, because it
                was flushed a moment ago.
        """
        limit_s, option = (self.connection.wait_s, " (--wait-s)") if wait_s is None else (wait_s, "")
        try:
            with self.session.calling(f"flush {name}", slow=True):
                self._client.flush(name, timeout=limit_s)
        except StoreError as error:
            if _FLUSH_LIMIT in str(error):
                raise NotFlushedError(str(error)) from error
            if _FLUSH_TIMEOUT not in str(error):
                raise
            raise NotFlushedError(
                f"{self.connection.shown}: Milvus did not write the rows of {name} to its storage within "
                f"{limit_s:g} s{option}; see the log of Milvus and the free space of its disks"
            ) from error

    def secure(self, *names: str) -> None:
        """Have Milvus write collections to its storage, in this order, so that they do not depend on Milvus' log.

        Milvus 2.4 and later flush a collection once in 10 s, so this is for the end of a series of writes. Milvus Lite
        writes at once. A Milvus that was killed may never finish a flush; the rows are in its log then. This method
        waits for one such flush only.
        """
        if self.connection.is_lite:
            return
        try:
            for name in names:
                self.flush(name, min(SECURE_S, self.connection.wait_s))
        except NotFlushedError as error:
            _log.warning("the command goes on, because the log of Milvus has the rows: %s", error)

    def segments(self, name: str) -> int:
        """Count the segments of a collection. Each segment has its own index, and a search visits all of them."""
        with self.session.calling(f"list the segments of {name}"):
            return len(self._client.list_persistent_segments(name, timeout=self._timeout))

    def join_segments(self, name: str, count: int) -> None:
        """Join the segments of all `count` rows into few large ones. Call this before the embeddings are indexed.

        Milvus joins segments by itself, but only after they have an index. Then it indexes the joined segments again
        while searches run, which takes as long as the first index build. So this method gives the segments a FLAT
        index, which costs nothing, joins them, and drops that index.
        """
        if self.connection.is_lite:
            return
        try:
            if self.segments(name) < 2:
                return
            self.index(name, "FLAT", {}, count, lambda rows: None)
            self.compact(name)
        except StoreUnavailableError:
            raise
        except StoreError as error:  # the user may lack the right to compact, and the build can go on without it
            _log.warning("%s: segments could not be joined; Milvus may join them later: %s", name, error)
        self.drop_index(name)

    def compact(self, name: str) -> None:
        """Join small segments and remove deleted rows from disk.

        Raises:
            UnfinishedError: Milvus took the request, but did not complete it within `--wait-s`.
        """
        with self.session.calling(f"compact {name}"):
            job = self._client.compact(name, timeout=self._timeout)

        def completed() -> bool:
            with self.session.calling(f"ask for the progress of compacting {name}"):
                return bool(self._client.get_compaction_state(job, timeout=self._timeout) != "Executing")

        try:
            _ask_until(completed, stop_after_delay(self.connection.wait_s))
        except RetryError as error:
            raise UnfinishedError(
                f"compacting {name} is not done after {self.connection.wait_s:g} s (--wait-s)"
            ) from error

    def index(self, name: str, index_type: str, params: Params, count: int, on_progress: Callable[[int], None]) -> None:
        """Index the embeddings and wait until all `count` rows are indexed (`IndexWait` says how the wait ends)."""
        self.start_index(name, EMBEDDING, index_type, params)
        wait = IndexWait(f"{self.connection.shown}: the {index_type} index of {name}", count, self.connection.wait_s)

        def is_over() -> bool:
            with self.session.calling(f"describe the index of {name}"):
                described = self._client.describe_index(name, EMBEDDING, timeout=self._timeout)
            over = wait.is_over(described)
            on_progress(wait.indexed)
            return over

        _ask_until(is_over, lambda _: False)

    def start_index(self, name: str, vector: str, index_type: str, params: Params) -> None:
        """Start the index of a vector field, without waiting for it."""
        indexes = self._client.prepare_index_params()
        indexes.add_index(vector, index_name=vector, index_type=index_type, metric_type=METRIC, params=dict(params))
        with self.session.calling(f"index {name}"):
            self._client.create_index(name, indexes, timeout=self._timeout, sync=False)

    def load(self, name: str) -> None:
        """Load a collection into memory, which searches and counts need. It may be loaded already."""
        with self.session.calling(f"load {name}", slow=True):
            self._client.load_collection(name, timeout=self.connection.wait_s)

    def release(self, name: str) -> None:
        """Release a collection from memory. It is no error if it is not loaded."""
        with self.session.calling(f"release {name}"):
            self._client.release_collection(name, timeout=self._timeout)

    def drop_index(self, name: str) -> None:
        """Drop the index of a collection that is not loaded. It is no error if there is none."""
        with self.session.calling(f"drop the index of {name}"):
            self._client.drop_index(name, EMBEDDING, timeout=self._timeout)

    def count(self, name: str, filter_: str = "") -> int:
        """Count the rows of a loaded collection that match a filter, exactly."""
        with self.session.calling(f"count {name}"):
            answer = self._client.query(
                name, filter=filter_, output_fields=["count(*)"], consistency_level="Strong", timeout=self._timeout
            )
        return int(answer[0]["count(*)"])

    def changes(self, collection: str) -> Changes:
        """Count the changes in the journal of an item collection. This loads the journal."""
        name = journal_of(collection)
        if name not in self.collections():
            return Changes()
        self.create_journal(collection)
        with ThreadPoolExecutor(len(COUNTED)) as pool:  # an exact count waits 0.2 s for Milvus' clock
            counts = pool.map(lambda filter_: self.count(name, filter_), COUNTED.values())
            return Changes(**dict(zip(COUNTED, counts, strict=True)))

    def vectors(self, name: str, item_id: Int64) -> dict[int, Float32]:
        """Read the stored embeddings of items, by id. Missing items are left out."""
        with self.session.calling(f"read from {name}"):
            rows = self._client.query(
                name, ids=item_id.tolist(), output_fields=[EMBEDDING], consistency_level="Strong", timeout=self._timeout
            )
        return {row[ITEM_ID]: np.asarray(row[EMBEDDING], np.float32) for row in rows}

    def search(self, name: str, queries: Float32, limit: int, params: Params) -> list[list[int]]:
        """Return the ids of the items nearest to each query, best first. `queries` is [Q, D] float32."""
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

    def search_columns(self, name: str, queries: Float32, limit: int, params: Params) -> Hits:
        """Search as a server does, and return the hits in columns. `queries` is [Q, D] float32.

        This does not create pymilvus' result objects, which takes longer than the search. It may be called from
        several threads.
        """
        request = Prepare.search_requests_with_expr(
            name,
            anns_field=EMBEDDING,
            param={"metric_type": METRIC, "params": wide_enough(params, limit)},
            limit=limit,
            data=queries,
            expr="",
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

    def alias(self, alias: str = ALIAS) -> str | None:
        """Return the collection that an alias points to, or None without the alias."""
        with self.session.calling(f"look up alias {alias}"):
            try:
                # DescribeAlias of 2.3.5 looks in the default database only
                return str(self._client.describe_collection(alias, timeout=self._timeout)["collection_name"])
            except MilvusException as error:
                if is_missing(error):
                    return None
                raise

    def point_alias(self, name: str, alias: str = ALIAS) -> None:
        """Point an alias to a collection. The alias may point to another one, a dropped one, or not exist."""
        with self.session.calling(f"point alias {alias} to {name}"):
            try:
                self._client.alter_alias(name, alias, timeout=self._timeout)
            except MilvusException as error:
                if not is_missing(error):
                    raise
                self._client.create_alias(name, alias, timeout=self._timeout)

    def drop_alias(self, alias: str = ALIAS) -> None:
        """Drop an alias."""
        with self.session.calling(f"drop alias {alias}"):
            self._client.drop_alias(alias, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Drop a collection with its record and journal. The caller makes sure that it is not the released one.

        The record is deleted first. Otherwise an interrupted drop could leave a record that the next collection of the
        same name would inherit.
        """
        for doomed in (name, journal_of(name)) if is_item_collection(name) else (name,):
            self.records.delete(doomed)
            with self.session.calling(f"drop {doomed}"):
                self._client.drop_collection(doomed, timeout=self._timeout)


def _ask_until(done: Callable[[], bool], stop: Callable[[RetryCallState], bool]) -> None:
    """Wait until `done` returns true, with pauses that grow to 2 s. Raises RetryError."""
    Retrying(
        retry=retry_if_result(lambda is_done: not is_done), wait=wait_exponential(multiplier=0.1, max=2), stop=stop
    )(done)


def _plain(row: Row) -> Row:
    plain: dict[str, Any] = {
        name: value if isinstance(value, str | int | float | bool) else list(value) for name, value in row.items()
    }
    if EMBEDDING in row:
        plain[EMBEDDING] = np.asarray(row[EMBEDDING], np.float32)
    return plain

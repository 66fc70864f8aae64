"""The serving path: histories -> interest vectors -> nearest items -> one ranked list a user.

One encode and one search for the whole batch, never one per user. Knows neither protobuf nor gRPC nor pymilvus.
"""

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64, pad_last
from server.errors import DeadlineExceededError, StoreUnavailableError
from server.merge import Exclusions, Fate, Merged, merge
from server.release import Popular, Release
from server.request import Query, UserQuery
from server.store import Hits, ItemStore

UNKNOWN_LISTED = 100
"""Unknown ids that an answer lists per user."""


class Status(IntEnum):
    """What became of a user; the numbers are those of recall.v1.UserStatus."""

    OK = 1
    EMPTY_HISTORY = 2
    ALL_UNKNOWN = 3
    INVALID = 4


@dataclass(frozen=True)
class UserResult:
    """One user's candidates, best first; the three arrays are parallel."""

    item_ids: Int64
    scores: Float32
    interest: Int64
    status: Status
    unknown: Int64
    """History entries that the model does not know, repeats included."""
    detail: str = ""

    @property
    def fallback(self) -> bool:
        """Whether the candidates are the popular list."""
        return self.status in (Status.EMPTY_HISTORY, Status.ALL_UNKNOWN)


@dataclass(frozen=True)
class Trace:
    """The steps behind a batch of one user, for Explain."""

    used_hist_item: Int64
    """What the model looked at, oldest first."""
    interest_vectors: Float32
    """[Q, D], those that were searched."""
    interest: Int64
    """[Q], their numbers."""
    hits: Hits
    fate: Int64
    """[H], the `Fate` of each hit."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds."""

    queue_ms: float
    encode_ms: float
    search_ms: float
    merge_ms: float

    @property
    def total_ms(self) -> float:
        """All of it."""
        return self.queue_ms + self.encode_ms + self.search_ms + self.merge_ms


@dataclass(frozen=True)
class Outcome:
    """The answer to a query."""

    results: list[UserResult]
    timings: Timings
    trace: Trace


@dataclass(frozen=True)
class _Batch:
    """The users of a query that the model can encode ("active"), as arrays."""

    status: list[Status]
    """Of every user of the query."""
    active: Int64
    """[B] positions in the query."""
    hist_index: Int64
    """[B, L]."""
    seq_len: Int64
    """[B]."""
    unknown: list[Int64]
    """Of every user of the query."""


class CandidatePipeline:
    """Runs queries against a release. Holds no state of its own between them."""

    def __init__(self, store: ItemStore, encode_on: Executor, search_timeout_ms: int, max_overfetch: int) -> None:
        """`encode_on` must have one thread: encoders need not be thread-safe."""
        self._store = store
        self._encode_on = encode_on
        self._search_timeout_s = search_timeout_ms / 1000
        self._max_overfetch = max_overfetch

    async def run(self, release: Release, query: Query, remaining_s: float | None) -> Outcome:
        """Answer a query.

        Args:
            release: what to encode and search with; used from beginning to end.
            query: a valid request.
            remaining_s: time left to the caller; None without a deadline.

        Raises:
            InvalidRequestError: Milvus cannot use the filter.
            DeadlineExceededError: the caller's time ran out on the way.
            StoreError: Milvus failed.
        """
        arrived = time.perf_counter()
        batch = _prepare(release, query)
        vectors, started = await asyncio.get_running_loop().run_in_executor(
            self._encode_on, _encode, release, batch.hist_index, batch.seq_len
        )
        encoded = time.perf_counter()
        user, interest = np.nonzero(np.any(vectors, axis=2))  # all-zero interests find nothing
        excluded = _exclusions(query, batch.active)
        limit = query.top_k + min(self._max_overfetch, int(np.bincount(excluded.user, minlength=1).max()))
        hits = await self._search(release, vectors[user, interest], limit, query.filter, remaining_s, arrived)
        searched = time.perf_counter()
        merged = await asyncio.to_thread(  # a large one would hold up everybody else's calls
            merge, hits, user, interest, len(batch.active), query.top_k, query.strategy, excluded
        )
        popular = await self._popular(release, query, batch)
        results = _results(query, batch, merged, popular)
        used = release.vocabulary.item_id[batch.hist_index[batch.hist_index > 0] - 1]
        trace = Trace(used, vectors[user, interest], interest, hits, merged.fate)
        stages = np.diff([arrived, started, encoded, searched, time.perf_counter()]) * 1000
        return Outcome(results, Timings(*stages.tolist()), trace)

    async def _search(
        self, release: Release, vectors: Float32, limit: int, filter_: str, remaining_s: float | None, arrived: float
    ) -> Hits:
        if not len(vectors):
            return Hits(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))
        left = self._search_timeout_s
        if remaining_s is not None:
            left = min(left, remaining_s - (time.perf_counter() - arrived))
            if left <= 0:
                raise DeadlineExceededError(f"the deadline of {remaining_s * 1000:.0f} ms passed before the search")
        params = dict(release.fingerprint.search_params)
        try:
            return await self._store.search(release.collection, vectors, limit, filter_, params, left)
        except StoreUnavailableError as error:
            if remaining_s is not None and time.perf_counter() - arrived >= remaining_s:
                raise DeadlineExceededError(f"the deadline passed in the search, after {left * 1000:.0f} ms") from error
            raise

    async def _popular(self, release: Release, query: Query, batch: _Batch) -> Popular:
        """What users without a usable history get: the popular items that pass the filter."""
        wanted = any(status in (Status.EMPTY_HISTORY, Status.ALL_UNKNOWN) for status in batch.status)
        if not query.filter or not wanted:
            return release.popular
        passing = await self._store.matching(release.collection, release.popular.item_ids.tolist(), query.filter)
        keep = np.isin(release.popular.item_ids, list(passing))
        return Popular(release.popular.item_ids[keep], release.popular.scores[keep])


def _prepare(release: Release, query: Query) -> _Batch:
    """Look all histories up at once, drop what is unknown, keep the newest `maxlen`."""
    lengths = [len(user.hist_item) for user in query.users]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    hist_item = np.concatenate([user.hist_item for user in query.users])
    item_index = release.vocabulary.item_index(hist_item)
    known = item_index > 0
    known_offsets = np.concatenate([[0], np.cumsum(known)])[offsets]
    hist_index, seq_len = pad_last(item_index[known], known_offsets, release.hyper_parameters.maxlen)
    status = [_status(user, int(length)) for user, length in zip(query.users, seq_len, strict=True)]
    unknown = [hist_item[start:end][~known[start:end]] for start, end in pairwise(offsets)]
    active = np.flatnonzero(seq_len)
    # Always maxlen wide: a narrower batch would round differently, and an answer must not depend on its neighbours.
    return _Batch(status, active, hist_index[active], seq_len[active], unknown)


def _status(user: UserQuery, known: int) -> Status:
    if user.invalid:
        return Status.INVALID
    if known:
        return Status.OK
    return Status.ALL_UNKNOWN if len(user.hist_item) else Status.EMPTY_HISTORY


def _encode(release: Release, hist_index: Int64, seq_len: Int64) -> tuple[Float32, float]:
    started = time.perf_counter()
    if not len(hist_index):
        shape = (0, release.hyper_parameters.num_interests, release.hyper_parameters.embedding_dim)
        return np.zeros(shape, np.float32), started
    return release.encoder.encode(hist_index, seq_len), started


def _exclusions(query: Query, active: Int64) -> Exclusions:
    """What the active users must not get, without repeats; history first, so that it is named as the reason."""
    user, item_ids, fate = [], [], []
    for number, position in enumerate(active):
        asked = query.users[position]
        lists = [(Fate.EXCLUDED, asked.exclude)]
        if query.exclude_history:
            lists.insert(0, (Fate.HISTORY, asked.hist_item))
        joined = np.concatenate([ids for _, ids in lists])
        distinct, first = np.unique(joined, return_index=True)
        item_ids.append(distinct)
        fate.append(np.repeat([reason for reason, _ in lists], [len(ids) for _, ids in lists])[first])
        user.append(np.full(len(distinct), number))
    if not user:
        nothing = np.zeros(0, np.int64)
        return Exclusions(nothing, nothing, nothing)
    return Exclusions(np.concatenate(user), np.concatenate(item_ids), np.concatenate(fate))


def _results(query: Query, batch: _Batch, merged: Merged, popular: Popular) -> list[UserResult]:
    place = dict(zip(batch.active.tolist(), range(len(batch.active)), strict=True))
    results = []
    for position, (user, status, unknown) in enumerate(zip(query.users, batch.status, batch.unknown, strict=True)):
        if status is Status.OK:
            own = slice(*merged.offsets[place[position] : place[position] + 2])
            item_ids, scores, interest = merged.item_ids[own], merged.scores[own], merged.interest[own]
        elif status is Status.INVALID:
            item_ids, scores, interest = popular.item_ids[:0], popular.scores[:0], merged.interest[:0]
        else:
            rows = np.flatnonzero(~np.isin(popular.item_ids, user.exclude))[: query.top_k]
            item_ids, scores, interest = popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1)
        detail = user.invalid
        if not detail and len(item_ids) < query.top_k:
            detail = f"{len(item_ids)} of {query.top_k}: filter and exclusions leave no more of the items fetched"
        results.append(UserResult(item_ids, scores, interest, status, unknown, detail))
    return results

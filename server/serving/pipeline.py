"""The serving path: histories -> interest vectors -> nearest items -> one ranked list a user.

One encode, one search and one merge for a whole batch of requests, never one per user. Knows neither protobuf nor gRPC
nor pymilvus.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, islice, pairwise
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.interests import OVERSEARCH, as_if_each_searched, leading
from mind.milvus.collection import MAX_HITS
from mind.sequences import Int64, pad_last
from server.edge.request import Query, UserQuery
from server.errors import DeadlineExceededError, StoreUnavailableError
from server.release import Popular, Release
from server.serving.batching import Batcher, Waiting
from server.serving.merge import Exclusions, Fate, Merged, merge
from server.serving.popular import PopularShelf
from server.store import ItemStore
from server.watching.telemetry import CALL_SPAN, SILENT, BatchTelemetry, Telemetry

P = ParamSpec("P")
T = TypeVar("T")

UNKNOWN_LISTED = 100
"""Unknown ids that an answer lists per user."""
ANSWER_S = 0.05
"""Time kept back from a caller's deadline to answer without Milvus, or half of it if that is less."""
TIMER_S = 0.01
"""How much too early a timeout may end a call."""
INLINE_ITEMS = 20_000
"""Hits, or clicks, that are looked at where they are, in 2 ms at most: a thread would cost more than it saves."""


class Status(IntEnum):
    """What became of a user; the numbers are those of recall.v1.UserStatus."""

    OK = 1
    EMPTY_HISTORY = 2
    ALL_UNKNOWN = 3
    INVALID = 4
    DEGRADED = 5
    UNKNOWN_USER = 6


FALLBACK = (Status.EMPTY_HISTORY, Status.ALL_UNKNOWN, Status.DEGRADED, Status.UNKNOWN_USER)
"""Of users whose candidates are the popular list."""


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
        return self.status in FALLBACK


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
    trace: Trace | None
    """Of a query that was to be explained."""


@dataclass(frozen=True)
class _Job:
    """A query and what to answer it with."""

    release: Release
    query: Query
    limit: int
    """Hits to fetch for each interest."""
    explain: bool
    span: Any
    """Of the call, if it is traced."""


@dataclass(frozen=True)
class _Batch:
    """The users of a batch that the model can encode ("active"), as arrays."""

    users: list[UserQuery]
    """All of them."""
    status: list[Status]
    """Of every user."""
    active: Int64
    """[B] positions in `users`."""
    hist_index: Int64
    """[B, L]."""
    seq_len: Int64
    """[B]."""
    unknown: list[Int64]
    """Of every user."""


async def _nothing() -> None:
    pass


class CandidatePipeline:
    """Runs queries against a release, those that wait at the same time together."""

    def __init__(
        self,
        store: ItemStore,
        encode_on: Executor,
        search_timeout_ms: int = 5_000,
        max_overfetch: int = 1_000,
        max_batch_users: int = 64,
        max_queued_users: int = 4_096,
        workers: int = 2,
        degraded: bool = False,
        telemetry: Telemetry = SILENT,
        on_encoder_lost: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """Make a pipeline; what is not named here is as in `server.settings`.

        Args:
            store: Milvus.
            encode_on: must have one thread, for encoders need not be thread-safe.
            telemetry: told what happens.
            on_encoder_lost: told when an encoder encodes nothing any more, as after a fault of its GPU.
        """
        self._on_encoder_lost = on_encoder_lost
        self._telemetry = telemetry
        self._store = store
        self._encode_on = encode_on
        self._search_timeout_s = search_timeout_ms / 1000
        self._max_overfetch = max_overfetch
        self._degraded = degraded
        self._popular_there = PopularShelf(store)
        self._batcher = Batcher(self._answer, max_batch_users, max_queued_users, workers)

    @property
    def queued_users(self) -> int:
        """Users that wait."""
        return self._batcher.queued_users

    def admit(self, users: int, remaining_s: float | None) -> None:
        """Turn a request away before it costs anything. Raises OverloadedError."""
        self._batcher.admit(users, remaining_s)

    async def run(self, release: Release, query: Query, remaining_s: float | None, explain: bool = False) -> Outcome:
        """Answer a query.

        Args:
            release: what to encode and search with; used from beginning to end.
            query: a valid request.
            remaining_s: time left to the caller; None without a deadline.
            explain: keep a trace, for a query of one user; such a query is answered alone.

        Raises:
            InvalidRequestError: Milvus cannot use the filter.
            OverloadedError: more is waiting than can be answered in time.
            DeadlineExceededError: the caller's time ran out on the way.
            StoreError: Milvus failed.
        """
        limit = query.top_k + min(self._max_overfetch, _overfetch(query))
        job = _Job(release, query, limit, explain, CALL_SPAN.get())
        group = (id(job) if explain else 0, id(release), query.filter, limit, query.top_k, query.strategy)
        answer = self._batcher.submit(job, len(query.users), group, remaining_s)
        if not self._degraded or explain or remaining_s is None:
            return await answer
        arrived = time.perf_counter()
        try:
            async with asyncio.timeout(remaining_s - min(ANSWER_S, remaining_s / 2)):
                return await answer
        except TimeoutError:  # others in its batch may have more time
            batch, popular = _prepare(release, query.users), self._popular_there.last(release)
            timings = Timings((time.perf_counter() - arrived) * 1000, 0.0, 0.0, 0.0)
            return _without_milvus(job, popular, zip(batch.status, batch.unknown, strict=True), timings)

    async def _answer(self, waiting: list[Waiting[_Job, Outcome]]) -> list[Outcome | Exception]:
        """Answer jobs that differ in nothing but their users."""
        calls, arrived = [each.ask.span for each in waiting], [each.arrived for each in waiting]
        release, users = waiting[0].ask.release, sum(each.users for each in waiting)
        with self._telemetry.batch(calls, arrived, users, release.model_version, release.collection) as watched:
            return await self._answer_watched(waiting, watched)

    async def _answer_watched(
        self, waiting: list[Waiting[_Job, Outcome]], watched: BatchTelemetry
    ) -> list[Outcome | Exception]:
        started = watched.started
        job, query = waiting[0].ask, waiting[0].ask.query
        sizes = [len(each.ask.query.users) for each in waiting]
        users = [user for each in waiting for user in each.ask.query.users]
        batch = await _computed(sum(len(user.hist_item) for user in users), _prepare, job.release, users)
        vectors = await self._encode(job.release, batch)
        encoded = watched.enter("search")
        deadline = max(each.deadline for each in waiting)
        try:
            user, interest, hits = await self._search(job, vectors, deadline)
            searched = watched.enter("merge")
            excluded = _exclusions(batch, [each.ask.query.exclude_history for each in waiting], sizes)
            how = query.top_k, query.strategy, excluded, job.explain
            merged = await _computed(len(hits.item_ids), merge, hits, user, interest, len(batch.active), *how)
            popular = await self._popular(job, batch, deadline)
        except StoreUnavailableError as error:
            watched.fail()
            stages = (encoded - started) * 1000, (time.perf_counter() - encoded) * 1000, 0.0
            return self._unsearched(waiting, batch, error, watched, stages)
        results = _results(query, batch, merged, popular)
        trace = None
        if merged.fate is not None:
            used = job.release.vocabulary.item_id[batch.hist_index[batch.hist_index > 0] - 1]
            trace = Trace(used, vectors[user, interest], interest, hits, merged.fate)
        _tell(watched, users, results)
        if self._telemetry.sampling and not query.filter:
            known = job.release.vocabulary, job.release.item_embedding
            self._telemetry.sampling.offer(vectors[user, interest], user, hits, query.top_k, *known)
        stages = (np.diff([started, encoded, searched, time.perf_counter()]) * 1000).tolist()
        return [
            Outcome(results[start:end], Timings((started - each.arrived) * 1000, *stages), trace)
            for each, (start, end) in zip(waiting, pairwise(accumulate(sizes, initial=0)), strict=True)
        ]

    def _unsearched(
        self,
        waiting: list[Waiting[_Job, Outcome]],
        batch: _Batch,
        error: StoreUnavailableError,
        watched: BatchTelemetry,
        stages: tuple[float, float, float],
    ) -> list[Outcome | Exception]:
        """What each caller gets while Milvus does not answer: the popular list if that will do, or else the error."""
        told, popular = zip(batch.status, batch.unknown, strict=True), self._popular_there.last(waiting[0].ask.release)
        outcomes: list[Outcome | Exception] = []
        answered: list[UserResult] = []
        users: list[UserQuery] = []
        for each in waiting:
            job, own = each.ask, list(islice(told, len(each.ask.query.users)))
            searched = job.query.filter or any(status is Status.OK for status, _ in own)
            if searched and (job.explain or not self._degraded):
                outcomes.append(_late(each, error))
                continue
            timings = Timings((watched.started - each.arrived) * 1000, *stages)
            outcomes.append(outcome := _without_milvus(job, popular, own, timings))
            answered += outcome.results
            users += job.query.users
        if users:
            _tell(watched, users, answered)
        return outcomes

    async def _encode(self, release: Release, batch: _Batch) -> Float32:
        if not len(batch.active):
            return np.zeros((0, 1, release.hyper_parameters.embedding_dim), np.float32)
        if release.encoder.inline:
            return release.encoder.encode(batch.hist_index, batch.seq_len)
        try:
            return await self._encode_on_thread(release, batch.hist_index, batch.seq_len)
        except Exception:
            try:
                await self._encode_on_thread(release, *release.golden_history)
            except Exception:
                await self._on_encoder_lost()
            raise

    async def _encode_on_thread(self, release: Release, hist_index: Int64, seq_len: Int64) -> Float32:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._encode_on, release.encoder.encode, hist_index, seq_len)

    async def _search(self, job: _Job, vectors: Float32, deadline: float) -> tuple[Int64, Int64, Hits]:
        """User and number, [Q] each, of the interests that are not zero, and the hits of these."""
        user, interest = np.nonzero(np.any(vectors, axis=2))
        fingerprint = job.release.fingerprint
        leads = leading(vectors, fingerprint.interest_cosine)
        if not leads.any():
            return user, interest, Hits(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))
        params = (job.query.filter and fingerprint.filter_search_params) or fingerprint.search_params
        limit = job.limit if fingerprint.interest_cosine >= 1 else min(MAX_HITS, job.limit * OVERSEARCH)
        hits = await self._store.search(
            job.release.collection, vectors[leads], limit, job.query.filter, dict(params), self._timeout_s(deadline)
        )
        if fingerprint.interest_cosine >= 1:
            return user, interest, hits
        known = job.release.vocabulary, job.release.item_embedding
        size = len(hits.item_ids) * vectors.shape[1]
        return user, interest, await _computed(size, as_if_each_searched, hits, leads, vectors, *known, job.limit)

    def _timeout_s(self, deadline: float) -> float:
        return max(min(self._search_timeout_s, deadline - time.perf_counter()), 0.001)

    async def _popular(self, job: _Job, batch: _Batch, deadline: float) -> Popular:
        """What users without a usable history get: the popular items that pass the filter."""
        popular, filter_ = job.release.popular, job.query.filter
        wanted = any(status in FALLBACK for status in batch.status)
        if not wanted:
            return popular
        if not filter_:
            return await self._popular_there.of(job.release)
        matching = self._store.matching(job.release.collection, popular.item_ids.tolist(), filter_)
        try:
            passing = await asyncio.wait_for(matching, self._timeout_s(deadline))
        except TimeoutError as error:
            raise StoreUnavailableError("Milvus does not answer: the filter of the popular list timed out") from error
        keep = np.isin(popular.item_ids, list(passing))
        return Popular(popular.item_ids[keep], popular.scores[keep])


def _tell(watched: BatchTelemetry, users: list[UserQuery], results: list[UserResult]) -> None:
    statuses = [result.status for result in results]
    by_status = [(status.name, statuses.count(status)) for status in Status]
    watched.answered(by_status, [user.hist_item for user in users], [result.unknown for result in results])


def _without_milvus(job: _Job, popular: Popular, told: Iterable[tuple[Status, Int64]], timings: Timings) -> Outcome:
    """What can be answered while Milvus does not: the popular list. `told`: status and unknown ids of every user."""
    users = zip(job.query.users, told, strict=True)
    return Outcome([_degraded(job.query, popular, user, *known) for user, known in users], timings, None)


def _degraded(query: Query, popular: Popular, user: UserQuery, status: Status, unknown: Int64) -> UserResult:
    """One user's share of the popular list; none of it where there is a filter, which only Milvus can check."""
    excluded = np.concatenate([user.exclude, user.hist_item]) if query.exclude_history else user.exclude
    rows = np.flatnonzero(~np.isin(popular.item_ids, excluded))[: query.top_k]
    detail = user.invalid or user.unread
    if status is Status.INVALID:
        rows = rows[:0]
    elif query.filter:
        status, rows = Status.DEGRADED, rows[:0]
        detail = "Milvus does not answer, and only Milvus can check a filter"
    elif status is Status.OK:
        status, detail = Status.DEGRADED, "Milvus does not answer"
    if not detail and len(rows) < query.top_k:
        detail = _fewer(len(rows), query.top_k)
    return UserResult(popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1), status, unknown, detail)


def _fewer(found: int, top_k: int) -> str:
    return f"{found} of {top_k}: filter and exclusions leave no more of the items fetched"


def _late(waiting: Waiting[_Job, Outcome], error: StoreUnavailableError) -> Exception:
    """What an unanswered search is to one caller: its own deadline, if that has passed, or else Milvus' fault."""
    if time.perf_counter() < waiting.deadline - TIMER_S:
        return error
    waited_ms = (waiting.deadline - waiting.arrived) * 1000
    return DeadlineExceededError(f"the deadline of {waited_ms:.0f} ms passed in the search")


async def _computed(items: int, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function makes of that many items: here, or in a thread if it would hold up everybody else's calls."""
    if items <= INLINE_ITEMS:
        return compute(*args, **kwargs)
    return await asyncio.to_thread(compute, *args, **kwargs)


def _overfetch(query: Query) -> int:
    """Hits that exclusions may take away from an interest, rounded up to a power of two so that requests agree."""
    most = max(len(user.exclude) + (len(user.hist_item) if query.exclude_history else 0) for user in query.users)
    return 1 << (most - 1).bit_length() if most else 0


def _prepare(release: Release, users: list[UserQuery]) -> _Batch:
    """Look all histories up at once, drop what is unknown, keep the newest `maxlen`."""
    lengths = [len(user.hist_item) for user in users]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    hist_item = np.concatenate([user.hist_item for user in users])
    item_index = release.vocabulary.item_index(hist_item)
    known = item_index > 0
    known_offsets = np.concatenate([[0], np.cumsum(known)])[offsets]
    hist_index, seq_len = pad_last(item_index[known], known_offsets, release.hyper_parameters.maxlen)
    status = [_status(user, length) for user, length in zip(users, seq_len.tolist(), strict=True)]
    if known.all():
        unknown = [hist_item[:0]] * len(users)
    else:
        unknown = [hist_item[start:end][~known[start:end]] for start, end in pairwise(offsets.tolist())]
    active = np.flatnonzero(seq_len)
    # Always maxlen wide: a narrower batch would round differently, and an answer must not depend on its neighbours.
    return _Batch(users, status, active, hist_index[active], seq_len[active], unknown)


def _status(user: UserQuery, known: int) -> Status:
    if user.invalid:
        return Status.INVALID
    if user.unread:
        return Status.DEGRADED
    if user.unknown:
        return Status.UNKNOWN_USER
    if known:
        return Status.OK
    return Status.ALL_UNKNOWN if len(user.hist_item) else Status.EMPTY_HISTORY


def _exclusions(batch: _Batch, exclude_history: list[bool], sizes: list[int]) -> Exclusions:
    """What the active users must not get, without repeats; history first, so that it is named as the reason."""
    without_history = np.repeat(exclude_history, sizes)
    user, item_ids, fate = [], [], []
    for number, position in enumerate(batch.active.tolist()):
        asked = batch.users[position]
        if not len(asked.exclude) and not without_history[position]:
            continue
        lists = [(Fate.EXCLUDED, asked.exclude)]
        if without_history[position]:
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
    own_hits = (slice(start, end) for start, end in pairwise(merged.offsets.tolist()))  # of the active users, in turn
    results = []
    for user, status, unknown in zip(batch.users, batch.status, batch.unknown, strict=True):
        if status is Status.OK:
            own = next(own_hits)
            item_ids, scores, interest = merged.item_ids[own], merged.scores[own], merged.interest[own]
        elif status is Status.INVALID:
            item_ids, scores, interest = popular.item_ids[:0], popular.scores[:0], merged.interest[:0]
        else:
            rows = np.flatnonzero(~np.isin(popular.item_ids, user.exclude))[: query.top_k]
            item_ids, scores, interest = popular.item_ids[rows], popular.scores[rows], np.full(len(rows), -1)
        detail = user.invalid or user.unread
        if not detail and len(item_ids) < query.top_k:
            detail = _fewer(len(item_ids), query.top_k)
        results.append(UserResult(item_ids, scores, interest, status, unknown, detail))
    return results

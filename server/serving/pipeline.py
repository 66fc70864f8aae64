"""The serving path: requests that wait together are encoded, searched, merged and answered as one batch.

One encode, one search and one merge for a whole batch, never one per user. Knows nothing of protobuf, gRPC or pymilvus.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise
from typing import Any

from mind.artifact import Float32
from server.errors import DeadlineExceededError, StoreUnavailableError
from server.ports import ItemStore
from server.release import Popular, Release
from server.serving.answer import FALLBACK, Outcome, Status, Timings, UserResult
from server.serving.batching import Batcher, Waiting
from server.serving.encode import EncodeStage
from server.serving.filtered import search_matches
from server.serving.inputs import Inputs, exclusions, look_up, overfetch
from server.serving.matching import Matches, MatchingItems
from server.serving.merge import merge
from server.serving.offload import computed
from server.serving.popular import PopularItems, popular_among
from server.serving.question import Query, UserQuery
from server.serving.results import results, results_without_milvus, trace
from server.serving.search import Found, search
from server.watching.telemetry import CALL_SPAN, SILENT, BatchTelemetry, Telemetry

ANSWER_S = 0.05
"""Seconds kept back from a caller's deadline to answer without Milvus, or half of the deadline if that is less."""
TIMER_S = 0.01
"""How much before its time a timeout may end a call."""


@dataclass(frozen=True)
class _Job:
    """A query and what to answer it with."""

    release: Release
    query: Query
    limit: int
    """Hits to fetch for each interest."""
    explain: bool
    span: Any
    """Span of the call; None if it is not traced."""
    matches: Matches | None = None
    """The items that match the filter; None without a filter."""
    failure: StoreUnavailableError | None = None
    """Why it is not known which items match."""
    matching_ms: float = 0.0
    """How long it took to learn which items match."""

    @property
    def group(self) -> Hashable:
        """Jobs of one group are answered together: those of one search of Milvus, or those searched in memory."""
        if self.explain or self.failure:
            return id(self)
        limit = self.limit if self.matches is None else 0
        return id(self.release), self.matches is None, limit, self.query.top_k, self.query.strategy


async def _nothing() -> None:
    pass


class CandidatePipeline:
    """Answers queries from a release; those that wait at the same time share a batch."""

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
        """Make a pipeline; arguments that are not named here are options of `server.settings`.

        Args:
            store: Milvus.
            encode_on: must have one thread, because an encoder need not be thread-safe.
            telemetry: is told what happens.
            on_encoder_lost: called when an encoder encodes nothing any more, as after a GPU fault.
        """
        self._store = store
        self._encode = EncodeStage(encode_on, on_encoder_lost).encode
        self._popular_items = PopularItems(store)
        self._matching_items = MatchingItems(store)
        self._search_timeout_s = search_timeout_ms / 1000
        self._max_overfetch = max_overfetch
        self._degraded = degraded
        self._telemetry = telemetry
        self._batcher = Batcher(self._answer, max_batch_users, max_queued_users, workers)

    @property
    def queued_users(self) -> int:
        """Users that wait for a batch."""
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
        if not self._degraded or explain or remaining_s is None:
            return await self._run(release, query, remaining_s, explain)
        arrived = time.perf_counter()
        try:
            async with asyncio.timeout(remaining_s - min(ANSWER_S, remaining_s / 2)):
                return await self._run(release, query, remaining_s, explain)
        except TimeoutError:  # the batch goes on: others in it may have more time
            inputs, popular = look_up(release, query.users), self._popular_items.last(release)
            timings = Timings((time.perf_counter() - arrived) * 1000, 0.0, 0.0, 0.0)
            told = zip(inputs.status, inputs.unknown, strict=True)
            return Outcome(results_without_milvus(query, popular, told), timings, None)

    async def _run(self, release: Release, query: Query, remaining_s: float | None, explain: bool) -> Outcome:
        limit = query.top_k + min(self._max_overfetch, overfetch(query))
        job = _Job(release, query, limit, explain, CALL_SPAN.get())
        if query.filter:
            arrived = time.perf_counter()
            job = await self._with_matches(job, remaining_s)
            remaining_s = None if remaining_s is None else remaining_s - (time.perf_counter() - arrived)
        return await self._batcher.submit(job, len(query.users), job.group, remaining_s)

    async def _with_matches(self, job: _Job, remaining_s: float | None) -> _Job:
        """The job with the items that match its filter, or with the reason why Milvus did not tell them."""
        started = time.perf_counter()
        deadline = started + remaining_s if remaining_s is not None else math.inf
        time_left_s = self._search_time_left_s(deadline)
        try:
            job = replace(job, matches=await self._matching_items.of(job.release, job.query.filter, time_left_s))
        except StoreUnavailableError as error:
            job = replace(job, failure=error)
        return replace(job, matching_ms=(time.perf_counter() - started) * 1000)

    async def _answer(self, batch: list[Waiting[_Job, Outcome]]) -> list[Outcome | Exception]:
        """Answer the jobs of a batch, which differ in nothing but their users and filters."""
        spans, arrived = [each.ask.span for each in batch], [each.arrived for each in batch]
        release, users = batch[0].ask.release, sum(each.users for each in batch)
        with self._telemetry.batch(spans, arrived, users, release.model_version, release.collection) as watched:
            return await self._answer_watched(batch, watched)

    async def _answer_watched(
        self, batch: list[Waiting[_Job, Outcome]], watched: BatchTelemetry
    ) -> list[Outcome | Exception]:
        job, query, release = batch[0].ask, batch[0].ask.query, batch[0].ask.release
        sizes = [len(each.ask.query.users) for each in batch]
        users = [user for each in batch for user in each.ask.query.users]
        deadline = max(each.deadline for each in batch)

        inputs = await computed(sum(len(user.hist_item) for user in users), look_up, release, users)
        vectors = await self._encode(release, inputs)
        encoded = watched.enter("search")
        matches = [each.ask.matches for each in batch for _ in each.ask.query.users]
        try:
            if job.failure:
                raise job.failure
            found = await self._search(release, vectors, batch, matches, inputs, deadline)
            searched = watched.enter("merge")
            excluded = exclusions(inputs, [each.ask.query.exclude_history for each in batch], sizes)
            how = len(inputs.active), query.top_k, query.strategy, excluded, job.explain
            merged = await computed(len(found.hits.item_ids), merge, found.hits, found.user, found.interest, *how)
            popular = await self._popular(release, matches, inputs)
        except StoreUnavailableError as error:
            watched.fail()
            stages = (encoded - watched.started) * 1000, (time.perf_counter() - encoded) * 1000, 0.0
            return self._answer_unsearched(batch, inputs, error, watched, stages)
        answered = results(query.top_k, inputs, merged, popular, matches)

        steps = None if merged.fate is None else trace(release, inputs, vectors, found, merged.fate)
        _tell(watched, users, answered)
        if self._telemetry.sampling:
            known = release.vocabulary, release.item_embedding
            among = [own.rows for own in (matches[user] for user in inputs.active.tolist()) if own is not None]
            searched_with = vectors[found.user, found.interest]
            self._telemetry.sampling.offer(searched_with, found.user, found.hits, query.top_k, *known, among)
        ended = time.perf_counter()
        stages = (encoded - watched.started) * 1000, (searched - encoded) * 1000, (ended - searched) * 1000
        return [
            Outcome(answered[start:end], _timings(each, watched.started, stages), steps)
            for each, (start, end) in zip(batch, pairwise(accumulate(sizes, initial=0)), strict=True)
        ]

    def _answer_unsearched(
        self,
        batch: list[Waiting[_Job, Outcome]],
        inputs: Inputs,
        error: StoreUnavailableError,
        watched: BatchTelemetry,
        stages: tuple[float, float, float],
    ) -> list[Outcome | Exception]:
        """Answer a batch while Milvus does not: each caller gets the popular list if that will do, else the error."""
        told = zip(inputs.status, inputs.unknown, strict=True)
        popular = self._popular_items.last(batch[0].ask.release)
        outcomes: list[Outcome | Exception] = []
        answered: list[UserResult] = []
        users: list[UserQuery] = []
        for each in batch:
            job, own = each.ask, list(islice(told, len(each.ask.query.users)))
            needs_search = job.query.filter or any(status is Status.OK for status, _ in own)
            if needs_search and (job.explain or not self._degraded):
                outcomes.append(_late(each, error))
                continue
            timings = _timings(each, watched.started, stages)
            outcomes.append(outcome := Outcome(results_without_milvus(job.query, popular, own), timings, None))
            answered += outcome.results
            users += job.query.users
        if users:
            _tell(watched, users, answered)
        return outcomes

    async def _search(
        self,
        release: Release,
        vectors: Float32,
        batch: list[Waiting[_Job, Outcome]],
        matches: list[Matches | None],
        inputs: Inputs,
        deadline: float,
    ) -> Found:
        """Search for the active users of a batch: all with filters, or all without."""
        job, time_left_s = batch[0].ask, self._search_time_left_s(deadline)
        limit = max(each.ask.limit for each in batch)
        if job.matches is None:
            return await search(self._store, release, vectors, limit, time_left_s)
        own = [of_user for of_user in (matches[user] for user in inputs.active.tolist()) if of_user is not None]
        return await search_matches(release, vectors, own, limit)

    async def _popular(self, release: Release, matches: list[Matches | None], inputs: Inputs) -> list[Popular]:
        """What each user gets who has no usable history: the popular items that match the user's filter."""
        if not any(status in FALLBACK for status in inputs.status):
            return [release.popular] * len(matches)
        if matches[0] is None:
            return [await self._popular_items.of(release)] * len(matches)
        of = {id(each): popular_among(release, each) for each in matches if each is not None}
        return [of[id(each)] for each in matches]

    def _search_time_left_s(self, deadline: float) -> float:
        return max(min(self._search_timeout_s, deadline - time.perf_counter()), 0.001)


def _tell(watched: BatchTelemetry, users: list[UserQuery], answered: list[UserResult]) -> None:
    statuses = [result.status for result in answered]
    by_status = [(status.name, statuses.count(status)) for status in Status]
    watched.answered(by_status, [user.hist_item for user in users], [result.unknown for result in answered])


def _timings(waiting: Waiting[_Job, Outcome], started: float, stages: tuple[float, float, float]) -> Timings:
    """The timings of one job of a batch that started then. To ask what matches its filter is part of its search."""
    encode_ms, search_ms, merge_ms = stages
    return Timings((started - waiting.arrived) * 1000, encode_ms, search_ms + waiting.ask.matching_ms, merge_ms)


def _late(waiting: Waiting[_Job, Outcome], error: StoreUnavailableError) -> Exception:
    """The error of an unanswered search for one caller: its own deadline if that has passed, or else Milvus' fault."""
    if time.perf_counter() < waiting.deadline - TIMER_S:
        return error
    waited_ms = (waiting.deadline - waiting.arrived) * 1000
    return DeadlineExceededError(f"the deadline of {waited_ms:.0f} ms passed in the search")

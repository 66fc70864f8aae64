"""Answers requests for similar items. Requests that wait at the same time are compared with all items together.

They share no batch with requests for candidates, whose searches use an index. This module knows nothing of protobuf and
gRPC.
"""

import asyncio
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from server.errors import DeadlineExceededError, StoreUnavailableError
from server.release import Release
from server.serving.answer import Timings
from server.serving.batching import Batcher, Waiting
from server.serving.local import Known, LocalItems
from server.serving.matching import Matches, MatchingItems
from server.serving.similar import ItemQuery, ItemStatus, SimilarResult, similar_items
from server.settings import Settings
from server.watching.telemetry import SILENT, Telemetry

PART_PAIRS = 100_000_000
"""Pairs of query and item that are compared at a time, in 0.2 s on an idle core. After that, a batch may be abandoned.
"""
PART_ITEMS = 1_000
"""Most items of the queries that are compared at a time. Their neighbours take 25 MB, with 64 numbers an item."""
FROM_MEMORY = "Milvus does not answer: the items are as the server saw them last, without the newest changes"


@dataclass(frozen=True)
class _Job:
    release: Release
    known: Known
    """The items of the collection."""
    matches: Matches | None
    """Those that match the filter; None without a filter."""
    queries: list[ItemQuery]
    seen: bool
    """Whether the newest changes of items are known."""

    @property
    def group(self) -> Hashable:
        """Jobs of one group compare the same items."""
        return id(self.release), id(self.known.items), id(self.matches), self.seen


Answer = tuple[list[SimilarResult], Timings]


class SimilarItems:
    """Finds the items most similar to given ones."""

    def __init__(
        self, settings: Settings, local: LocalItems, matching: MatchingItems, telemetry: Telemetry = SILENT
    ) -> None:
        """Prepare to answer. `local` knows the items of collections, `matching` those that match filters."""
        self._local, self._matching, self._telemetry = local, matching, telemetry
        self._timeout_s = settings.search_timeout_ms / 1000
        self._degraded = settings.degraded
        limits = settings.max_batch_users, settings.max_queued_users, settings.search_workers
        self._batcher: Batcher[_Job, Answer] = Batcher(self._answer, *limits)

    @property
    def queued(self) -> int:
        """Queries that wait for a batch."""
        return self._batcher.queued_users

    def admit(self, queries: int, remaining_s: float | None) -> None:
        """Turn a request away before it costs anything. Raises OverloadedError."""
        self._batcher.admit(queries, remaining_s)

    async def run(self, release: Release, queries: list[ItemQuery], filter_: str, remaining_s: float | None) -> Answer:
        """Return the similar items of each query, and how long it took.

        Args:
            release: whose items are compared.
            queries: valid ones, and such as are marked as invalid.
            filter_: in canonical spelling; empty for none.
            remaining_s: time left to the caller; None without a deadline.

        Raises:
            FilterError: Milvus cannot use the filter.
            OverloadedError: more is waiting than can be answered in time.
            DeadlineExceededError: the caller's time ran out on the way.
            StoreError: Milvus failed.
        """
        started = time.perf_counter()
        deadline = math.inf if remaining_s is None else started + remaining_s
        seen = await self._seen(release, filter_, deadline)
        known, matches = self._local.known(release), None
        if filter_:
            matches = await self._matching.of(release, filter_, self._time_left_s(deadline))
        looked = Timings(0, 0, (time.perf_counter() - started) * 1000, 0)
        job = _Job(release, known, matches, queries, seen)
        left_s = None if remaining_s is None else deadline - time.perf_counter()
        results, timings = await self._batcher.submit(job, len(queries), job.group, left_s)
        return results, looked + timings

    async def _seen(self, release: Release, filter_: str, deadline: float) -> bool:
        """Whether the newest changes of items are known. While Milvus is away, the items that were seen last may do."""
        may_do = self._degraded and not filter_
        try:
            await self._local.catch_up(release, self._time_left_s(deadline) / (2 if may_do else 1))
        except StoreUnavailableError:
            if may_do and self._local.knows(release):
                return False
            if time.perf_counter() >= deadline:
                raise DeadlineExceededError("the deadline passed in Milvus") from None
            raise
        return True

    def _time_left_s(self, deadline: float) -> float:
        return max(min(self._timeout_s, deadline - time.perf_counter()), 0.001)

    async def _answer(self, batch: list[Waiting[_Job, Answer]]) -> list[Answer | Exception]:
        started = time.perf_counter()
        job = batch[0].ask
        queries = [query for each in batch for query in each.ask.queries]
        at_once = max(1, PART_PAIRS // max(1, len(job.known.items)))
        results: list[SimilarResult] = []
        for part in _parts(queries, at_once):
            if results and all(each.late for each in batch):
                raise DeadlineExceededError("the deadline passed in the search")
            known = job.known.items, job.matches
            results += await asyncio.to_thread(similar_items, job.release, *known, part, job.known.added)
        results = results if job.seen else [_degraded(result) for result in results]
        took_s = time.perf_counter() - started
        self._telemetry.similar(
            [started - each.arrived for each in batch], took_s, [each.status.name for each in results]
        )
        ends = accumulate((len(each.ask.queries) for each in batch), initial=0)
        return [
            (results[start:end], Timings((started - each.arrived) * 1000, 0, took_s * 1000, 0))
            for each, (start, end) in zip(batch, pairwise(ends), strict=True)
        ]


def _parts(queries: Sequence[ItemQuery], at_once: int) -> Iterator[list[ItemQuery]]:
    """Yield the queries in parts that are compared at a time, at most `at_once` of them each."""
    part, items = list[ItemQuery](), 0
    for query in queries:
        if part and (len(part) == at_once or items + len(query.item_ids) > PART_ITEMS):
            yield part
            part, items = [], 0
        part.append(query)
        items += len(query.item_ids)
    yield part


def _degraded(result: SimilarResult) -> SimilarResult:
    if result.status is not ItemStatus.OK:
        return result
    return replace(result, status=ItemStatus.DEGRADED, detail=result.detail or FROM_MEMORY)

"""The serving path: requests that wait together are encoded, searched, merged and answered as one batch.

One encode, one search and one merge for a whole batch, never one per user. Knows nothing of protobuf, gRPC or pymilvus.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice, pairwise

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.collection import MAX_HITS
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.errors import DeadlineExceededError, OverloadedError, StoreUnavailableError
from server.popular import Popular
from server.ports import ItemStore
from server.release import Release
from server.serving.answer import FALLBACK, Outcome, Status, Timings, UserResult
from server.serving.attributes import Attributes
from server.serving.batching import Batcher, Waiting
from server.serving.depth import Depth, exact_depth, first_depths, full_depth
from server.serving.encode import EncodeStage
from server.serving.filtered import search_matches
from server.serving.inputs import Inputs, exclusions, look_up
from server.serving.job import Job
from server.serving.local import LocalItems
from server.serving.matching import Matches, MatchingItems
from server.serving.merge import NOTHING_NEAR, NearHits, merge
from server.serving.neighbours import least_scores, near_hits
from server.serving.offload import computed
from server.serving.popular import PopularItems, popular_among
from server.serving.question import Query, Strategy, UserQuery
from server.serving.results import (
    cut_short,
    found_in_memory,
    results,
    results_without_milvus,
    trace,
    with_note,
    with_popular,
    without_places,
)
from server.serving.rules.boosts import Boosts, with_parts
from server.serving.rules.lift import Lift
from server.serving.rules.lifted import added_to, interests_of, with_lifted
from server.serving.rules.places import Places
from server.serving.rules.stage import RulesStage
from server.serving.rules.variety import rules_of
from server.serving.search import NOTHING, Found, search
from server.watching.telemetry import CALL_SPAN, SILENT, BatchTelemetry, Telemetry

ANSWER_S = 0.05
"""Seconds kept back from a caller's deadline to give the popular list, or half of the deadline if that is less."""
MEMORY_S, SCAN_BYTES_PER_S = 0.1, 6e8
"""Seconds kept back to search in memory before that, on a busy machine: so many, and those to look through the item
table at so many bytes a second. An idle machine looks through 15 times as many."""
AWAY_BATCH_USERS = 16
"""Most users who are searched for together in memory: with more, the first of them would wait too long."""
NEIGHBOUR_ITEMS = 100
"""To find a user's neighbours takes as long as to work through so many hits."""
RULE_S = 0.04
"""Seconds, twice the wait for newer attributes of popular items while Milvus does not answer."""
SHOWN_HITS = 4_096
"""Hits of an interest that Explain shows where rules made the search go deeper: its answer stays under 4 MB."""
TIMER_S = 0.01
"""How much before its time a timeout may end a call."""


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
        local: LocalItems | None = None,
        matching: MatchingItems | None = None,
        attributes: Attributes | None = None,
        popular: PopularItems | None = None,
        degraded: bool = False,
        search: str = "milvus",
        telemetry: Telemetry = SILENT,
        on_encoder_lost: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """Make a pipeline; arguments that are not named here are options of `server.settings`.

        Args:
            store: Milvus.
            encode_on: must have one thread, because an encoder need not be thread-safe.
            local: what is known of collections without asking Milvus; one of its own if None.
            matching: what is known of the items that match filters; one of its own if None.
            attributes: those of items, which rules need; one of its own if None.
            popular: the popular items that are left; one of its own if None.
            telemetry: is told what happens.
            on_encoder_lost: called when an encoder encodes nothing any more, as after a GPU fault.
        """
        self._store = store
        self._encode = EncodeStage(encode_on, on_encoder_lost).encode
        self._popular_items = popular or PopularItems(store)
        self._matching_items = matching or MatchingItems(store)
        self._search_timeout_s = search_timeout_ms / 1000
        self._max_overfetch = max_overfetch
        self._local = local or LocalItems(store)
        attributes = attributes or Attributes(store)
        self._rules = RulesStage(attributes, self._local)
        self._boosts = Boosts(self._matching_items, attributes, self._local)
        self._places = Places(self._matching_items, self._local)
        self._degraded = degraded
        self._search_memory = search == "local"
        self._telemetry = telemetry
        batches = max_batch_users, max_queued_users, workers
        self._batcher = Batcher(self._answer, *batches, gathers=self._search_memory)
        self._away_batcher = Batcher(self._answer, min(max_batch_users, AWAY_BATCH_USERS), max_queued_users, workers)

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
        began = time.perf_counter()
        outcome = await self._answered(release, query, remaining_s, explain)
        if outcome.missing:
            outcome = replace(outcome, results=[with_note(result, outcome.missing) for result in outcome.results])
        if query.placed:
            time_left_s = self._search_timeout_s if remaining_s is None else began + remaining_s - time.perf_counter()
            filled = await self._places.fill(release, query, outcome.results, max(time_left_s / 2, 0.001))
            steps = outcome.trace and without_places(outcome.trace, filled[0])
            outcome = replace(outcome, results=filled, trace=steps)
        return outcome

    async def _answered(self, release: Release, query: Query, remaining_s: float | None, explain: bool) -> Outcome:
        if not self._degraded or explain:
            return await self._run(release, query, remaining_s, explain)
        deadline = math.inf if remaining_s is None else time.perf_counter() + remaining_s
        spare_s = ANSWER_S + MEMORY_S + release.item_embedding.nbytes / SCAN_BYTES_PER_S
        try:
            async with _until(deadline, spare_s):
                return await self._run(release, query, remaining_s, explain)
        except (TimeoutError, StoreUnavailableError):  # the batch goes on: others in it may have more time
            return await self._run_without_milvus(release, query, deadline)

    async def _run_without_milvus(self, release: Release, query: Query, deadline: float) -> Outcome:
        """Find candidates in memory; give the popular list if there is no time for it, or if there is a filter."""
        began = time.perf_counter()
        if not query.filter and self._local.knows(release):
            job = Job(release, query, explain=False, span=CALL_SPAN.get(), away=True)
            with suppress(TimeoutError, OverloadedError, DeadlineExceededError):
                async with _until(deadline, ANSWER_S):
                    if query.boosts:
                        job = await self._with_lift(job, RULE_S)
                    lowers = bool(job.lift and job.lift.lowers)
                    depths = [exact_depth(query, user, self._max_overfetch, lowers) for user in query.users]
                    outcome = await self._submit(job, list(range(len(depths))), depths, deadline)
                    return replace(outcome, missing=job.missing)
        popular = self._popular_items.last(release)
        inputs = await computed(_clicks(query.users), look_up, release, query.users)
        timings = Timings((time.perf_counter() - began) * 1000, 0.0, 0.0, 0.0)
        told = zip(inputs.status, inputs.unknown, strict=True)
        compared = _compared(query.users, popular)
        rule = await self._rules.for_popular(release, query, popular, RULE_S)
        answered = await computed(compared, results_without_milvus, query, popular, list(told), rule)
        self._tell(query.users, answered)
        return Outcome(answered, timings, None)

    async def _run(self, release: Release, query: Query, remaining_s: float | None, explain: bool) -> Outcome:
        deadline = math.inf if remaining_s is None else time.perf_counter() + remaining_s
        job = Job(release, query, explain, CALL_SPAN.get())
        if query.filter:
            job = await self._with_matches(job, deadline)
        if query.boosts and not job.failure:
            job = await self._with_lift(job, self._search_time_left_s(deadline))
        where = release, job.matches
        among = len(release.vocabulary) if job.matches is None else len(job.matches)
        lowered = min(job.lift.lowered / max(among, 1), 1.0) if job.lift else None
        depths = dict(enumerate(first_depths(*where, query, self._max_overfetch, lowered)))
        results: dict[int, UserResult] = {}
        timings, steps = Timings(0, 0, job.matching_ms, 0), None
        while depths:  # nearly always once
            kind = next(iter(depths.values())).kind
            together = [number for number, depth in depths.items() if depth.kind == kind]
            together = together[: depths[together[0]].together(release.hyper_parameters.num_interests)]
            own = [depths.pop(number) for number in together]
            outcome = await self._submit(job, together, own, deadline)
            for number, depth, result in zip(together, own, outcome.results, strict=True):
                if result.cut_short:
                    depths[number] = full_depth(*where, depth)
                else:
                    results[number] = result
            timings, steps = timings + outcome.timings, outcome.trace
        outcome = Outcome([results[number] for number in range(len(results))], timings, steps, job.missing)
        if explain and job.lift and not outcome.results[0].fallback:
            outcome = replace(outcome, applied=partial(with_parts, job.lift, release))
        return outcome

    async def _submit(self, job: Job, users: list[int], depths: list[Depth], deadline: float) -> Outcome:
        """Wait for the batch that answers some of the users of a job."""
        if len(users) < len(job.query.users):
            job = replace(job, query=replace(job.query, users=[job.query.users[number] for number in users]))
        job = replace(job, depths=depths)
        remaining_s = None if deadline == math.inf else deadline - time.perf_counter()
        batcher = self._away_batcher if job.away else self._batcher
        outcome = await batcher.submit(job, len(users), job.group, remaining_s)
        return outcome if outcome.listed else await self._listed(job, outcome, deadline)

    async def _listed(self, job: Job, outcome: Outcome, deadline: float) -> Outcome:
        """The outcome with the popular items for users without a usable history. Only their caller waits for them."""
        started = time.perf_counter()
        if job.matches is None:
            popular = await self._popular_items.of(job.release, (deadline - started) / 2)
        else:
            popular = popular_among(job.release, job.matches)
        compared = _compared(job.query.users, popular)
        rule = await self._rules.for_popular(job.release, job.query, popular, self._search_time_left_s(deadline))
        results = await computed(compared, with_popular, job.query, outcome.results, popular, job.matches, rule)
        took = Timings(0, 0, 0, (time.perf_counter() - started) * 1000)
        return replace(outcome, results=results, timings=outcome.timings + took)

    async def _with_matches(self, job: Job, deadline: float) -> Job:
        """The job with the items that match its filter, or with the reason why Milvus did not tell them."""
        started = time.perf_counter()
        time_left_s = self._search_time_left_s(deadline)
        try:
            job = replace(job, matches=await self._matching_items.of(job.release, job.query.filter, time_left_s))
        except StoreUnavailableError as error:
            job = replace(job, failure=error)
        return replace(job, matching_ms=(time.perf_counter() - started) * 1000)

    async def _with_lift(self, job: Job, timeout_s: float) -> Job:
        """The job with what its boosts add, or with the reason why Milvus did not tell."""
        started = time.perf_counter()
        try:
            lift, missing = await self._boosts.of(job.release, job.query, job.matches, timeout_s, job.away)
            job = replace(job, lift=lift, missing=missing)
        except StoreUnavailableError as error:
            job = replace(job, failure=error)
        return replace(job, matching_ms=job.matching_ms + (time.perf_counter() - started) * 1000)

    async def _answer(self, batch: list[Waiting[Job, Outcome]]) -> list[Outcome | Exception]:
        """Answer the jobs of a batch, which differ in nothing but their users and filters."""
        spans, arrived = [each.ask.span for each in batch], [each.arrived for each in batch]
        release, users = batch[0].ask.release, sum(each.users for each in batch)
        with self._telemetry.batch(spans, arrived, users, release.model_version, release.collection) as watched:
            return await self._answer_watched(batch, watched)

    async def _answer_watched(
        self, batch: list[Waiting[Job, Outcome]], watched: BatchTelemetry
    ) -> list[Outcome | Exception]:
        job, release = batch[0].ask, batch[0].ask.release
        sizes = [len(each.ask.query.users) for each in batch]
        users = [user for each in batch for user in each.ask.query.users]
        top_k = np.repeat([each.ask.query.top_k for each in batch], sizes)
        round_robin = np.repeat([each.ask.query.strategy is Strategy.ROUND_ROBIN for each in batch], sizes)
        deadline = max(each.deadline for each in batch)

        clicks = _clicks(users)
        inputs = await computed(clicks, look_up, release, users)
        if job.matches is None and any(status in FALLBACK for status in inputs.status):
            self._popular_items.refresh(release)  # beside the search
        vectors = await self._encode(release, inputs)
        encoded = watched.enter("search")
        matches = [each.ask.matches for each in batch for _ in each.ask.query.users]
        active, depths = inputs.active, [depth for each in batch for depth in each.ask.depths]
        try:
            if job.failure:
                raise job.failure
            own_depths = [depths[user] for user in active.tolist()]
            own_matches = [matches[user] for user in active.tolist()]
            own_lifts = _lifts_of(batch, active)
            plain = await self._search(job, vectors, own_depths, own_matches, deadline)
            found = await self._lifted(job, plain, vectors, own_depths, own_lifts, own_matches, deadline)
            searched = watched.enter("merge")
            without_history = [each.ask.query.exclude_history for each in batch]
            pins = [each.ask.query.pins for each in batch]
            excluded = await computed(clicks, exclusions, inputs, without_history, sizes, pins)
            with_near = np.repeat([each.ask.query.neighbours for each in batch], sizes)[active]
            query = np.repeat(np.arange(len(batch)), sizes)[active]
            rules = rules_of([each.ask.query for each in batch], query, top_k[active], round_robin[active])
            how = rules.merged if rules else top_k[active], round_robin[active], excluded, job.explain
            least = partial(np.full, len(active), -np.inf) if own_lifts else partial(least_scores, found, *how)
            near = await self._near(job, inputs, vectors, with_near, own_matches, least, deadline)
            size = len(found.hits.item_ids) + len(near.bonus) + len(excluded.user)
            added = (
                None
                if found.added is None
                else await computed(len(near.bonus), added_to, release, found, near, own_lifts)
            )
            merged = await computed(size, merge, found.hits, found.user, found.interest, *how, near, added)
            short = cut_short(own_depths, top_k[active], found, merged)
            said: Sequence[str] = ()
            capped_by: Mapping[str, Mask] = {}
            if rules:
                time_left_s = self._search_time_left_s(deadline)
                varied = await self._rules.choose(release, rules, merged, found, near, own_depths, time_left_s)
                merged, short, said = varied.merged, np.where(rules.ruled, varied.short, short), varied.detail
                capped_by = varied.capped_by
        except StoreUnavailableError as error:
            watched.fail()
            stages = (encoded - watched.started) * 1000, (time.perf_counter() - encoded) * 1000, 0.0
            return await self._answer_unsearched(batch, inputs, error, watched, stages)
        interests = vectors if any(each.ask.query.placed for each in batch) else None
        answered = results(top_k.tolist(), inputs, merged, short, matches, with_near, said, bool(own_lifts), interests)
        answered = found_in_memory(answered) if job.away else answered

        searched_by = "local" if self._search_memory and job.matches is None else job.search
        steps = None
        if merged.fate is not None:
            shown = SHOWN_HITS if rules else MAX_HITS
            steps = trace(release, inputs, vectors, found, near, merged.fate, capped_by, added, searched_by, shown)
        watched.searched(searched_by, len(active))
        self._tell(users, answered)
        if self._telemetry.sampling:
            known = release.vocabulary, release.item_embedding
            among = [own.rows for own in own_matches if own is not None]
            searched_with = vectors[plain.user, plain.interest]
            if not own_depths or not own_depths[0].whole:
                told = top_k[active], *known, among, job.query.channel
                self._telemetry.sampling.offer(searched_with, plain.user, plain.hits, *told)
        ended = time.perf_counter()
        stages = (encoded - watched.started) * 1000, (searched - encoded) * 1000, (ended - searched) * 1000
        outcomes: list[Outcome | Exception] = []
        for each, (start, end) in zip(batch, pairwise(accumulate(sizes, initial=0)), strict=True):
            own, timings = answered[start:end], Timings((watched.started - each.arrived) * 1000, *stages)
            outcomes.append(Outcome(own, timings, steps, listed=not any(result.fallback for result in own)))
        return outcomes

    async def _answer_unsearched(
        self,
        batch: list[Waiting[Job, Outcome]],
        inputs: Inputs,
        error: StoreUnavailableError,
        watched: BatchTelemetry,
        stages: tuple[float, float, float],
    ) -> list[Outcome | Exception]:
        """Answer a batch while Milvus does not: callers who only need the popular list get it, the others the error."""
        told = zip(inputs.status, inputs.unknown, strict=True)
        popular = self._popular_items.last(batch[0].ask.release)
        outcomes: list[Outcome | Exception] = []
        answered: list[UserResult] = []
        users: list[UserQuery] = []
        for each in batch:
            job, own = each.ask, list(islice(told, len(each.ask.query.users)))
            if job.query.filter or any(status is Status.OK for status, _ in own):
                outcomes.append(_late(each, error))
                continue
            timings = Timings((watched.started - each.arrived) * 1000, *stages)
            compared = _compared(job.query.users, popular)
            rule = await self._rules.for_popular(job.release, job.query, popular, RULE_S)
            unsearched = await computed(compared, results_without_milvus, job.query, popular, own, rule)
            outcomes.append(outcome := Outcome(unsearched, timings, None))
            answered += outcome.results
            users += job.query.users
        if users:
            self._tell(users, answered)
        return outcomes

    async def _search(
        self,
        job: Job,
        vectors: Float32,
        depths: list[Depth],
        matches: list[Matches | None],
        deadline: float,
    ) -> Found:
        """Search for the active users of a batch, all of one group, such as that of `job`."""
        if not depths:
            return NOTHING
        release = job.release
        limits = np.array([depth.limit for depth in depths], np.int64)
        if depths[0].whole:
            return interests_of(vectors)
        if job.away:
            return await self._local.search_users(release, vectors, limits)
        own = [of_user for of_user in matches if of_user is not None]
        if own:
            return await search_matches(release, vectors, own, limits)
        local = self._local if self._search_memory else None
        breadth = MAX_HITS if local else release.fingerprint.breadth

        async def find(queries: Float32, limit: int) -> Hits:
            timeout_s = self._search_time_left_s(deadline)
            if local:
                return await local.search_now(release, queries, limit, timeout_s)
            params = dict(release.fingerprint.search_params)
            return await self._store.search(release.collection, queries, limit, params, timeout_s)

        return await search(find, release, vectors, limits, depths[0].fetched, breadth)

    async def _lifted(
        self,
        job: Job,
        found: Found,
        vectors: Float32,
        depths: list[Depth],
        lifts: list[Lift],
        matches: list[Matches | None],
        deadline: float,
    ) -> Found:
        """What was found, with what boosts add; `lifts`: of each active user, empty without boosts."""
        if not lifts:
            return found
        if depths[0].whole:
            lifts = await self._whole(job, lifts, matches, deadline)
        limits = np.array([depth.limit for depth in depths], np.int64)
        wanted = np.minimum(limits, [depth.needed for depth in depths])
        return await with_lifted(job.release, found, vectors, lifts, limits, wanted)

    async def _whole(self, job: Job, lifts: list[Lift], matches: list[Matches | None], deadline: float) -> list[Lift]:
        """The lifts over all items that candidates of each user can come from."""
        if None in matches and not job.away:
            await self._local.catch_up(job.release, self._search_time_left_s(deadline))
        known: dict[int, Lift] = {}
        for lift, own in zip(lifts, matches, strict=True):  # users of one query share both
            if id(lift) not in known:
                items = self._local.known(job.release).items if own is None else own
                known[id(lift)] = await computed(len(items), lift.over, items)
        return [known[id(lift)] for lift in lifts]

    async def _near(
        self,
        job: Job,
        inputs: Inputs,
        vectors: Float32,
        wanted: Mask,
        matches: list[Matches | None],
        least: Callable[[], Float32],
        deadline: float,
    ) -> NearHits:
        """The neighbours of the active users of a batch who want them; none while it is not known which are deleted."""
        if job.release.neighbours is None or not wanted.any():
            return NOTHING_NEAR
        known = None
        if job.away or await self._local.seen(job.release, self._search_time_left_s(deadline)):
            known = self._local.known(job.release)
        elif job.matches is None:  # a filter's matches have nothing that is deleted
            return NOTHING_NEAR
        size = NEIGHBOUR_ITEMS * int(wanted.sum())
        return await computed(size, near_hits, job.release, inputs, vectors, wanted, known, matches, least())

    def _tell(self, users: list[UserQuery], answered: list[UserResult]) -> None:
        """Count the users who have their answer; the others are searched for again."""
        told = [(user, result) for user, result in zip(users, answered, strict=True) if not result.cut_short]
        statuses = [result.status for _, result in told]
        by_status = [(status.name, statuses.count(status)) for status in set(statuses)]
        histories, unknown = [user.hist_item for user, _ in told], [result.unknown for _, result in told]
        self._telemetry.answered(by_status, histories, unknown)

    def _search_time_left_s(self, deadline: float) -> float:
        return max(min(self._search_timeout_s, deadline - time.perf_counter()), 0.001)


def _until(deadline: float, spare_s: float) -> asyncio.Timeout:
    """A timeout that much before a deadline, or after half of the time until it if that is later."""
    left_s = deadline - time.perf_counter()
    return asyncio.timeout(None if deadline == math.inf else left_s - min(spare_s, left_s / 2))


def _lifts_of(batch: list[Waiting[Job, Outcome]], active: Int64) -> list[Lift]:
    """What boosts add for each active user of a batch, whose jobs all have boosts; empty if they have none."""
    lifts = [each.ask.lift for each in batch for _ in each.ask.query.users if each.ask.lift]
    return [lifts[user] for user in active.tolist()] if lifts else []


def _clicks(users: list[UserQuery]) -> int:
    """The ids that users bring."""
    return sum(len(user.hist_item) + len(user.exclude) + len(user.shown) for user in users)


def _compared(users: list[UserQuery], popular: Popular) -> int:
    """The ids that are compared to find out which popular items users may get."""
    return _clicks(users) + len(users) * len(popular.item_ids)


def _late(waiting: Waiting[Job, Outcome], error: StoreUnavailableError) -> Exception:
    """The error of an unanswered search for one caller: its own deadline if that has passed, or else Milvus' fault."""
    if time.perf_counter() < waiting.deadline - TIMER_S:
        return error
    waited_ms = (waiting.deadline - waiting.arrived) * 1000
    return DeadlineExceededError(f"the deadline of {waited_ms:.0f} ms passed in the search")

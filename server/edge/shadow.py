"""Asks another channel what live requests were asked, after they were answered, and compares the answers.

The answer of the shadow channel is given to nobody. Only one request at a time is asked there, for a tenth of the time
at most, and none while the server has much to do, so live requests come first. Failures are counted and never reach
callers.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import numpy as np

from mind.milvus.errors import FilterError
from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge.request import read_options
from server.errors import (
    FAILURES,
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    StoreTimeoutError,
)
from server.release import Release
from server.serving.answer import Outcome, Status
from server.serving.pipeline import CandidatePipeline
from server.serving.question import Query, UserQuery
from server.settings import Settings
from server.watching.comparison import Lists
from server.watching.shadow_answers import Answered, compared
from server.watching.shadow_figures import ShadowFigures
from server.watching.shadow_metrics import ShadowMetrics
from server.watching.telemetry import CALL_SPAN

logger = logging.getLogger(__name__)

OUTCOMES = (
    "compared",
    "busy",
    "attributes",
    "refused",
    "page",
    "id_type",
    "same",
    "not_ready",
    "timeout",
    "failed",
)
"""What may become of a request; `ShadowOutcome` of the contract says what each means."""
REST = 9
"""Time in which nothing is asked after a request, as a multiple of the time that this one took. A shadow request costs
as much as a whole batch of live ones, as it shares its batch with no other."""
_OF_ATTRIBUTES = ("FILTER_INVALID", "UNKNOWN_ATTRIBUTE")
"""Reasons of an invalid request that live accepted, if the release of the shadow channel has other attributes."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class _Ask:
    """A live request that was answered."""

    channel: str
    """The shadow channel that it was drawn for."""
    options: recall_pb2.RecallRequest
    """The request without its users."""
    users: list[UserQuery]
    release: Release
    """The release that answered."""
    outcome: Outcome
    """The answer of this release."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a pair of releases."""

    live: str
    """The collection of live."""
    shadow: str
    """The collection of the shadow channel."""
    figures: ShadowFigures


class Shadow:
    """Asks shadow channels."""

    def __init__(
        self,
        shares: Mapping[str, float],
        settings: Settings,
        channels: Channels,
        pipeline: CandidatePipeline,
        busy: Callable[[], bool],
        metrics: ShadowMetrics | None,
    ) -> None:
        """Prepare to ask.

        Args:
            shares: the share of live requests to ask, by shadow channel.
            settings: the limits of requests.
            channels: the channels that are served.
            pipeline: answers requests of shadow channels and nothing else.
            busy: tells whether the server has so much to do that no shadow channel should be asked.
            metrics: count; None if metrics are turned off.
        """
        self.shares = shares
        self._settings = settings
        self._timeout_s = settings.search_timeout_ms / 1000
        self._channels = channels
        self._pipeline = pipeline
        self._busy = busy
        self._metrics = metrics
        self._random = random.Random()
        self._asking: asyncio.Task[None] | None = None
        self._rests_until = 0.0
        """When the next request may be asked, on the clock of `time.perf_counter`."""
        self.outcomes = {channel: dict.fromkeys(OUTCOMES, 0) for channel in shares}
        """The number of drawn requests, by channel and by what became of them."""
        self.seen: dict[str, Seen] = {}
        """What was seen of the last releases that were compared, by shadow channel."""
        self._said: dict[str, str] = {}
        if metrics:
            for channel in shares:
                metrics.start(channel, OUTCOMES)

    def offer(
        self, context: Context, request: recall_pb2.RecallRequest, release: Release, query: Query, outcome: Outcome
    ) -> None:
        """Ask shadow channels, if a request is drawn for them, as soon as its answer was sent.

        Args:
            context: of the call.
            request: a request to the default channel.
            release: the release of this channel that answers it.
            query: the request as it was read, with the histories of remembered users.
            outcome: its answer.
        """
        if release is not self._channels.default.current:
            return  # another one was released meanwhile
        for channel, share in self.shares.items():
            if self._random.random() >= share:
                continue
            if request.page_token:
                self._count(channel, "page")
            elif self._has_no_time():
                self._count(channel, "busy")
            else:
                kept = {field.name: value for field, value in request.ListFields() if field.name != "users"}
                ask = _Ask(channel, recall_pb2.RecallRequest(**kept), query.users, release, outcome)
                context.add_done_callback(partial(self._begin, ask))  # type: ignore[arg-type]

    async def close(self) -> None:
        """Stop asking, and end the request in progress."""
        self._rests_until = math.inf  # answers that are being sent may end later
        if self._asking:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _has_no_time(self) -> bool:
        asking = self._asking is not None and not self._asking.done()
        return asking or time.perf_counter() < self._rests_until or self._busy()

    def _begin(self, ask: _Ask, _: Context) -> None:
        if self._has_no_time():  # others may have come while the answer was sent
            self._count(ask.channel, "busy")
        else:
            self._asking = asyncio.create_task(self._ask(ask))

    async def _ask(self, ask: _Ask) -> None:
        CALL_SPAN.set(None)  # the span of the call has ended
        began = time.perf_counter()
        try:
            outcome = await self._compare(ask)
        except Exception as error:
            outcome = _outcome(error)
            self._say(ask.channel, error, outcome)
        now = time.perf_counter()
        self._rests_until = now + REST * (now - began)
        self._count(ask.channel, outcome)

    async def _compare(self, ask: _Ask) -> str:
        """Ask the shadow channel, and compare its answer. Returns what became of it, if it did not fail."""
        release = self._channels.of(ask.channel).current
        if release.collection == ask.release.collection:
            return "same"
        if release.has_text_ids != ask.release.has_text_ids:
            return "id_type"
        query = read_options(ask.options, self._settings, release, ask.channel, ask.users)
        async with asyncio.timeout(self._timeout_s):
            outcome = await self._pipeline.run(release, query, self._timeout_s)
        await asyncio.to_thread(self._add, ask, release, outcome, query.top_k)
        return "compared"

    def _add(self, ask: _Ask, release: Release, outcome: Outcome, top_k: int) -> None:
        """Compare two answers, on a thread."""
        live, shadow = _answered(ask.outcome), _answered(outcome)
        known = ask.release.vocabulary.item_index(shadow.lists.item_ids) > 0
        found = compared(live, shadow, top_k, known)
        seen = self.seen.get(ask.channel)
        if seen is None or (seen.live, seen.shadow) != (ask.release.collection, release.collection):
            seen = Seen(ask.release.collection, release.collection, ShadowFigures())
            self.seen[ask.channel] = seen
        seen.figures.add(found)
        if self._metrics:
            self._metrics.observe(ask.channel, found)

    def _count(self, channel: str, outcome: str) -> None:
        self.outcomes[channel][outcome] += 1
        if self._metrics:
            self._metrics.count(channel, outcome)

    def _say(self, channel: str, error: Exception, outcome: str) -> None:
        """Log a failure, unless the last one of the channel was of this kind. Its message may quote the request."""
        kind = getattr(error, "reason", type(error).__name__)
        if outcome == "failed" and not isinstance(error, FAILURES):
            logger.error("a request to the shadow channel %s failed", channel, exc_info=error)
        elif outcome in ("failed", "timeout") and self._said.get(channel) != kind:
            logger.warning("requests to the shadow channel %s fail: %s", channel, kind)
        self._said[channel] = kind


def _outcome(error: Exception) -> str:
    """What became of a request that failed."""
    match error:
        case FilterError():
            return "attributes"
        case InvalidRequestError():
            return "attributes" if error.reason in _OF_ATTRIBUTES else "refused"
        case NotReadyError():
            return "not_ready"
        case OverloadedError():
            return "busy"
        case TimeoutError() | DeadlineExceededError() | StoreTimeoutError():
            return "timeout"
        case _:
            return "failed"


def _answered(outcome: Outcome) -> Answered:
    results, timings = outcome.results, outcome.timings
    lists = Lists(
        item_ids=np.concatenate([result.item_ids for result in results]),
        scores=np.concatenate([result.scores for result in results]),
        lengths=np.array([len(result.item_ids) for result in results], np.int64),
    )
    own = np.array([result.status is Status.OK for result in results], bool)
    return Answered(lists, own, timings.total_ms - timings.queue_ms)

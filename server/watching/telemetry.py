"""Turns the reports of the serving path into metrics, traces and samples of recall, if these are turned on.

The path reports each stage that it enters. Here the stages become histograms and spans. If nothing is turned on, this
costs no more than reading the clock.
"""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mind.sequences import Int64
from server.errors import StoreError
from server.watching.metrics import Metrics
from server.watching.sampling import RecallSampling

if TYPE_CHECKING:  # OpenTelemetry may not be installed
    from opentelemetry.trace import Span

    from server.watching.tracing import Tracing

CALL_SPAN: ContextVar["Span | None"] = ContextVar("CALL_SPAN", default=None)
"""The span of the call that a task is answering."""
CALL_CHANNEL: ContextVar[str] = ContextVar("CALL_CHANNEL", default="")
"""The channel of the call that a task is answering; empty until it is known. It is one of those that are served."""


@dataclass(frozen=True)
class Telemetry:
    """Metrics, traces and samples of recall. Each is None if it is turned off."""

    metrics: Metrics | None = None
    tracing: "Tracing | None" = None
    sampling: RecallSampling | None = None

    def count_store_error(self, error: StoreError) -> None:
        """Count a failed call to Milvus."""
        if self.metrics:
            self.metrics.count_milvus_error(error.reason)

    def on_read(self, option: str) -> Callable[[bool], None]:
        """Return a callback that counts whether the file of an option could be used at each reading."""
        metrics = self.metrics
        return partial(metrics.set_file, option) if metrics else lambda _: None

    def answered(
        self, statuses: Sequence[tuple[str, int]], histories: Sequence[Int64], unknown: Sequence[Int64]
    ) -> None:
        """Count answers: users by status, their histories, and the unknown ids in them, [n] int64 each."""
        if self.metrics:
            self.metrics.count_batch(statuses, sum(map(len, histories)), sum(map(len, unknown)))

    def similar(self, waited_s: Sequence[float], took_s: float, statuses: Sequence[str]) -> None:
        """Count a batch of queries for similar items: how long its requests waited, and what became of each query."""
        if self.metrics:
            for seconds in waited_s:
                self.metrics.count_wait(seconds)
            self.metrics.count_similar(took_s, statuses)

    def close(self) -> None:
        """Wait for the sample in progress, and send the last spans."""
        if self.sampling:
            self.sampling.close()
        if self.tracing:
            self.tracing.close()

    def batch(
        self, calls: Sequence["Span | None"], arrived: Sequence[float], users: int, model_version: str, collection: str
    ) -> "BatchTelemetry":
        """Follow a batch from now on.

        Args:
            calls: the span of each call of the batch; None for a call that is not traced.
            arrived: the time at which each call arrived, on the clock of `time.perf_counter`.
            users: number of users in all calls.
            model_version: the model that answers.
            collection: the collection that is searched.
        """
        return BatchTelemetry(self, calls, arrived, users, (model_version, collection))


SILENT = Telemetry()
"""The telemetry with everything turned off."""


class BatchTelemetry:
    """Follows one batch through its stages. It is a context manager that ends with the batch."""

    def __init__(
        self,
        telemetry: Telemetry,
        calls: Sequence["Span | None"],
        arrived: Sequence[float],
        users: int,
        release: tuple[str, str],
    ) -> None:
        """Begin the stage encode.

        The arguments are those of `Telemetry.batch`; `release`: model version and collection.
        """
        self.started = time.perf_counter()
        self._metrics = telemetry.metrics
        self._spans = telemetry.tracing.start_batch(calls, arrived) if telemetry.tracing else None
        self._arrived, self._users, self._release = arrived, users, release
        self._stage, self._since = "encode", self.started
        self._laps: list[tuple[str, float, float]] = []
        self._failed = False
        self._search = ""

    def enter(self, stage: str) -> float:
        """End the present stage and begin the stage `search` or `merge`. Return the time."""
        now = time.perf_counter()
        self._laps.append((self._stage, self._since, now))
        self._stage, self._since = stage, now
        if self._spans and stage == "search":
            self._spans.start_search(now)
        return now

    def fail(self) -> None:
        """Mark the present stage as failed, for a failure without an exception in the batch."""
        self._failed = True

    def searched(self, search: str, users: int) -> None:
        """Count users who were searched for. `search`: one of `server.watching.metrics.SEARCHES`."""
        self._search = search
        if self._metrics:
            self._metrics.count_searched(search, users)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the batch: count it, and make its spans."""
        self.enter("")
        if self._metrics:
            for when in self._arrived:
                self._metrics.count_wait(self.started - when)
            for stage, start, end in self._laps:
                self._metrics.count_stage(stage, end - start)
        if self._spans:
            model_version, collection = self._release
            attributes: dict[str, str | int] = {
                "recall.model_version": model_version,
                "recall.collection": collection,
                "recall.batch.users": self._users,
                "recall.batch.requests": len(self._arrived),
                "recall.batch.search": self._search,
            }
            self._spans.finish(self._laps, attributes, self._failed or error is not None)

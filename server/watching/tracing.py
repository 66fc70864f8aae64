"""Makes spans of calls and of the stages of batches, and sends them over OTLP.

It is imported only if traces are wanted.

A batch answers several calls, each with its own trace. Every sampled call gets the spans queue, encode, search and
merge under its own span, so each trace can be read by itself. The search happens once: Milvus sees it as part of the
trace of the first sampled call, and the search spans of the other calls link to it. Spans have counts and versions, and
never ids of users or items.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import grpc
from opentelemetry import propagate
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, set_span_in_context

from mind.milvus.aio_store import SEARCH_METADATA

Attributes = Mapping[str, str | int]

SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that make the server's span an error, by OpenTelemetry's conventions for RPC."""
FLUSH_S = 3.0
"""Maximum time in seconds to wait for the last spans when the server stops."""


class Tracing:
    """Starts the spans of calls and of batches."""

    def __init__(self, exporter: SpanExporter) -> None:
        """Prepare to make spans.

        OpenTelemetry reads sampling, limits and other attributes from the OTEL_* variables.
        """
        ours = Resource({"service.name": "mind-recall", "service.version": version("mind-recall")})
        self._trace_ids = _ChosenTraceIds()
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
            id_generator=self._trace_ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._parent_keys = propagate.get_global_textmap().fields
        self._tracer = self._provider.get_tracer("mind-recall")

    def start_call(self, method: str, metadata: Mapping[str, str]) -> Span | None:
        """Start the span of a call, in the trace of its caller if it has one. Return None if the call is not sampled.

        Most calls are not sampled, so the sampler is asked first. `method`: the full name of the call's method, such as
        `recall.v1.RecallService.Recall`.
        """
        trace_id = self._trace_ids.choose()  # used unless the caller sent one
        parent = propagate.extract(metadata) if self._parent_keys & metadata.keys() else None
        if not parent and self._provider.sampler.should_sample(None, trace_id, method).decision is Decision.DROP:
            return None
        service, _, name = method.rpartition(".")
        rpc = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        span = self._tracer.start_span(f"{service}/{name}", parent, SpanKind.SERVER, rpc)
        return span if span.is_recording() else None

    def end_call(self, span: Span, status: str, sizes: Mapping[str, int], channel: str) -> None:
        """End the span of a call.

        `status`: gRPC's name; `sizes`: users and top_k, if the request has them; `channel`: empty where there is none.
        """
        span.set_attributes({f"recall.{name}": value for name, value in sizes.items()})
        if channel:
            span.set_attribute("recall.channel", channel)
        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[status].value[0])
        if status in SERVERS_FAULT:
            span.set_status(Status(StatusCode.ERROR, status))
        span.end()

    def start_batch(self, calls: Sequence[Span | None], arrived: Sequence[float]) -> "BatchSpans":
        """Follow a batch. `arrived`: the time at which each call arrived, on the clock of `time.perf_counter`."""
        sampled = [(call, when) for call, when in zip(calls, arrived, strict=True) if call and call.is_recording()]
        return BatchSpans(self, sampled)

    def start(self, name: str, parent: Span, start_ns: int, links: Sequence[Link] = ()) -> Span:
        """Start a child span of `parent`."""
        return self._tracer.start_span(name, set_span_in_context(parent), links=links, start_time=start_ns)

    def close(self) -> None:
        """Send the last spans within `FLUSH_S`. A sender that still hangs then ends with the process."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(FLUSH_S)


class _ChosenTraceIds(RandomIdGenerator):
    """Makes random ids. The id of the next trace can be known before its first span is made."""

    def __init__(self) -> None:
        self._next = self.choose()

    def choose(self) -> int:
        """Choose the id of the next trace."""
        self._next = super().generate_trace_id()
        return self._next

    def generate_trace_id(self) -> int:
        """Return the id that was chosen before."""
        return self._next


class BatchSpans:
    """The spans of a batch under the spans of its sampled calls."""

    def __init__(self, tracing: Tracing, sampled: list[tuple[Span, float]]) -> None:
        """Prepare the spans. `sampled`: the span of each traced call, with the time at which the call arrived."""
        self._tracing = tracing
        self._sampled = sampled
        self._zero_ns = time.time_ns() - time.perf_counter_ns()  # once, so that the spans of a batch join without gaps
        self._search: Span | None = None

    def start_search(self, at: float) -> None:
        """Begin the search, and send the trace of the first sampled call to Milvus."""
        carrier: dict[str, str] = {}
        if self._sampled:
            self._search = self._tracing.start("search", self._sampled[0][0], self._epoch_ns(at))
            propagate.inject(carrier, set_span_in_context(self._search))
        SEARCH_METADATA.set(tuple(carrier.items()))

    def finish(self, laps: Sequence[tuple[str, float, float]], attributes: Attributes, failed: bool) -> None:
        """Make the spans of all stages.

        Args:
            laps: the name, start and end of each stage, on the clock of `time.perf_counter`. A failed batch failed in
                the last.
            attributes: attributes of the batch, for all spans.
            failed: whether the batch failed.
        """
        for number, (call, arrived) in enumerate(self._sampled):
            if call.is_recording():  # false if its caller left
                call.set_attributes(attributes)
            self._tracing.start("queue", call, self._epoch_ns(arrived)).end(self._epoch_ns(laps[0][1]))
            for stage, start, end in laps:
                if stage == "search" and self._search and number == 0:
                    span = self._search
                else:
                    links = [Link(self._search.get_span_context())] if stage == "search" and self._search else []
                    span = self._tracing.start(stage, call, self._epoch_ns(start), links)
                span.set_attributes(attributes)
                if failed and stage == laps[-1][0]:
                    span.set_status(Status(StatusCode.ERROR))
                span.end(self._epoch_ns(end))

    def _epoch_ns(self, at: float) -> int:
        return self._zero_ns + int(at * 1e9)

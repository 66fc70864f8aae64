"""Defines all metrics for Prometheus, in their own registry, and the endpoint that Prometheus reads.

Other modules measure, and pass seconds and counts to this module, which knows nothing of gRPC or Milvus. Series that
every call or batch uses are looked up once and stored, because a look-up by labels costs more than counting.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mind.errors import ConfigError
from server.watching import endpoint
from server.watching.shadow_metrics import ShadowMetrics

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Upper bounds of the buckets of durations, in seconds."""
USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the buckets of batch sizes."""
RECALL = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 1)
"""Upper bounds of the buckets of recall."""

OF_CHANNEL = ("channel",)
"""The labels of a metric that each channel has."""
SEARCHES = ("milvus", "matches", "local")
"""What can search for users: Milvus, the server among the items that match a filter, or the server among all items."""


class Metrics:
    """The metrics of one server process."""

    def __init__(
        self, user_statuses: Iterable[str], item_statuses: Iterable[str], milvus_errors: Iterable[str]
    ) -> None:
        """Make all metrics.

        Series of the given label values exist from the start, because a rate needs an initial zero.
        """
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # not useful here
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._releases = _ReleaseInfo()
        self.registry.register(self._releases)
        self._make_request_metrics()
        self._make_batch_metrics(user_statuses)
        self._make_similar_metrics(item_statuses)
        self._make_state_metrics()
        errors = self._counter("recall_milvus_errors", "Calls to Milvus that failed, by kind.", ["kind"])
        self._milvus_errors = {kind: errors.labels(kind) for kind in milvus_errors}
        self.shadow = ShadowMetrics(self.registry)

    def _make_request_metrics(self) -> None:
        duration = self._histogram(
            "recall_request_duration_seconds",
            "Time from a request's arrival to its answer, by method, gRPC status and channel. The channel is empty for "
            "methods without one, and for requests that were refused before it was known.",
            SECONDS,
            ["method", "status", "channel"],
        )
        self._duration: Callable[[str, str, str], Histogram] = cache(duration.labels)
        self._failures = self._counter(
            "recall_request_failures",
            "Requests that were not answered with OK, by method, gRPC status, ErrorInfo.reason and channel.",
            ["method", "status", "reason", "channel"],
        )
        self._in_progress = self._gauge("recall_requests_in_progress", "Requests being answered or waiting.")
        self._queued = self._gauge(
            "recall_queued_users", "Users, and queries for similar items, that wait for a batch."
        )

    def _make_batch_metrics(self, user_statuses: Iterable[str]) -> None:
        self._queue = self._histogram("recall_queue_wait_seconds", "Time that a request waited for its batch.", SECONDS)
        self._batch = self._histogram("recall_batch_users", "Users encoded and searched together.", USERS)
        self._stages = {
            "encode": self._histogram("recall_encode_seconds", "Time to encode a batch's histories.", SECONDS),
            "search": self._histogram("recall_search_seconds", "Time to search for a batch.", SECONDS),
            "merge": self._histogram("recall_merge_seconds", "Time to merge a batch's hits into lists.", SECONDS),
        }
        users = self._counter("recall_users", "Users answered, by recall.v1.UserStatus.", ["status"])
        self._users = {status: users.labels(status) for status in user_statuses}
        searched = self._counter(
            "recall_searched_users",
            "Users whose interests were searched for, by what searched: milvus, its index; matches, the memory of the "
            "server, among the items that match a filter; local, the same, among all items.",
            ["search"],
        )
        self._searched = {search: searched.labels(search) for search in SEARCHES}
        self._items = self._counter("recall_history_items", "Ids in the histories of answered users.")
        self._unknown = self._counter("recall_history_items_unknown", "Those of them that the model does not know.")
        recall = self._histogram(
            "recall_sampled_recall_ratio",
            "Share of the exact best top_k items, with a filter of those that match, that sampled users got.",
            RECALL,
            ["channel"],
        )
        self._recall: Callable[[str], Histogram] = cache(recall.labels)

    def _make_similar_metrics(self, item_statuses: Iterable[str]) -> None:
        says = "Time to find the similar items of a batch of queries."
        self._similar = self._histogram("recall_similar_seconds", says, SECONDS)
        says = "Queries for similar items that were answered, by recall.v1.ItemStatus."
        queries = self._counter("recall_similar_queries", says, ["status"])
        self._similar_queries = {status: queries.labels(status) for status in item_statuses}

    def _make_state_metrics(self) -> None:
        self._loop_lag = self._histogram(
            "recall_loop_lag_seconds", "How late the event loop calls back, 20 times a second.", SECONDS
        )
        self._serving = self._gauge("recall_serving", "1 while health checks of the channel say SERVING.", OF_CHANNEL)
        self._taken_over = self._gauge(
            "recall_release_taken_over_timestamp_seconds",
            "When the release that the channel serves was taken over, Unix time.",
            OF_CHANNEL,
        )
        self._refused = self._gauge(
            "recall_release_refused",
            "1 while the newest release of the channel is refused; the one before it keeps serving.",
            OF_CHANNEL,
        )
        self._miscounted = self._gauge(
            "recall_release_miscounted",
            "1 while the collection that the channel serves has rows too many or too few.",
            OF_CHANNEL,
        )
        self._unusable = Gauge(
            "recall_file_unusable",
            "1 while a file of tokens or certificates cannot be used, by option; what was read before stays in use.",
            ["option"],
            registry=self.registry,
        )
        lines = self._counter("recall_feedback_lines", "Lines for --feedback-log, by what became of them.", ["outcome"])
        self._lines = {outcome: lines.labels(outcome) for outcome in ("written", "dropped")}
        says = "Releases of the channel refused, and reasons that changed."
        self._refusals = self._counter("recall_release_refusals", says, OF_CHANNEL)

    def count_loop_lag(self, seconds: float) -> None:
        """Count one measurement of the delay of the event loop."""
        self._loop_lag.observe(seconds)

    def follow(self, in_progress: Callable[[], int], queued_users: Callable[[], int]) -> None:
        """Read two gauges from functions when Prometheus asks."""
        self._in_progress.set_function(in_progress)
        self._queued.set_function(queued_users)

    def follow_channels(self, channels: Iterable[str]) -> None:
        """Make the series of the channels that are served, because a rate needs an initial zero."""
        for channel in channels:
            self._recall(channel)
            for of_channel in (self._serving, self._taken_over, self._refused, self._miscounted, self._refusals):
                of_channel.labels(channel)

    def count_request(self, method: str, status: str, reason: str, seconds: float, channel: str = "") -> None:
        """Count a request that ended.

        `status`: gRPC's name; `reason`: of the error, empty without one; `channel`: empty where there is none.
        """
        self._duration(method, status, channel).observe(seconds)
        if status != "OK":
            self._failures.labels(method, status, reason, channel).inc()

    def count_wait(self, seconds: float) -> None:
        """Count a request that waited in the queue for some seconds."""
        self._queue.observe(seconds)

    def count_stage(self, stage: str, seconds: float) -> None:
        """Count a stage of a batch: encode, search or merge."""
        self._stages[stage].observe(seconds)

    def count_searched(self, search: str, users: int) -> None:
        """Count users who were searched for. `search`: one of `SEARCHES`."""
        self._searched[search].inc(users)

    def count_batch(self, statuses: Iterable[tuple[str, int]], items: int, unknown_items: int) -> None:
        """Count an answered batch: users by status, ids in their histories, and how many of these are unknown."""
        users = 0
        for status, found in statuses:
            users += found
            if found:
                self._users[status].inc(found)
        self._batch.observe(users)
        self._items.inc(items)
        self._unknown.inc(unknown_items)

    def count_similar(self, seconds: float, statuses: Iterable[str]) -> None:
        """Count an answered batch of queries for similar items, each with its status."""
        self._similar.observe(seconds)
        for status in statuses:
            self._similar_queries[status].inc()

    def count_recall(self, recall: float, channel: str = "") -> None:
        """Count the recall of a sampled user, whose candidates were compared with an exact search."""
        self._recall(channel).observe(recall)

    def count_milvus_error(self, kind: str) -> None:
        """Count a call to Milvus that failed."""
        self._milvus_errors[kind].inc()

    def count_feedback(self, written: int, dropped: int) -> None:
        """Count lines for the feedback log: those written, and those dropped because the disk is slow or fails."""
        self._lines["written"].inc(written)
        self._lines["dropped"].inc(dropped)

    def set_serving(self, channel: str, serving: bool) -> None:
        """Set whether health checks of a channel say SERVING."""
        self._serving.labels(channel).set(serving)

    def set_release(self, channel: str, model_version: str, collection: str, miscounted: bool) -> None:
        """Record that a channel serves its newest release, and whether the collection has too many or too few rows."""
        if self._releases.served.get(channel) != (model_version, collection):
            self._releases.served[channel] = model_version, collection
            self._taken_over.labels(channel).set_to_current_time()
        self._refused.labels(channel).set(0)
        self._miscounted.labels(channel).set(miscounted)

    def set_file(self, option: str, usable: bool) -> None:
        """Set whether the file of an option could be used at its last reading."""
        self._unusable.labels(option).set(not usable)

    def set_refused(self, channel: str, new_reason: bool) -> None:
        """Record that the newest release of a channel is refused.

        `new_reason`: whether the previous check gave another reason or none.
        """
        self._refused.labels(channel).set(1)
        self._refusals.labels(channel).inc(new_reason)

    def serve(self, listen: str) -> tuple[endpoint.Endpoint, int]:
        """Answer Prometheus at `host:port`, path /metrics, from a thread. Return the server and its port.

        Raises:
            ConfigError: the address cannot be used.
        """
        host, _, port = listen.rpartition(":")
        try:
            server = endpoint.serve(host.strip("[]"), int(port), self.registry)
        except OSError as error:
            raise ConfigError(f"--metrics-listen {listen}: the address cannot be used, or is taken") from error
        return server, server.server_port

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, says, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, says: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, says, labels, registry=self.registry)

    def _gauge(self, name: str, says: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, says, labels, registry=self.registry)


class _ReleaseInfo(Collector):
    """A series for each channel. A gauge would have a moment without a series when its labels change."""

    def __init__(self) -> None:
        self.served: dict[str, tuple[str, str]] = {}
        """The model version and the collection of each channel."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        info = GaugeMetricFamily(
            "recall_release_info",
            "1, for the model and collection that each channel serves.",
            labels=("channel", "model_version", "collection"),
        )
        for channel, release in list(self.served.items()):  # read by another thread
            info.add_metric((channel, *release), 1)
        yield info

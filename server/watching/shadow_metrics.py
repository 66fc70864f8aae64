"""The metrics of shadow channels for Prometheus, in the registry of all metrics."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from server.watching.shadow_answers import CHANNELS_OF_USERS, Compared

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
"""Upper bounds of the buckets of overlaps."""
RATIOS = (0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10)
"""Upper bounds of the buckets of ratios."""


class ShadowMetrics:
    """Counts requests of shadow channels, and how the answers differ from those of the live channel."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make the metrics. Their series appear with `start`."""

        def histogram(name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, says, ["channel"], buckets=buckets, registry=registry)

        def counter(name: str, says: str, label: str) -> Counter:
            return Counter(name, says, ["channel", label], registry=registry)

        self._requests = counter(
            "recall_shadow_requests",
            "Live requests that were drawn for a shadow channel, by what became of them there.",
            "outcome",
        )
        self._users = counter(
            "recall_shadow_users",
            "Users compared, by the channels in which their interests found candidates: both, live, shadow, neither.",
            "channels",
        )
        self._overlap = histogram(
            "recall_shadow_overlap_ratio", "Share of a user's candidates that are the same in both channels.", SHARES
        )
        says = "Rank-biased overlap (p = 0.9) of a user's candidates in both channels."
        self._rbo = histogram("recall_shadow_rbo_ratio", says, SHARES)
        says = "Time of a request in the shadow channel without waiting, as a multiple of that in the live channel."
        self._latency = histogram("recall_shadow_latency_ratio", says, RATIOS)
        says = "A user's median score in the shadow channel, as a multiple of that in the live channel."
        self._scores = histogram("recall_shadow_score_ratio", says, RATIOS)
        self._new = Counter(
            "recall_shadow_new_candidates",
            "Candidates of the shadow channel that the model of the live channel does not know.",
            ["channel"],
            registry=registry,
        )

    def start(self, channel: str, outcomes: Iterable[str]) -> None:
        """Make the series of a channel, because a rate needs an initial zero."""
        for outcome in outcomes:
            self._requests.labels(channel, outcome)
        for where in CHANNELS_OF_USERS:
            self._users.labels(channel, where)
        for metric in (self._overlap, self._rbo, self._latency, self._scores, self._new):
            metric.labels(channel)

    def count(self, channel: str, outcome: str) -> None:
        """Count a live request that was drawn for a shadow channel."""
        self._requests.labels(channel, outcome).inc()

    def observe(self, channel: str, found: Compared) -> None:
        """Count a comparison."""
        for name, users in found.users.items():
            self._users.labels(channel, name).inc(users)
        self._latency.labels(channel).observe(found.latency_ratio)
        self._new.labels(channel).inc(found.new)
        differences = found.differences
        columns = (self._overlap, differences.overlap), (self._rbo, differences.rbo), (self._scores, found.score_ratios)
        for histogram, values in columns:
            series = histogram.labels(channel)
            for value in values.tolist():
                series.observe(value)

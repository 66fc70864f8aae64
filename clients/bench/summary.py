"""The results of a load test in figures, for tables, the page and programs, and compared with bounds."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clients.bench.latency import PERCENTS, Latency
from clients.bench.load import Outcome, Tally

_LATE_SHARE = 0.1
"""A lateness of the load generator beyond this share of the 99th percentile of the latency makes the result unreliable.
"""
_BUSY = 0.9


@dataclass(frozen=True)
class Row:
    """The requests of one shape, or all requests."""

    title: str
    requests: int
    users_per_s: float
    """Answered users per second."""
    latency: Latency
    """Latencies of the answered requests."""
    failed: Counter[str]
    """The number of failed requests by status and reason."""
    statuses: Counter[str]
    """The number of answered users by status."""

    @property
    def failed_percent(self) -> float:
        """The share of failed requests, in per cent."""
        return 100 * self.failed.total() / self.requests if self.requests else 0.0

    def plain(self) -> dict[str, Any]:
        """Return the row for JSON. A figure is null if no request was answered."""
        measured = len(self.latency) > 0
        figures = {f"p{percent:g}_ms": self.latency.percentile_ms(percent) for percent in PERCENTS}
        return {
            "title": self.title,
            "requests": self.requests,
            "users_per_s": self.users_per_s,
            **{
                name: value if measured else None for name, value in (figures | {"max_ms": self.latency.max_ms}).items()
            },
            "failed": dict(self.failed),
            "statuses": dict(self.statuses),
        }


@dataclass(frozen=True)
class Summary:
    """The figures of a load test."""

    outcome: Outcome
    shapes: list[Row]
    total: Row
    late: Latency
    """How late requests were sent."""

    def plain(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        plan, info = self.outcome.plan, self.outcome.info
        return {
            "load": vars(plan) | {"histories": self.outcome.users_from},
            "server": {"version": info.server_version, "collection": info.collection},
            "model_versions": sorted(self.outcome.model_versions),
            "elapsed_s": self.outcome.elapsed_s,
            "interrupted": self.outcome.interrupted,
            "total": self.total.plain(),
            "shapes": [row.plain() for row in self.shapes],
            "histogram": [vars(bucket) for bucket in self.total.latency.buckets()],
            "percentiles": [{"percent": percent, "ms": ms} for percent, ms in self.total.latency.spectrum()],
            "generator": {
                "busy": self.outcome.busy,
                "late_p99_ms": self.late.percentile_ms(99) if len(self.late) else None,
                "limits": own_limit(self),
            },
        }


def summarize(outcome: Outcome) -> Summary:
    """Compute the figures of what was counted."""
    rows = [_row(tally.shape.title(), [tally], outcome.elapsed_s) for tally in outcome.tallies]
    return Summary(outcome, rows, _row("all", outcome.tallies, outcome.elapsed_s), Latency(outcome.late_s))


def _row(title: str, tallies: Sequence[Tally], elapsed_s: float) -> Row:
    users = sum(tally.statuses.total() for tally in tallies)
    return Row(
        title,
        sum(tally.requests for tally in tallies),
        users / elapsed_s if elapsed_s else 0.0,
        Latency(sample for tally in tallies for sample in tally.latency_s),
        sum((tally.failed for tally in tallies), Counter()),
        sum((tally.statuses for tally in tallies), Counter()),
    )


def described(summary: Summary) -> str:
    """Describe the load in one line."""
    plan, outcome = summary.outcome.plan, summary.outcome
    kind = (
        f"open loop: {plan.calls_per_s:,g} requests/s at random (Poisson)"
        if plan.calls_per_s
        else f"closed loop: {plan.callers:,} callers"
    )
    connections = f", {plan.connections} connections" if plan.connections > 1 else ""
    ended = " (interrupted)" if outcome.interrupted else ""
    return f"{kind}{connections}, {outcome.elapsed_s:.1f} s after {plan.warm_up_s:g} s of warm-up{ended}"


def own_limit(summary: Summary) -> str:
    """Return why the figures may be those of the load generator and not of the service; empty if they are not."""
    late_ms, p99_ms = summary.late.percentile_ms(99), summary.total.latency.percentile_ms(99)
    busy = f"its loop worked {summary.outcome.busy:.0%} of the time"
    if summary.outcome.plan.calls_per_s and late_ms > _LATE_SHARE * p99_ms:
        return (
            f"the load generator sent 1 % of the requests at least {late_ms:.1f} ms late, and latency counts from when "
            f"they were due; lower the rate, or give it processors of its own ({busy})"
        )
    if summary.outcome.busy > _BUSY:
        return f"the load generator is the limit: {busy}; run several on other machines"
    return ""


def missed(summary: Summary, max_p99_ms: float | None, max_errors_percent: float | None) -> list[str]:
    """Return the bounds that were exceeded, each as a sentence with the value and the limit."""
    found, total = [], summary.total
    p99_ms = total.latency.percentile_ms(99)
    if max_p99_ms is not None and not p99_ms <= max_p99_ms:
        value = "unknown, because no request was answered" if math.isnan(p99_ms) else f"{p99_ms:.1f} ms"
        found.append(f"p99 is {value}, --max-p99-ms is {max_p99_ms:g}")
    if max_errors_percent is not None and (total.failed_percent > max_errors_percent or not total.requests):
        share = f"{total.failed_percent:.3g} % of {total.requests:,} requests failed"
        found.append(f"{share}, --max-errors is {max_errors_percent:g} %")
    return found

"""Percentiles and histograms of latencies. They are exact, from every sample, and not from buckets."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

PERCENTS = (50.0, 95.0, 99.0, 99.9)
_MANTISSAS = (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
"""Edges of ten buckets per decade. Each is about a quarter wider than the one before."""


@dataclass(frozen=True)
class Bucket:
    """Latencies above the bucket before and up to `to_ms`."""

    to_ms: float
    count: int
    share: float
    """The share of all latencies up to `to_ms`, those of earlier buckets included."""


class Latency:
    """The latencies of some answered requests."""

    def __init__(self, samples_s: Iterable[float]) -> None:
        """Sort the given latencies."""
        self._sorted_ms = array("d", sorted(1_000 * each for each in samples_s))

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._sorted_ms)

    def percentile_ms(self, percent: float) -> float:
        """Return the least latency that `percent` of all do not exceed; NaN if there are none."""
        if not self._sorted_ms:
            return math.nan
        return self._sorted_ms[max(0, math.ceil(len(self) * percent / 100 - 1e-9) - 1)]

    @property
    def max_ms(self) -> float:
        """The longest latency."""
        return self.percentile_ms(100)

    def spectrum(self) -> list[tuple[float, float]]:
        """Return percentages and their latency in ms. Each step halves the distance to 100 %, as in HdrHistogram."""
        left, found = 100.0, []
        while self._sorted_ms and left * len(self) >= 100:
            found += [(percent, self.percentile_ms(percent)) for percent in (100 - left, 100 - 0.75 * left)]
            left /= 2
        return [*found, (100.0, self.max_ms)] if found else []

    def buckets(self) -> list[Bucket]:
        """Return a histogram of logarithmic buckets, from the shortest latency to the longest."""
        found: list[Bucket] = []
        before = 0
        while before < len(self):
            to_ms = _next_edge(found[-1].to_ms) if found else _edge_from(self._sorted_ms[0])
            upto = before
            while upto < len(self) and self._sorted_ms[upto] <= to_ms:
                upto += 1
            found.append(Bucket(to_ms, upto - before, upto / len(self)))
            before = upto
        return found


def _edge_from(least_ms: float) -> float:
    """Return the first edge that is not below a latency."""
    decade = 10.0 ** math.floor(math.log10(max(least_ms, 1e-3)))
    return next(edge for edge in (*(decade * m for m in _MANTISSAS), 10 * decade) if edge >= least_ms)


def _next_edge(edge: float) -> float:
    return _edge_from(edge * 1.001)

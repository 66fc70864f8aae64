"""Adds up how the answers of a shadow channel differ from those of the live channel, for one pair of releases."""

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mind.artifact import Float32
from server.watching.item_counts import ItemCounts
from server.watching.shadow_answers import Compared
from server.watching.spread import MILLISECONDS, RATIOS, SHARES, Spread

TOP_ITEMS = 10
"""Number of items to tell of those that more lists have, and of those that fewer lists have."""
CLASSES = {
    "overlap": SHARES,
    "rbo": SHARES,
    "live_ms": MILLISECONDS,
    "shadow_ms": MILLISECONDS,
    "latency_ratio": RATIOS,
    "score_ratio": RATIOS,
}
"""The values whose mean and quantiles are told, by name, and the classes that each is counted in."""


@dataclass(frozen=True)
class Told:
    """What is told of some values: how many there are, their mean, and three quantiles."""

    count: int
    mean: float
    p05: float
    p50: float
    p95: float


@dataclass(frozen=True)
class ShadowReport:
    """How the answers of two releases differ."""

    since: float
    """When comparing began, in seconds since 1970."""
    counts: dict[str, int]
    """Numbers by name (`ShadowFigures.add`)."""
    values: dict[str, Told]
    """Values by name (`CLASSES`)."""
    score_difference: float
    """The difference of the users' median scores, in standard deviations of users; 0 without any deviation."""
    gained: list[tuple[int, int]]
    """The items that more lists of the shadow channel have, and in how many more."""
    lost: list[tuple[int, int]]
    """The items that fewer lists of the shadow channel have, and in how many fewer."""


class ShadowFigures:
    """Holds the sums. Threads may use them at the same time."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._since = time.time()
        self._counts: Counter[str] = Counter()
        self._values = {name: Spread(classes) for name, classes in CLASSES.items()}
        self._scores = _Moments(), _Moments()
        self._items = ItemCounts()

    def add(self, found: Compared) -> None:
        """Add one comparison."""
        live, shadow, differences = found.live, found.shadow, found.differences
        values: dict[str, ArrayLike] = {
            "overlap": differences.overlap,
            "rbo": differences.rbo,
            "live_ms": live.work_ms,
            "shadow_ms": shadow.work_ms,
            "latency_ratio": found.latency_ratio,
            "score_ratio": found.score_ratios,
        }
        counts = {f"users_{name}": users for name, users in found.users.items()}
        counts |= {"candidates": len(shadow.lists.item_ids), "new_candidates": found.new}
        counts["live_short"], counts["live_empty"] = live.short(found.top_k)
        counts["shadow_short"], counts["shadow_empty"] = shadow.short(found.top_k)
        with self._lock:
            self._counts.update(counts)
            for name, value in values.items():
                self._values[name].add(value)
            for moments, scores in zip(self._scores, (found.live_scores, found.shadow_scores), strict=True):
                moments.add(scores)
            self._items.add(differences.gained, 1)
            self._items.add(differences.lost, -1)
            self._items.trim()

    def report(self) -> ShadowReport:
        """What the sums say."""
        with self._lock:
            live, shadow = self._scores
            deviation = math.sqrt((live.variance + shadow.variance) / 2)
            return ShadowReport(
                since=self._since,
                counts=dict(self._counts),
                values={name: _told(spread) for name, spread in self._values.items()},
                score_difference=(shadow.mean - live.mean) / deviation if deviation else 0.0,
                gained=self._items.top(TOP_ITEMS, 1),
                lost=self._items.top(TOP_ITEMS, -1),
            )


def _told(spread: Spread) -> Told:
    return Told(spread.count, spread.mean, *(spread.quantile(share) for share in (0.05, 0.5, 0.95)))


class _Moments:
    """Mean and variance of values; nan does not count."""

    def __init__(self) -> None:
        self._count, self._total, self._squares = 0, 0.0, 0.0

    def add(self, values: Float32) -> None:
        found = values[np.isfinite(values)].astype(np.float64)
        self._count += len(found)
        self._total += float(found.sum())
        self._squares += float((found**2).sum())

    @property
    def mean(self) -> float:
        return self._total / max(self._count, 1)

    @property
    def variance(self) -> float:
        return max(self._squares / max(self._count, 1) - self.mean**2, 0.0)

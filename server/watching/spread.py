"""Counts values in fixed classes, so that quantiles of any number of values take the same memory."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

SHARES: Values = np.linspace(0, 1, 101)
"""Classes of shares: quantiles are exact to half a percent."""
MILLISECONDS: Values = np.logspace(-2, 5, 331)
"""Classes of durations, 0.01 ms to 100 s: quantiles are exact to 2.5 %."""
RATIOS: Values = np.logspace(-3, 3, 699)
"""Classes of ratios, 0.001 to 1,000: quantiles are exact to 1 %."""


class Spread:
    """The mean and the quantiles of values."""

    def __init__(self, classes: Values) -> None:
        """`classes`: [C] float64, ascending; a value counts in the nearest class."""
        self._classes = classes
        self._between = (classes[:-1] + classes[1:]) / 2
        self._counts = np.zeros(len(classes), np.int64)
        self._sum = 0.0

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        """The mean, which is exact; 0 without values."""
        return self._sum / max(self.count, 1)

    def add(self, values: ArrayLike) -> None:
        """Count some values, [n]."""
        added = np.atleast_1d(np.asarray(values, np.float64))
        self._counts += np.bincount(np.searchsorted(self._between, added), minlength=len(self._counts))
        self._sum += float(added.sum())

    def quantile(self, share: float) -> float:
        """The class of the smallest value that at least a share of the values do not exceed; 0 without values."""
        if not self.count:
            return 0.0
        place = np.searchsorted(np.cumsum(self._counts), max(1.0, share * self.count))
        return float(self._classes[place])

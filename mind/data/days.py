"""Counts the interactions of each day, beside prepared data, so that a missing day is seen before the training.

Days are in UTC.
"""

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from mind.data.columns import Float64
from mind.data.files import replacing
from mind.data.parts import read_record
from mind.data.time_units import TimeUnit
from mind.sequences import PART_ITEMS, Int64

DAYS = "days.json"
_DAY_S = 86_400
_FIRST, _DAYS = date(1970, 1, 1), 50_000
"""The first day that is counted, and the number of days."""


def count_days(timestamp: Int64 | Float64, unit: TimeUnit | None) -> dict[str, int]:
    """Return the number of interactions of each day that has any, by date; empty if the times are not dates.

    Args:
        timestamp: the times, [N] int64 or float64.
        unit: the unit of the times; None if they are not dates.
    """
    if unit is None:
        return {}
    counts = np.zeros(_DAYS, np.int64)
    for start in range(
        0, len(timestamp), PART_ITEMS
    ):  # with all of them, the days would need as much memory as the times
        number = np.floor_divide(timestamp[start : start + PART_ITEMS], unit.per_second * _DAY_S)
        counts += np.bincount(number[(number >= 0) & (number < _DAYS)].astype(np.int64), minlength=_DAYS)
    return {str(_FIRST + timedelta(days=day)): int(counts[day]) for day in np.flatnonzero(counts).tolist()}


def write_days(directory: Path, days: dict[str, int]) -> None:
    """Write the counts beside prepared data. Raises DataError."""
    with replacing(directory / DAYS) as file:
        file.write_text(json.dumps(days), encoding="utf-8")


def read_days(directory: Path) -> dict[str, int]:
    """Read the counts that `write_days` wrote; empty if there are none. Raises DataError."""
    return {day: int(count) for day, count in read_record(directory / DAYS).items()}

"""What every benchmark prints: the machine, and timings side by side with a baseline."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

console = Console(highlight=False)


def describe() -> str:
    """Processor, cores, Python and NumPy on one line."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    processor = names[0] if names else platform.processor()
    return f"{processor}, {cores} cores, Python {platform.python_version()}, NumPy {np.__version__}"


def compare(title: str, users: int, baseline: Callable[[], object], ours: Callable[[], object], rounds: int) -> Table:
    """Time two ways of doing the same in turn, so that both meet the same neighbours on a shared machine.

    Args:
        title: what is done.
        users: users that one call serves.
        baseline: the first row.
        ours: the second row; its name and the baseline's are their docstrings.
        rounds: calls of each, after three to warm up.
    """
    ways = (baseline, ours)
    for _ in range(3):
        for way in ways:
            way()
    spent = np.zeros((2, rounds))
    for turn in range(rounds):
        for row, way in enumerate(ways):
            started = time.perf_counter()
            way()
            spent[row, turn] = time.perf_counter() - started
    table = Table(title=f"{title}, {users} users a call, {rounds} calls", title_justify="left")
    for heading in ("", "p50 ms", "p95 ms", "p99 ms", "users/s", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    ratio = np.median(spent[0] / spent[1])
    for way, seconds, times in zip(ways, spent, ("1.0", f"{ratio:.1f}"), strict=True):
        cells = [f"{value * 1000:.3f}" for value in np.percentile(seconds, [50, 95, 99])]
        table.add_row(way.__doc__, *cells, f"{users / np.median(seconds):,.0f}", times)
    return table

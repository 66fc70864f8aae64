"""`mind.prepare` on one machine and on Spark in local mode, on the same files of growing size, and the slopes of both.

`python -m tests.bench.preparing_spark`, with PySpark on PYTHONPATH and Java 17. Processor time and memory are those of
the command and of all processes that it starts, read twice a second.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.table import Table

from tests import ROOT
from tests.bench.machine import console, describe
from tests.bench.preparing import Shape, write

FILES = 8
ENGINES = {"local": [], "spark, local[2]": ["--engine", "spark", "--master", "local[2]"]}


def main(
    rows: Annotated[list[int] | None, typer.Option(help="Number of rows. Repeatable; 2000000 and 5000000.")] = None,
    shape: Annotated[Shape, typer.Option(help="What the files are.")] = Shape.TEXT,
    directory: Annotated[Path | None, typer.Option(help="Where the files go; about 200 bytes a row.")] = None,
) -> None:
    """Prepare the same rows with both engines; the slope says what more of them would cost."""
    console.print(describe())
    sizes = sorted(set(rows or (2_000_000, 5_000_000)))
    table = Table(title=f"python -m mind.prepare, {FILES} files, {shape}")
    for heading in ("engine", "rows", "seconds", "processor s", "peak MB"):
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        found: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in ENGINES}
        for size in sizes:
            source = Path(folder) / str(size)
            source.mkdir()
            for number in range(FILES):
                ending = "csv" if shape is Shape.TEXT else shape
                write(source / f"clicks-{number}.{ending}", size // FILES, shape, number, size)
            for engine, words in ENGINES.items():
                measured = _measure([str(source), "--output", str(Path(folder) / "data"), *words])
                found[engine].append(measured)
                table.add_row(engine, f"{size:,}", *(f"{value:,.0f}" for value in measured))
                console.print(f"{engine}, {size:,} rows: {measured[0]:.0f} s, {measured[1]:.0f} processor s")
    for engine, measured in found.items():
        if len(sizes) > 1:
            last, first = measured[-1], measured[0]
            slopes = [(b - a) / (sizes[-1] - sizes[0]) * 1e6 for a, b in zip(first, last, strict=True)]
            table.add_row(engine, "each million more", *(f"{slope:,.1f}" for slope in slopes), style="italic")
    console.print(table)


def _measure(words: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak MB of one preparation."""
    started, used, peak = time.perf_counter(), dict[int, float](), 0
    with subprocess.Popen(
        [sys.executable, "-m", "mind.prepare", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            memory = 0
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                try:
                    times = one.cpu_times()
                    used[one.pid] = times.user + times.system
                    memory += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, memory)
            time.sleep(0.5)
        assert process.stderr is not None
        if process.returncode:
            sys.exit(process.stderr.read().decode())
    return time.perf_counter() - started, sum(used.values()), peak / 1e6


if __name__ == "__main__":
    typer.run(main)

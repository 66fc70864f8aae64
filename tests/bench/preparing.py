"""`mind.prepare` on growing files: time and memory, and where 100 million rows would end up by the slope.

`python -m tests.bench.preparing`. Each size is prepared by the command in a process of its own, whose peak memory
(resource.getrusage) is all of it, the interpreter included.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import typer
from rich.table import Table

from tests import ROOT
from tests.bench.machine import console, describe

ITEMS, PER_USER, PIECE = 368_000, 15, 1_000_000
EXTRAPOLATED = 100_000_000
COLUMNS = ["user_id", "item_id", "timestamp"]
NEWEST = 1_700_000_000


class Shape(StrEnum):
    """What the files are."""

    CSV = "csv"
    TEXT = "text"
    """CSV with text ids."""
    PARQUET = "parquet"
    JSON_LINES = "jsonl"


def main(
    millions: Annotated[list[int] | None, typer.Option(help="Million rows. Repeatable; 5 and 20.")] = None,
    shape: Annotated[list[Shape] | None, typer.Option(help="Repeatable; csv, text and parquet.")] = None,
    items: Annotated[int, typer.Option(min=1, help="Items, each with a row if there are enough rows.")] = ITEMS,
    directory: Annotated[Path | None, typer.Option(help="Where the files go; about 100 bytes a row.")] = None,
) -> None:
    """Prepare rows in any order of users; the slope says what more of them would cost."""
    console.print(describe())
    sizes = sorted({m * 1_000_000 for m in millions or (5, 20)})
    table = Table(title=f"python -m mind.prepare, {items:,} items, {PER_USER} rows a user")
    for heading in ("files", "rows", "seconds", "peak MB", "bytes a row"):
        table.add_column(heading, justify="left" if heading == "files" else "right")
    for one in shape or (Shape.CSV, Shape.TEXT, Shape.PARQUET):
        found = [_measure(one, size, items, directory) for size in sizes]
        for size, (seconds, peak) in zip(sizes, found, strict=True):
            table.add_row(one, f"{size:,}", f"{seconds:.0f}", f"{peak / 1e6:,.0f}", "")
        if len(sizes) > 1:
            slope = (np.array(found[-1]) - found[0]) / (sizes[-1] - sizes[0])
            seconds, peak = found[-1] + slope * (EXTRAPOLATED - sizes[-1])
            cells = (f"{seconds:.0f}", f"{peak / 1e6:,.0f}", f"{slope[1]:.1f}")
            table.add_row(f"{one}, by the slope", f"{EXTRAPOLATED:,}", *cells, style="italic")
    console.print(table)


def _measure(shape: Shape, rows: int, items: int, directory: Path | None) -> tuple[float, float]:
    """Seconds and peak bytes of one preparation."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        file = Path(folder) / f"clicks.{'csv' if shape is Shape.TEXT else shape}"
        write(file, rows, shape, items=items)
        command = [sys.executable, "-m", "mind.prepare", str(file), "--output", str(Path(folder) / "data")]
        script = (
            "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
        )
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", script, *command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return time.perf_counter() - started, int(done.stdout) * 1024


def write(path: Path, rows: int, shape: Shape, seed: int = 1, total: int | None = None, items: int = ITEMS) -> None:
    """Rows of users in any order, popular items more often, with times; a piece at a time.

    `total`: the rows of all files, if this is one of several. `items`: each has a row if there are enough rows.
    """
    rng = np.random.default_rng(seed)
    users = (total or rows) // PER_USER
    kind = pa.string() if shape is Shape.TEXT else pa.int64()
    schema = pa.schema(zip(COLUMNS, (kind, kind, pa.int64()), strict=True))
    if shape is Shape.PARQUET:
        with pq.ParquetWriter(path, schema) as writer:
            for table in _pieces(rng, rows, items, users, shape):
                writer.write_table(table)
    elif shape is Shape.JSON_LINES:
        with path.open("w") as lines:
            for table in _pieces(rng, rows, items, users, shape):
                columns = (column.to_pylist() for column in table.columns)
                lines.writelines(
                    f'{{"user_id": {u}, "item_id": {i}, "timestamp": {t}}}\n' for u, i, t in zip(*columns, strict=True)
                )
    else:
        with pa_csv.CSVWriter(path, schema, write_options=pa_csv.WriteOptions(quoting_style="none")) as writer:
            for table in _pieces(rng, rows, items, users, shape):
                writer.write_table(table)


def _pieces(rng: np.random.Generator, rows: int, items: int, users: int, shape: Shape) -> Iterator[pa.Table]:
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        user, item = rng.integers(0, users, count), (items * rng.random(count) ** 3).astype(np.int64)
        unseen = np.arange(start, min(start + count, items))
        item[: len(unseen)] = unseen
        time_s = pa.array(NEWEST - rng.integers(0, 31_536_000, count))
        ids = [pa.array(user), pa.array(item)]
        if shape is Shape.TEXT:
            prefixed = zip(("customer-", "SKU-"), ids, strict=True)
            ids = [pc.binary_join_element_wise(prefix, one.cast(pa.string()), "") for prefix, one in prefixed]
        yield pa.table([*ids, time_s], COLUMNS)


if __name__ == "__main__":
    typer.run(main)

"""Training lines to a sampler that is ready: time and memory, and where 100 million lines would end up.

`python -m tests.bench.reading`. Each size is read in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import typer
from rich.table import Table

from tests.bench.machine import console, describe

ITEMS, PER_USER, PIECE = 368_000, 15, 1_000_000
EXTRAPOLATED = 100_000_000


def main(
    millions: Annotated[list[int] | None, typer.Option(help="Million lines to read. Repeatable; 1, 4 and 10.")] = None,
    directory: Annotated[Path | None, typer.Option(help="Where the lines are written; 20 bytes each.")] = None,
) -> None:
    """Read sorted and shuffled lines of growing number; the slope says what more of them would cost."""
    console.print(describe())
    sizes = sorted({(m * 1_000_000) for m in millions or (1, 4, 10)})
    table = Table(title=f"read_train and TrainingSampler, {ITEMS:,} items; memory is the peak above an empty process")
    for heading in ("lines", "order", "read s", "sampler s", "peak MiB", "bytes a line"):
        table.add_column(heading, justify="left" if heading == "order" else "right")
    context = multiprocessing.get_context("spawn")
    for shuffled in (False, True):
        found = []
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            for size in sizes:
                _write(Path(folder) / "train.txt", size, shuffled)
                with context.Pool(1) as pool:
                    found.append(pool.apply(_read, (Path(folder) / "train.txt",)))
        order = "shuffled" if shuffled else "sorted"
        for size, (read_s, sampler_s, peak) in zip(sizes, found, strict=True):
            table.add_row(
                f"{size:,}", order, f"{read_s:.1f}", f"{sampler_s:.1f}", f"{peak / 2**20:,.0f}", f"{peak / size:.0f}"
            )
        if len(sizes) > 1:
            slope = np.diff(np.array([found[0], found[-1]]), axis=0)[0] / (sizes[-1] - sizes[0])
            read_s, sampler_s, peak = found[-1] + slope * (EXTRAPOLATED - sizes[-1])
            cells = (f"{read_s:.0f}", f"{sampler_s:.0f}", f"{peak / 2**20:,.0f}", f"{slope[2]:.0f}")
            table.add_row(f"{EXTRAPOLATED:,}", f"{order}, by the slope", *cells, style="italic")
    console.print(table)


def _write(path: Path, lines: int, shuffled: bool) -> None:
    """Lines of users with `PER_USER` items each, popular items more often; a piece at a time."""
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for start in range(0, lines, PIECE):
            row = np.arange(start, min(start + PIECE, lines))
            item_id = (ITEMS * rng.random(len(row)) ** 3).astype(np.int64)
            columns = [row // PER_USER, item_id, row % PER_USER]
            if shuffled:
                order = rng.permutation(len(row))
                columns = [column[order] for column in columns]
            pa_csv.write_csv(pa.table(columns, ["u", "i", "t"]), file, pa_csv.WriteOptions(include_header=False))


def _read(path: Path) -> tuple[float, float, float]:
    """Seconds to read, seconds to make a sampler and draw an order, peak bytes."""
    from mind.config import HyperParameters
    from mind.data.paddlerec import read_train
    from mind.training.sampler import TrainingSampler
    from mind.vocabulary import Vocabulary

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    sequences = read_train(path)
    read_s = time.perf_counter() - started
    sampler = TrainingSampler(sequences, Vocabulary(np.unique(sequences.item_id)), HyperParameters(), 512, 0)
    next(sampler.epoch(1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return read_s, time.perf_counter() - started - read_s, peak * 1024


if __name__ == "__main__":
    typer.run(main)

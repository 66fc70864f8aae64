"""Training speed and memory against PaddleRec's formulation of MIND: `python -m tests.bench.training_speed --help`."""

import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Protocol

import numpy as np
import typer
from rich.table import Table

from mind.config import Config
from mind.data.paddlerec import read_train, write_train
from mind.sequences import Int64, Sequences
from mind.training.loop import _Run, train
from mind.training.parallel import Ranks
from tests.bench.machine import console, describe
from tests.bench.paddlerec_formulation import NEGATIVES, PaddleRecTraining

SEED = 2024
MIN_LENGTH = 5
"""Clicks of a user, at least; AmazonBook is cut so."""
WARM_UP = 3
"""Steps before timing starts."""
TURNS = 4
"""Times that the ways of training take turns, so that they meet the same neighbours on a shared machine."""
BARS = {(12_101, 128): 4.0, (367_982, 128): 30.0}
"""Ratios that we promise, by items and batch size."""
MOST_MINUTES_AN_EPOCH = 15
MOST_GIB_AT_3_700_000 = 6
GIB = 2**30

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Shape:
    """Size of a data set."""

    items: int
    users: int
    interactions: int

    @classmethod
    def of(cls, items: int) -> "Shape":
        """That of a public data set with so many items; otherwise 25 interactions an item, 15 a user."""
        return next((shape for shape in SHAPES if shape.items == items), cls(items, items * 5 // 3, items * 25))

    def __str__(self) -> str:
        """In words."""
        return f"{self.items:,} items, {self.users:,} users, {self.interactions:,} interactions"


AMAZON_BOOK = Shape(367_982, 603_668, 8_898_041)
SHAPES = (Shape(12_101, 22_363, 198_502), AMAZON_BOOK, Shape(3_700_000, 2_000_000, 30_000_000))
"""Amazon Beauty, AmazonBook, and one ten times as large."""


def synthetic(shape: Shape, seed: int = SEED) -> Sequences:
    """Users' clicks: every item once, the others by popularity that falls as 1 / rank; item ids are the ranks.

    Few users are long: beyond `MIN_LENGTH`, clicks fall to users in proportion to a Pareto weight.
    """
    rng = np.random.default_rng(seed)
    further = rng.uniform(size=shape.interactions - shape.items)
    ranks = np.minimum(np.exp(further * np.log(shape.items + 1)).astype(np.int64), shape.items)
    item_id = rng.permutation(np.concatenate([np.arange(1, shape.items + 1), ranks]))
    weight = rng.pareto(2.0, shape.users) + 1
    lengths = MIN_LENGTH + rng.multinomial(shape.interactions - MIN_LENGTH * shape.users, weight / weight.sum())
    return Sequences(np.arange(1, shape.users + 1), np.append(0, np.cumsum(lengths)), item_id)


class Training(Protocol):
    """A way of training."""

    def step(self) -> int:
        """Read or draw a batch and learn from it; gives the number of examples."""


class OurTraining:
    """What `mind.training.loop.train` does at every step. The only place here that knows its inside."""

    def __init__(self, sequences: Sequences, batch_size: int, negatives: int = 0) -> None:
        """Train with the default recipe but for batch size and drawn negatives.

        So many epochs are announced that the step size, which falls to 0 over them, stays positive.
        """
        self._run = _Run(our_config(batch_size, negatives, 10_000), sequences, None, None, Ranks.join(use_gpu=False))
        self._run.network.train()
        self._batches = self._run.sampler.epoch(1)
        self._epoch = 1

    def step(self) -> int:
        """Sample, forward, backward, update."""
        batch = next(self._batches, None)
        if batch is None:
            self._epoch += 1
            self._batches = self._run.sampler.epoch(self._epoch)
            batch = next(self._batches)
        self._run._step(batch, self._epoch)
        return len(batch.seq_len)


def our_config(batch_size: int | None = None, negatives: int = 0, epochs: int = 1) -> Config:
    """The default recipe, but for what is given."""
    runner: dict[str, Any] = {"epochs": epochs, "seed": SEED}
    if batch_size:
        runner["train_batch_size"] = batch_size
    return Config.model_validate({"runner": runner, "hyper_parameters": {"neg_samples": negatives}})


def make(way: str, sequences: Sequences, items: int, batch_size: int, negatives: int) -> Training:
    """The way of training called `way`, one of `WAYS`."""
    if way == "ours":
        return OurTraining(sequences, batch_size, negatives)
    return PaddleRecTraining(sequences, items, batch_size)


WAYS = ("ours", "PaddleRec")


Speed = tuple[float, float]
"""Examples a second, and a second of processor time."""


def timed_steps(training: Training, seconds: float, least: int = 1) -> list[Speed]:
    """Train for a while; gives the speed of each step."""
    speeds: list[Speed] = []
    ends = time.perf_counter() + seconds
    while len(speeds) < least or time.perf_counter() < ends:
        started, processor_started = time.perf_counter(), time.process_time()
        examples = training.step()
        spent, processor_spent = time.perf_counter() - started, time.process_time() - processor_started
        speeds.append((examples / spent, examples / processor_spent))
    return speeds


@dataclass(frozen=True)
class Measured:
    """What one way of training did."""

    samples_per_s: float = 0.0
    """Median over the steps."""
    samples_per_processor_s: float = 0.0
    """The same by processor time, which neighbours on a shared machine disturb less."""
    steps: int = 0
    peak_gib: float = 0.0
    fault: str = ""
    """Why there are no figures."""

    @classmethod
    def of(cls, speeds: list[Speed], peak_gib: float) -> "Measured":
        """What the speeds of the steps come to."""
        median, processor_median = (statistics.median(column) for column in zip(*speeds, strict=True))
        return cls(median, processor_median, len(speeds), peak_gib)


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    items: int
    batch_size: int
    ways: dict[str, Measured]

    @property
    def ratio(self) -> float | None:
        """How many times as fast ours is."""
        ours, theirs = (self.ways[way].samples_per_s for way in WAYS)
        return ours / theirs if ours and theirs else None

    @property
    def processor_ratio(self) -> float | None:
        """The same by processor time."""
        ours, theirs = (self.ways[way].samples_per_processor_s for way in WAYS)
        return ours / theirs if ours and theirs else None


def peak_gib() -> float:
    """Most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class Worker:
    """A way of training in a process of its own, so that its peak memory is its own."""

    def __init__(self, way: str, data: Path, items: int, batch_size: int, negatives: int) -> None:
        """Start the process and wait until it has made its network and warmed up."""
        self.way = way
        self._speeds: list[Speed] = []
        self._fault = ""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, way, data, items, batch_size, negatives))
        self._process.start()
        other.close()
        self._receive()

    def turn(self, seconds: float) -> None:
        """Train for a while."""
        if not self._fault:
            self._pipe.send(seconds)
            self._speeds += self._receive() or []

    def stop(self) -> Measured:
        """End the process."""
        peak = 0.0
        if not self._fault:
            self._pipe.send(None)
            peak = self._receive() or 0.0
        self._process.join()
        if self._fault:
            return Measured(fault=self._fault)
        return Measured.of(self._speeds, peak)

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            answer = f"ended with exit code {self._process.exitcode}, -9 meaning out of memory"
        if isinstance(answer, str):
            self._fault = answer
            return None
        return answer


def _serve(pipe: Connection, way: str, data: Path, items: int, batch_size: int, negatives: int) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out, this process is the one to go
    try:
        training = make(way, load(data), items, batch_size, negatives)
        timed_steps(training, 0, WARM_UP)
        pipe.send([])
        while (seconds := pipe.recv()) is not None:
            pipe.send(timed_steps(training, seconds))
        pipe.send(peak_gib())
    except MemoryError as error:
        pipe.send(f"out of memory: {error}")


def save(data: Path, shape: Shape) -> None:
    """Write synthetic sequences where `load` finds them."""
    sequences = synthetic(shape)
    for name in ("user_id", "offsets", "item_id"):
        np.save(data / name, getattr(sequences, name))


def load(data: Path) -> Sequences:
    """Read what `save` wrote."""
    return Sequences(*(_array(data / f"{name}.npy") for name in ("user_id", "offsets", "item_id")))


def _array(file: Path) -> Int64:
    array: Int64 = np.load(file)
    return array


def in_process(target: Any, *arguments: Any) -> None:
    """Call a function in a process of its own and wait for it."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{target.__name__} ended with exit code {process.exitcode}")


def fits_together(items: int) -> bool:
    """Whether memory is free for both at once: 3 copies of the table for ours, 6 for PaddleRec's, data, a margin."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return available > 12 * items * our_config().hyper_parameters.embedding_dim * 4 + 4 * GIB


def measure(data: Path, items: int, batch_size: int, negatives: int, seconds: float) -> Cell:
    """Time both ways in turn, or one after the other where memory is short."""
    groups = [WAYS] if fits_together(items) else [(way,) for way in WAYS]
    found = {}
    for group in groups:
        workers = [Worker(way, data, items, batch_size, negatives) for way in group]
        for _ in range(TURNS):
            for worker in workers:
                worker.turn(seconds / TURNS)
        found |= {worker.way: worker.stop() for worker in workers}
    return Cell(items, batch_size, found)


def table(cells: Iterable[Cell], negatives: int) -> Table:
    """Both ways side by side."""
    drawn = f"the batch's own targets and {negatives:,} drawn" if negatives else "the batch's own targets"
    title = (
        "samples/s, median over steps, reading included; peak memory in GiB\n"
        f"negatives: ours {drawn}; PaddleRec {NEGATIVES:,} drawn"
    )
    result = Table(title=title, title_justify="left")
    headings = ("items", "batch", "ours", "PaddleRec", "ratio", "by CPU time", "bar", "ours GiB", "PaddleRec GiB")
    for heading in headings:
        result.add_column(heading, justify="right")
    for cell in cells:
        ours, theirs = (cell.ways[way] for way in WAYS)
        bar = BARS.get((cell.items, cell.batch_size))
        result.add_row(
            f"{cell.items:,}",
            f"{cell.batch_size:,}",
            *(way.fault or f"{way.samples_per_s:,.0f}" for way in (ours, theirs)),
            *(f"{ratio:.1f}" if ratio else "" for ratio in (cell.ratio, cell.processor_ratio)),
            f"{bar:.0f}" if bar else "",
            *("" if way.fault else f"{way.peak_gib:.2f}" for way in (ours, theirs)),
        )
    return result


class _EnoughError(Exception):
    """The share of the epoch that was asked for is done."""


def _time_epoch(file: Path, share: float, report: Path) -> None:
    started = time.perf_counter()
    sequences = read_train(file)
    read_s = time.perf_counter() - started
    stamps: list[tuple[int, float, float]] = []
    wanted = 0

    def on_step(_: int, step: int, steps: int, loss: float | None) -> None:
        nonlocal wanted
        if loss is None:  # no step was done yet
            return
        wanted = steps
        stamps.append((step, time.perf_counter(), time.process_time()))
        if step >= share * steps and step < steps:
            raise _EnoughError

    config = our_config()
    started = time.perf_counter()
    with suppress(_EnoughError):
        train(config, sequences, None, on_step)
    (first, begun, processor_begun), (last, ended, processor_ended) = stamps[0], stamps[-1]
    s_a_step = (ended - begun) / (last - first)
    found = {
        "batch_size": config.runner.train_batch_size,
        "read_s": read_s,
        "prepare_s": begun - started - first * s_a_step,
        "steps": last,
        "steps_an_epoch": wanted,
        "epoch_minutes": s_a_step * wanted / 60,
        "epoch_processor_minutes": (processor_ended - processor_begun) / (last - first) * wanted / 60,
        "samples_per_s": config.runner.train_batch_size / s_a_step,
        "peak_gib": peak_gib(),
    }
    report.write_text(json.dumps(found), encoding="utf-8")


def write_lines(file: Path, shape: Shape) -> None:
    """Write synthetic sequences as PaddleRec's training lines."""
    write_train(file, synthetic(shape))


def time_epoch(shape: Shape, share: float) -> dict[str, Any]:
    """Train one epoch, or a share of it, from a file of training lines; prints and gives what it took."""
    with TemporaryDirectory() as directory:
        file, report = Path(directory, "train.txt"), Path(directory, "report.json")
        in_process(write_lines, file, shape)
        size = file.stat().st_size / 1e6
        in_process(_time_epoch, file, share, report)
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    whole = found["steps"] == found["steps_an_epoch"]
    console.print(f"an epoch of {shape}, every click but a user's first a target, batch {found['batch_size']}")
    console.print(f"  reading {size:,.0f} MB of training lines: {found['read_s']:.1f} s")
    console.print(f"  vocabulary, sampler, network: {found['prepare_s']:.1f} s")
    console.print(
        f"  training: {found['epoch_minutes']:.1f} min an epoch (bar: at most {MOST_MINUTES_AN_EPOCH}), "
        f"{found['epoch_processor_minutes']:.1f} min of processor time, {found['samples_per_s']:,.0f} samples/s"
    )
    if not whole:
        console.print(f"  scaled up from {found['steps']:,} of {found['steps_an_epoch']:,} steps")
    console.print(
        f"  peak memory: {found['peak_gib']:.2f} GiB"
        + ("" if whole else ", without the copy of the weights at the end")
    )
    return found


def compare_speed(items: list[int], batch_sizes: list[int], negatives: int, seconds: float) -> list[Cell]:
    """All rows of the table, printing it when done."""
    cells = []
    for shape in map(Shape.of, items):
        with TemporaryDirectory() as directory:
            data = Path(directory)
            in_process(save, data, shape)
            console.print(f"{shape}, seeded, popularity as 1 / rank", soft_wrap=True)
            cells += [measure(data, shape.items, batch_size, negatives, seconds) for batch_size in batch_sizes]
    console.print(table(cells, negatives))
    peaks = [cell.ways["ours"].peak_gib for cell in cells if cell.items == 3_700_000]
    if peaks:
        console.print(f"ours at 3,700,000 items: {max(peaks):.2f} GiB (bar: under {MOST_GIB_AT_3_700_000})")
    return cells


def _as_json(cell: Cell) -> dict[str, Any]:
    return asdict(cell) | {"ratio": cell.ratio, "processor_ratio": cell.processor_ratio}


@app.command()
def main(
    items: Annotated[list[int], typer.Option(min=NEGATIVES, help="Items of a data set; repeatable.")] = [  # noqa: B006
        shape.items for shape in SHAPES
    ],
    batch: Annotated[list[int], typer.Option(min=1, help="Batch size; repeatable.")] = [128, 1024],  # noqa: B006
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to time each way in each row, at least 4 steps.")
    ] = 20,
    neg_samples: Annotated[int, typer.Option(min=0, help="Negatives that ours draws besides the batch's own.")] = 0,
    epoch: Annotated[bool, typer.Option(help="Time an epoch of AmazonBook's size instead.")] = False,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the epoch to do; the rest is scaled.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Compare training speed and peak memory with PaddleRec's formulation of MIND, on this processor."""
    machine = f"{describe()}, Paddle {version('paddlepaddle')}, load average {os.getloadavg()[0]:.1f} before the start"
    console.print(machine, soft_wrap=True)
    hyper = our_config().hyper_parameters
    console.print(
        f"{hyper.embedding_dim} dimensions, {hyper.num_interests} interests, newest {hyper.maxlen} of a history"
    )
    found: dict[str, Any] = {"machine": machine}
    if epoch:
        found["epoch"] = time_epoch(AMAZON_BOOK, share)
    else:
        cells = compare_speed(items, batch, neg_samples, seconds)
        found |= {"neg_samples": neg_samples, "cells": [_as_json(cell) for cell in cells]}
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()

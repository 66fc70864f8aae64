"""The encoders side by side, on a CPU and on a GPU: `python -m tests.bench.gpu_encode`.

NumPy, CuPy and Paddle encode the same batches in turn. What is not installed, or does not fit in memory, is left out
by name. `--items 400000 --users 64` measures less.
"""

import gc
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mind.artifact import Artifact, Float32
from mind.config import HyperParameters
from mind.encoder import Encoder, NumpyEncoder
from mind.errors import MindError
from mind.sequences import Int64
from mind.weights import Weights
from tests.bench.machine import console, describe

DIM, INTERESTS, MAXLEN = 64, 4, 20
USERS = (64, 1_024, 16_384)
ITEMS = (400_000, 3_700_000, 40_000_000)
TABLES = {"numpy": 1, "cupy": 0, "paddle": 3}
"""Copies of the item table that an encoder takes of the host's memory, beside the one it is made from."""
ON_GPU = 1.2
"""Free memory that the encoder cupy needs on the GPU, in item tables."""
CALLS = 20_000
"""Users that are encoded by one encoder in batches of one size, at least; and at least 10 batches."""


def main(
    items: Annotated[list[int] | None, typer.Option(help="Items of a model. Repeatable.")] = None,
    users: Annotated[list[int] | None, typer.Option(help="Users of a batch. Repeatable.")] = None,
) -> None:
    """Measure encoders for models and batches of several sizes."""
    console.print(describe())
    console.print(f"GPU: {card()}")
    console.print(f"{DIM} numbers an item, {INTERESTS} interests, histories of 1 to {MAXLEN} items, seeded")
    for count in items or ITEMS:
        measure(count, tuple(sorted(users or USERS)))
        gc.collect()


def card() -> str:
    """Name and memory of the GPU, or why there is none."""
    try:
        import cupy
    except ModuleNotFoundError:
        return "unknown, for CuPy is not installed (extra cupy)"
    from mind.cupy_encoder import check_gpu

    try:
        check_gpu()
    except MindError as error:
        return str(error)
    free, total = cupy.cuda.runtime.memGetInfo()
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free, CuPy {cupy.__version__}"


def measure(items: int, users: tuple[int, ...]) -> None:
    """Print a table for a model of that many items."""
    table_bytes = items * DIM * 4
    if lack := lacks_host(table_bytes * 2):  # the model's and NumPy's
        console.print(f"{items:,} items: left out, {lack}")
        return
    model = random_model(items)
    encoders: list[Encoder] = [NumpyEncoder(model.weights, model.hyper_parameters)]
    for name, make in (("cupy", on_cupy), ("paddle", on_paddle)):
        try:
            if lack := lacks_host(table_bytes * TABLES[name]):
                raise MindError(lack)
            encoders.append(make(model, users, table_bytes))
        except (MindError, ModuleNotFoundError) as error:
            console.print(f"{items:,} items, {name}: left out, {error}")
    table = Table(title=f"{items:,} items", title_justify="left")
    for heading in ("users", "encoder", "p50 ms", "p95 ms", "users/s", "ratio"):
        table.add_column(heading, justify="left" if heading == "encoder" else "right")
    for size in users:
        spent = timed(encoders, *histories(size, items))
        for encoder, seconds in zip(encoders, spent, strict=True):
            p50, p95 = np.percentile(seconds, [50, 95])
            ratio = np.median(spent[0] / seconds)
            table.add_row(
                f"{size:,}", encoder.name, f"{p50 * 1e3:.2f}", f"{p95 * 1e3:.2f}", f"{size / p50:,.0f}", f"{ratio:.1f}"
            )
    console.print(table)


def on_cupy(model: Artifact, users: tuple[int, ...], table_bytes: int) -> Encoder:
    """The encoder cupy. Raises ModuleNotFoundError or MindError where it cannot be had."""
    import cupy

    from mind.cupy_encoder import CupyEncoder, check_gpu

    check_gpu()
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < table_bytes * ON_GPU:
        raise MindError(f"it needs {table_bytes * ON_GPU / 1e9:.1f} GB of the GPU, {free / 1e9:.1f} GB are free")
    return CupyEncoder(model.weights, model.hyper_parameters, users)


def on_paddle(model: Artifact, users: tuple[int, ...], table_bytes: int) -> Encoder:
    """The encoder paddle, on a GPU where its build finds one. Raises ModuleNotFoundError where it is not installed."""
    from mind.paddle_encoder import PaddleEncoder

    encoder = PaddleEncoder.from_artifact(model, "auto", users)
    encoder.name = "paddle, GPU" if encoder.batch_sizes else "paddle, CPU"
    return encoder


def timed(encoders: list[Encoder], hist_index: Int64, seq_len: Int64) -> Float32:
    """[E, calls] seconds of each encoder's calls, which take turns. All must agree with the first."""
    expected = encoders[0].encode(hist_index, seq_len)
    for encoder in encoders[1:]:
        np.testing.assert_allclose(encoder.encode(hist_index, seq_len), expected, rtol=1e-3, atol=1e-4)
    calls = max(10, CALLS // len(seq_len))
    spent = np.zeros((len(encoders), calls), np.float32)
    for call in range(calls):
        for row, encoder in enumerate(encoders):
            started = time.perf_counter()
            encoder.encode(hist_index, seq_len)
            spent[row, call] = time.perf_counter() - started
    return spent


def histories(users: int, items: int) -> tuple[Int64, Int64]:
    """Random histories of 1 to `MAXLEN` items."""
    rng = np.random.default_rng(users)
    seq_len = rng.integers(1, MAXLEN + 1, users)
    return rng.integers(1, items + 1, (users, MAXLEN)) * (np.arange(MAXLEN) < seq_len[:, None]), seq_len


def random_model(items: int) -> Artifact:
    """A model of random weights."""
    rng = np.random.default_rng(items)
    embedding = rng.standard_normal((items + 1, DIM), np.float32)
    embedding[0] = 0
    nothing = np.zeros((0, MAXLEN), np.int64)
    weights = Weights(
        item_id=np.arange(items),
        item_embedding=embedding,
        popularity=np.zeros(items, np.int64),
        bilinear=(np.eye(DIM) + rng.normal(size=(DIM, DIM)) * 0.1).astype(np.float32),
        routing_logits=rng.standard_normal((INTERESTS, MAXLEN), np.float32),
        recency_logits=-0.3 * np.arange(MAXLEN, dtype=np.float32),
        focus=np.array([0.7], np.float32),
        golden_hist_index=nothing,
        golden_seq_len=nothing[:, 0],
        golden_interest_vectors=np.zeros((0, INTERESTS, DIM), np.float32),
    )
    sizes = {"embedding_dim": DIM, "hidden_size": DIM, "num_interests": INTERESTS, "maxlen": MAXLEN}
    return Artifact("bench", HyperParameters(item_count=items, **sizes), weights)


def lacks_host(needed: int) -> str:
    """Why that many bytes are not to be had; empty if they are."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(rows["MemAvailable"].split()[0]) * 1024
    return "" if needed < free else f"it needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


if __name__ == "__main__":
    typer.run(main)

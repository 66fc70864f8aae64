"""What choosing the index is worth: `python -m tests.bench.serving.tuned`.

Clicks become a trained model; `indexer tune` measures indexes with it for some users; then one server serves other
users from the default index and from the chosen one in turn, released one after the other. Every step is a command
that users have.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import Progress

from mind.artifact import newest_artifact
from mind.data.paddlerec import write_eval, write_train
from mind.data.split import hold_out
from tests.bench.machine import console, describe
from tests.bench.serving import report, world
from tests.bench.serving.bench import Bench, Row, Subject, recall_of
from tests.bench.serving.world import ROOT, TOP_K, Worker

DEFAULT, CHOSEN = "default", "chosen"
VALID_USERS, SERVED_USERS = 1_000, 10_000
CHECKED_USERS = 1_000
REQUESTS = ({"users": 1, "callers": 64}, {"users": 64, "callers": 16})

app = typer.Typer(add_completion=False)


def write_clicks(directory: Path, items: int, users: int) -> None:
    """Clustered clicks (`world.synthetic`): `users` to train on, others to choose with, others to serve."""
    _, clicks = world.synthetic(items, users + VALID_USERS + SERVED_USERS)
    train, valid, served = np.split(np.arange(len(clicks)), [users, users + VALID_USERS])
    for name in ("train", "valid"):
        (directory / name).mkdir(exist_ok=True)
    write_train(directory / "train" / "train.txt", clicks.take(train))
    write_eval(directory / "valid" / "valid.txt", hold_out(clicks, valid))
    world.write_histories(directory, clicks.take(served))


def train(directory: Path, epochs: int) -> Path:
    """A model by the default recipe; gives its directory."""
    options = {
        "train_data_dir": directory / "train",
        "valid_data_dir": directory / "valid",
        "model_save_path": directory / "artifacts",
        "epochs": epochs,
    }
    command = [sys.executable, "-m", "mind.train", "-m", "mind/config.yaml"]
    for key, value in options.items():
        command += ["-o", f"runner.{key}={value}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return newest_artifact(directory / "artifacts")


def subject(
    name: str, collection: str, uri: str, load: Worker, server: tuple[str, int], exact: list[list[int]]
) -> Subject:
    """The server with one of the two released, which every question makes sure of."""
    address, pid = server
    publish = partial(world.indexer, uri, "publish", collection, "--wait", "--server", address, capture_output=True)

    def ask(**question: Any) -> Any:
        publish()
        return load.ask(kind="grpc", address=address, **question)

    return Subject(name, pid, ask, recall_of(ask(check=CHECKED_USERS), exact))


def served_in_turn(
    directory: Path, artifact: Path, uri: str, collections: Mapping[str, str], bench: Bench
) -> list[Row]:
    """Serve from two collections of one model, released one after the other: rows in pairs, for each of `REQUESTS`.

    `collections`: the name of each in the table, and its own.
    """
    exact = world.exact_candidates(artifact, directory, min(CHECKED_USERS, len(world.read_histories(directory))))
    rows: list[Row] = []
    with (
        world.worker("tests.bench.serving.load", str(directory)) as load,
        world.our_server(directory, uri, "--watch-interval-s", "1") as server,
        Progress(console=console, transient=True) as progress,
    ):
        two = [subject(name, each, uri, load, server, exact) for name, each in collections.items()]
        for request in progress.track(REQUESTS, description="serving"):
            rows += bench.compare(request["users"], [(each, f"{request['callers']}", request) for each in two])
    return rows


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, choice and collections, which are used again; results.")] = Path(
        "build/bench-tuned"
    ),
    items: Annotated[int, typer.Option(min=2_000, help="Size of the catalogue.")] = 367_982,
    users: Annotated[int, typer.Option(min=100, help="Users to train on, 12 clicks each.")] = 150_000,
    epochs: Annotated[int, typer.Option(min=1, help="Of training.")] = 2,
    index_type: Annotated[list[str] | None, typer.Option(help="Index to try; without it, all. Repeatable.")] = None,
    min_recall: Annotated[float, typer.Option(help="What the chosen index must find of the exact best 50.")] = 0.99,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each index.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 4,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Train, tune, and serve from the default index and the chosen one in turn."""
    directory = workdir / str(items)
    directory.mkdir(parents=True, exist_ok=True)
    console.width = max(console.width, world.WIDTH)
    console.print(describe())
    if not (directory / "artifacts").exists():
        write_clicks(directory, items, users)
        train(directory, epochs)
    artifact = newest_artifact(directory / "artifacts")
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        index = directory / "index.json"
        if not index.exists():
            how = ["--histories", str(directory / "valid"), "--min-recall", str(min_recall)]
            how += [word for each in index_type or () for word in ("--index-type", each)]
            world.indexer(uri, "tune", "--artifact", str(artifact), *how, "--output", str(index))
        collections = {
            DEFAULT: world.build_and_publish(artifact, uri),
            CHOSEN: world.build_and_publish(artifact, uri, ["--index", str(index)]),
        }
        rows = served_in_turn(directory, artifact, uri, collections, Bench(milvus_pid, rounds, seconds))
    console.print(f"{items:,} items, top_k {TOP_K}, {rounds} turns of {seconds:g} s each, medians")
    console.print(report.tuned(rows))
    results = {"machine": describe(), "items": items, "index": json.loads(index.read_text())}
    results["rows"] = [asdict(row) for row in rows]
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()

"""What attributes of candidates cost: `python -m tests.bench.serving.attributes`.

One real Milvus and one server. The same requests with and without three attributes (a title of its own for each item, a
price and a category), in turn; and the memory that their columns take.
"""

import csv
import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clients import RecallClient
from mind.artifact import load_artifact
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Row, Subject
from tests.bench.serving.report import pairs
from tests.bench.serving.world import TOP_K

NAMES = ("title", "price", "category")
LOADS = ((64, 1), (64, 16), (1, 64))
"""Users of a request, and callers."""

app = typer.Typer(add_completion=False)


def write_attributes(file: Path, artifact: Path) -> None:
    """Write the attributes of all items where the indexer reads them."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("item_id", *NAMES))
        for item in load_artifact(artifact).weights.item_id.tolist():
            writer.writerow((item, f"Article {item} of the catalogue", item % 5_000 / 100, f"category {item % 200}"))


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-attributes"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns with and without attributes under a load.")] = 9,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 3,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Measure throughput with and without attributes."""
    directory, artifact = world.begin(workdir, items)
    write_attributes(directory / "items.csv", artifact)
    rows: list[Row] = []
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        world.build_and_publish(artifact, uri, [*world.INDEX, "--attributes", str(directory / "items.csv")])
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        address, pid = stack.enter_context(world.our_server(directory, uri))
        with RecallClient(address, timeout_s=60) as client:
            size_mb, took_s = world.read_columns(client, directory / "server.log", NAMES)
            [found] = client.recall([[]], top_k=TOP_K, return_attributes=NAMES).attributes
        if not all(np.char.startswith(np.array(found["title"], str), "Article ")):
            raise SystemExit(f"wrong titles: {found['title'][:3]}")
        ask = partial(load.ask, kind="grpc", address=address)
        bench = Bench(milvus_pid, rounds, seconds)
        subjects = Subject("none", pid, ask, 1), Subject("3", pid, partial(ask, attributes=NAMES), 1)
        for users, callers in LOADS:
            question = {"users": users, "callers": callers}
            rows += bench.compare(users, [(subject, f"{callers}", question) for subject in subjects])
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")
    console.print(pairs("Three attributes with each candidate, in turn", "attributes", rows))
    console.print(f"columns: read in {took_s:.1f} s, {size_mb:.0f} MB, {size_mb * 2**20 / items:.0f} bytes an item")
    results = {"machine": describe(), "items": items, "columns_mb": size_mb, "rows": [asdict(row) for row in rows]}
    (directory / "attributes.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()

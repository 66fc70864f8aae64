"""What rules about candidates cost: `python -m tests.bench.serving.variety`.

One real Milvus and one server. The same requests without rules and with each of them, in turn. Categories and brands
are spread over the catalogue, and so are few of them full; items of a shelf lie beside one another, as near items of a
shop may, so that a cap on shelves needs a far deeper search.
"""

import csv
import json
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import RecallClient
from mind.artifact import load_artifact
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Row, Subject
from tests.bench.serving.report import pairs
from tests.bench.serving.world import TOP_K

SHELF_ITEMS = 50
"""Items of a shelf; a cluster of the model has four."""
AT_MOST = [["category", 5], ["brand", 3]]
RULES: dict[str, dict[str, Any]] = {
    "at_most": {"at_most": AT_MOST},
    "per_interest_min": {"per_interest_min": 5},
    "diversity": {"diversity": 0.3},
    "all": {"at_most": AT_MOST, "per_interest_min": 5, "diversity": 0.3},
    "at_most, shelf": {"at_most": [["shelf", 5]]},
}
LOADS = ((64, 1), (64, 16), (1, 64))
"""Users of a request, and callers."""

app = typer.Typer(add_completion=False)


def write_attributes(file: Path, artifact: Path) -> None:
    """Write the attributes of all items where the indexer reads them."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("item_id", "category", "brand", "shelf"))
        for row, item in enumerate(load_artifact(artifact).weights.item_id.tolist()):
            writer.writerow((item, f"category {row % 200}", f"brand {row % 41}", f"shelf {row // SHELF_ITEMS}"))


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-variety"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns without and with rules under a load.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 2,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Measure throughput without and with rules."""
    directory, artifact = world.begin(workdir, items)
    write_attributes(directory / "items.csv", artifact)
    rows: list[Row] = []
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        world.build_and_publish(artifact, uri, [*world.INDEX, "--attributes", str(directory / "items.csv")])
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        address, pid = stack.enter_context(world.our_server(directory, uri))
        with RecallClient(address, timeout_s=60) as client:
            world.read_columns(client, directory / "server.log", ("category", "brand", "shelf"))
        ask = partial(load.ask, kind="grpc", address=address)
        bench = Bench(milvus_pid, rounds, seconds)
        plain = Subject("none", pid, ask, 1)
        for users, callers in LOADS:
            question = {"users": users, "callers": callers}
            asked = [
                (subject, f"{callers}", question | given)
                for name, rule in RULES.items()
                for subject, given in ((plain, {}), (Subject(name, pid, ask, 1), rule))
            ]
            rows += bench.compare(users, asked)
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")
    console.print(pairs("Rules about candidates, in turn with requests without", "rules", rows))
    results = {"machine": describe(), "items": items, "rows": [asdict(row) for row in rows]}
    (directory / "variety.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()

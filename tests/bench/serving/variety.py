"""What rules about candidates, boosts, pins and drawn items cost: `python -m tests.bench.serving.variety`.

One real Milvus and one server. The same requests without rules and with each of them, in turn. Categories and brands
are spread over the catalogue, and so are few of them full; items of a shelf lie beside one another, as near items of a
shop may, so that a cap on shelves needs a far deeper search.
"""

import csv
import json
import time
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
BOOSTS: dict[str, dict[str, Any]] = {
    "boost 1 %": {"boosts": [["margin < 0.01", 1.0]]},
    "boost 10 %": {"boosts": [["margin < 0.1", 1.0]]},
    "boost 50 %": {"boosts": [["margin < 0.5", 1.0]]},
    "lower 10 %": {"boosts": [["margin < 0.1", -1.0]]},
    "lower 50 %": {"boosts": [["margin < 0.5", -1.0]]},
    "newer": {"newer": [["published_at", 1.0, 30.0]]},
    "explore": {"explore": 0.05},
}
PINS = 5
YEAR_S = 365 * 86_400
LOADS = ((64, 1), (64, 16), (1, 64))
"""Users of a request, and callers."""

app = typer.Typer(add_completion=False)


def write_attributes(file: Path, artifact: Path) -> None:
    """Write the attributes of all items where the indexer reads them."""
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("item_id", "category", "brand", "shelf", "margin", "published_at"))
        now_s = int(time.time())
        for row, item in enumerate(load_artifact(artifact).weights.item_id.tolist()):
            names = f"category {row % 200}", f"brand {row % 41}", f"shelf {row // SHELF_ITEMS}"
            writer.writerow((item, *names, row * 7_919 % 1_000 / 1_000, now_s - row * 104_729 % YEAR_S))


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-variety"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 367_982,
    rounds: Annotated[int, typer.Option(min=1, help="Turns without and with rules under a load.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 2,
    only: Annotated[str, typer.Option(help="Measure only these, by name, separated by semicolons.")] = "",
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
            columns = "category", "brand", "shelf", "margin", "published_at"
            world.read_columns(client, directory / "server.log", columns)
        ask = partial(load.ask, kind="grpc", address=address)
        bench = Bench(milvus_pid, rounds, seconds)
        plain = Subject("none", pid, ask, 1)
        pinned = {"pins": {"pin": load_artifact(artifact).weights.item_id[:PINS].tolist()}}
        chosen = RULES | BOOSTS | pinned
        names = [name.strip() for name in only.split(";")] if only else list(chosen)
        for users, callers in LOADS:
            question = {"users": users, "callers": callers}
            asked = [
                (subject, f"{callers}", question | given)
                for name in names
                for subject, given in ((plain, {}), (Subject(name, pid, ask, 1), chosen[name]))
            ]
            rows += bench.compare(users, asked)
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")
    console.print(pairs("Rules about candidates, in turn with requests without", "rules", rows))
    results = {"machine": describe(), "items": items, "rows": [asdict(row) for row in rows]}
    (directory / "variety.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()

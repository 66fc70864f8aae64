"""What rules about candidates, boosts, pins and drawn items cost: `python -m tests.bench.serving.variety`.

One real Milvus and one server. The same requests without rules and with each of them, in turn. Categories and brands
are spread over the catalogue, and so few of them are full; items of a rack lie beside one another, so that a cap on
racks needs a far deeper search.
"""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from mind.artifact import load_artifact
from tests.bench.machine import console
from tests.bench.serving.bench import Bench
from tests.bench.serving.report import pairs
from tests.bench.serving.stage import (
    ITEMS,
    LOADS,
    WORKDIR,
    Items,
    MilvusUri,
    Rounds,
    Seconds,
    Workdir,
    head,
    save,
    staged,
)

AT_MOST = [["category", 5], ["brand", 3]]
RULES: dict[str, dict[str, Any]] = {
    "at_most": {"at_most": AT_MOST},
    "per_interest_min": {"per_interest_min": 5},
    "diversity": {"diversity": 0.3},
    "all": {"at_most": AT_MOST, "per_interest_min": 5, "diversity": 0.3},
    "at_most, rack": {"at_most": [["rack", 5]]},
}
BOOSTS: dict[str, dict[str, Any]] = {
    "boost 1 %": {"boosts": [["bucket < 10", 1.0]]},
    "boost 10 %": {"boosts": [["bucket < 100", 1.0]]},
    "boost 50 %": {"boosts": [["bucket < 500", 1.0]]},
    "lower 10 %": {"boosts": [["bucket < 100", -1.0]]},
    "lower 50 %": {"boosts": [["bucket < 500", -1.0]]},
    "newer": {"newer": [["published_at", 1.0, 30.0]]},
    "explore": {"explore": 0.05},
}
PINS = 5

app = typer.Typer(add_completion=False)


@app.command()
def main(
    workdir: Workdir = WORKDIR,
    items: Items = ITEMS,
    rounds: Rounds = 7,
    seconds: Seconds = 2,
    only: Annotated[str, typer.Option(help="Measure only these, by name, separated by semicolons.")] = "",
    milvus_uri: MilvusUri = "",
) -> None:
    """Measure throughput without and with rules."""
    with staged(workdir, items, milvus_uri) as stage:
        stage.read_columns(("category", "brand", "rack", "bucket", "published_at"))
        pins = load_artifact(stage.artifact).weights.item_id[:PINS].tolist()
        ways = RULES | BOOSTS | {"pins": {"pin": pins}}
        names = [name.strip() for name in only.split(";")] if only else list(ways)
        subjects = [(stage.subject("none"), stage.subject(name, **ways[name])) for name in names]
        rows = Bench(stage.milvus_pid, rounds, seconds).beside(LOADS, subjects)
    head(items, rounds, seconds)
    console.print(pairs("Rules about candidates, in turn with requests without", "rules", rows))
    save(stage.directory, "variety", items=items, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    app()

"""What attributes of candidates cost: `python -m tests.bench.serving.attributes`.

One real Milvus and one server. The same requests with and without three attributes (a title of its own for each item, a
price and a category), in turn; and the memory that their columns take.
"""

from dataclasses import asdict

import numpy as np
import typer

from tests.bench.machine import console
from tests.bench.serving.bench import Bench
from tests.bench.serving.catalogue import SHOWN
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
from tests.bench.serving.world import TOP_K

app = typer.Typer(add_completion=False)


@app.command()
def main(
    workdir: Workdir = WORKDIR,
    items: Items = ITEMS,
    rounds: Rounds = 9,
    seconds: Seconds = 3,
    milvus_uri: MilvusUri = "",
) -> None:
    """Measure throughput with and without attributes."""
    with staged(workdir, items, milvus_uri) as stage:
        size_mb, took_s = stage.read_columns(SHOWN)
        with stage.client() as client:
            [found] = client.recall([[]], top_k=TOP_K, return_attributes=SHOWN).attributes
        if not all(np.char.startswith(np.array(found["title"], str), "Article ")):
            raise SystemExit(f"wrong titles: {found['title'][:3]}")
        subjects = stage.subject("none"), stage.subject("3", attributes=SHOWN)
        rows = Bench(stage.milvus_pid, rounds, seconds).beside(LOADS, [subjects])
    head(items, rounds, seconds)
    console.print(pairs("Three attributes with each candidate, in turn", "attributes", rows))
    console.print(f"columns: read in {took_s:.1f} s, {size_mb:.0f} MB, {size_mb * 2**20 / items:.0f} bytes an item")
    save(stage.directory, "attributes", items=items, columns_mb=size_mb, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    app()

"""The command that prepares data: `python -m mind.prepare movielens-100k --output data/movielens-100k`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from mind import movielens
from mind.command import run
from mind.interactions import read_interactions
from mind.paddlerec import replacing, write_eval, write_train
from mind.sequences import EvalCases, Int64
from mind.split import Split, split

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)

EPILOG = """Examples:

python -m mind.prepare movielens-100k --output data/movielens-100k

python -m mind.prepare clicks.csv --output data/mine --user uid --item iid --time ts

python -m mind.prepare ratings.tsv --output data/mine --header user_id,item_id,rating,timestamp"""


@app.command(epilog=EPILOG)
def main(
    source: Annotated[
        str,
        typer.Argument(
            help="A CSV (plain or compressed) or Parquet file with a row for every interaction, or the name "
            "movielens-100k, which is downloaded."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Directory that receives train/, valid/ and test/.")],
    user: Annotated[str, typer.Option(help="Column of user ids, integers of 64 bits.")] = "user_id",
    item: Annotated[str, typer.Option(help="Column of item ids, integers of 64 bits.")] = "item_id",
    time: Annotated[str, typer.Option(help="Column of times: integers, floats or ISO 8601.")] = "timestamp",
    delimiter: Annotated[
        str | None,
        typer.Option(help="What separates the columns of a CSV file, one character or `tab`; detected otherwise."),
    ] = None,
    header: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,..", help="All columns of a CSV file that has no header.")
    ] = None,
    max_malformed: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of rows that may be malformed or lack a value.")
    ] = 0.01,
    min_interactions: Annotated[int, typer.Option(min=2, help="Users with fewer interactions are dropped.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split of the users.")] = 2024,
    cache_dir: Annotated[Path, typer.Option(help="Where the download of movielens-100k is kept.")] = Path(
        "data/downloads"
    ),
    archive: Annotated[
        Path | None,
        typer.Option(
            help="A copy of recbole-1.2.1-py3-none-any.whl or ml-100k.zip, instead of a download of movielens-100k."
        ),
    ] = None,
) -> None:
    """Turn interactions into training and evaluation data.

    Users are shuffled and split 8:1:1 into train, valid and test (the protocol of ComiRec). Of a held-out user, the
    first 80 % of the items are the history and the rest is what the model has to find.

    Duplicates are dropped, times are put in order, malformed rows are skipped and reported with their lines.
    """
    items = None
    if source == movielens.NAME:
        data = movielens.read_archive(archive or movielens.fetch(cache_dir))
        interactions, report, items = data.interactions, data.report, data.items
    else:
        interactions, report = read_interactions(
            Path(source),
            user,
            item,
            time,
            delimiter="\t" if delimiter == "tab" else delimiter,
            header=header.split(",") if header else None,
            max_malformed=max_malformed,
        )
    console.print(str(report), markup=False, soft_wrap=True)
    parts = split(interactions, seed=seed, min_interactions=min_interactions)
    write_train(output / "train" / "train.txt", parts.train)
    write_eval(output / "valid" / "valid.txt", parts.valid)
    write_eval(output / "test" / "test.txt", parts.test)
    if items is not None:
        with replacing(output / "items.parquet") as file:
            pq.write_table(items, file)
    if parts.dropped_users:
        console.print(f"users dropped, fewer than {min_interactions} interactions: {parts.dropped_users:,}")
    console.print(_summary(parts))
    console.print(f"written to {output}", markup=False, soft_wrap=True)


def _summary(parts: Split) -> Table:
    table = Table()
    table.add_column("split")
    for heading in ("users", "items", "interactions"):
        table.add_column(heading, justify="right")
    for name, users, item_id in (
        ("train", len(parts.train), parts.train.item_id),
        ("valid", len(parts.valid), _item_ids(parts.valid)),
        ("test", len(parts.test), _item_ids(parts.test)),
    ):
        table.add_row(name, f"{users:,}", f"{len(np.unique(item_id)):,}", f"{len(item_id):,}")
    return table


def _item_ids(cases: EvalCases) -> Int64:
    return np.concatenate([cases.history.item_id, cases.target.item_id])


if __name__ == "__main__":
    run(app)

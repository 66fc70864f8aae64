"""What a popular list of a window is worth to users without a past.

`python -m tests.bench.recency --data data/timed`, of data that were prepared with `--split time --keep-ages`.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mind.data.ages import read_ages
from mind.data.paddlerec import read_eval, read_train
from mind.evaluation.baselines import most_popular
from mind.evaluation.metrics import report
from mind.training.recency import popularity_within
from mind.vocabulary import Vocabulary
from tests.bench.machine import console

WINDOWS = (None, 60.0, 30.0, 14.0, 7.0, 3.0)
CUTOFFS = (20, 50)


def main(
    data: Annotated[Path, typer.Option(help="Directory that mind.prepare wrote.")] = Path("data/timed"),
) -> None:
    """Rank items by their clicks of the last days, for test users without a past and for all of them."""
    train, cases = read_train(data / "train"), read_eval(data / "test")
    ages = read_ages(data / "train", len(train.item_id))
    item_id, clicks = np.unique(train.item_id, return_counts=True)
    vocabulary = Vocabulary(item_id)
    new = cases.take(np.flatnonzero(cases.history.lengths == 0))
    table = Table(title=f"{len(new)} test users without a past, and all {len(cases)}, per cent")
    for heading in ("days", *(f"{who} recall@{n}" for who in ("no past", "all") for n in CUTOFFS)):
        table.add_column(heading, justify="right")
    for days in WINDOWS:
        popularity = popularity_within(train, vocabulary, ages, days, clicks)
        found = []
        for users in (new, cases):
            scores = report(most_popular(vocabulary, popularity, users.history, CUTOFFS[-1]), users.target, CUTOFFS)
            found += [f"{100 * scores[f'recall@{n}']:.1f}" for n in CUTOFFS]
        table.add_row("all" if days is None else f"{days:g}", *found)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

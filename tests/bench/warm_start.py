"""What a warm start saves on MovieLens-100K: a model of nine tenths of the users, then a tenth more of them.

`python -m tests.bench.warm_start`, after `make demo` or `python -m mind.prepare movielens-100k`. The earlier model has
never seen the test users; validation users choose the epoch. Seconds are processor time of training alone.
"""

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from tests.bench.machine import console, describe

EPOCHS, ANEW_EPOCHS = (1, 2, 3, 5), (2, 5)
"""Epochs of warm starts; and of trainings anew, besides one with the epochs of the recipe."""


def main(
    data: Annotated[Path, typer.Option(help="Prepared data.")] = Path("data/movielens-100k"),
    config: Annotated[Path, typer.Option(help="Recipe.")] = Path("mind/config.yaml"),
    override: Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Passed to the recipe.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 3,
    share: Annotated[float, typer.Option(help="Share of the training users that the earlier model had.")] = 0.9,
) -> None:
    """Train anew and from the earlier model; recall@50 and NDCG@50 of the test users."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console.print(describe())
    runs = [_run(data, config, override or [], seed, share) for seed in range(1, seeds + 1)]
    table = Table(title=f"test users, per cent, mean ± sd of {seeds} seeds; {1 - share:.0%} of the users are new")
    for heading in ("", "recall@50", "NDCG@50", "best epoch", "seconds", "of anew"):
        table.add_column(heading, justify="right" if heading else "left")
    anew_s = np.mean([run["anew"][3] for run in runs])
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        recall, ndcg = 100 * values[:, 0], 100 * values[:, 1]
        seconds = values[:, 3].mean()
        table.add_row(
            name,
            f"{recall.mean():.2f} ± {recall.std():.2f}",
            f"{ndcg.mean():.2f} ± {ndcg.std():.2f}",
            f"{values[:, 2].mean():.1f}",
            f"{seconds:.1f}",
            f"{seconds / anew_s:.2f}",
        )
    console.print(table)


def _run(data: Path, config: Path, override: list[str], seed: int, share: float) -> dict[str, tuple[float, ...]]:
    """Recall, NDCG, the epoch that was kept and the seconds of each variant."""
    from mind.artifact import Artifact
    from mind.config import load_config
    from mind.data.paddlerec import read_eval, read_train
    from mind.evaluation.side_by_side import compare
    from mind.training.loop import train

    sequences, valid, test = read_train(data / "train"), read_eval(data / "valid"), read_eval(data / "test")
    drawn = np.random.default_rng(seed).permutation(len(sequences))[: round(share * len(sequences))]
    earlier_users = sequences.take(np.sort(drawn))

    def measured(
        users: object, epochs: int | None, number: int, warm: Artifact | None
    ) -> tuple[tuple[float, ...], Artifact]:
        keys = [f"runner.seed={number}", *([f"runner.epochs={epochs}"] if epochs else []), *override]
        settings = load_config(config, keys)
        started = time.process_time()
        trained = train(settings, users, valid, warm=warm)  # type: ignore[arg-type]
        seconds = time.process_time() - started
        model = Artifact(f"{number:012}", settings.hyper_parameters, trained.weights)
        side = compare(test, model, None, 0).candidate
        console.print(f"seed {seed}, {'warm' if warm else 'anew'}, {epochs or 'all'} epochs: {side.recall.mean:.4f}")
        return (side.recall.mean, side.ndcg, trained.best.number, seconds), model

    found: dict[str, tuple[float, ...]] = {}
    found["earlier model"], earlier = measured(earlier_users, None, seed, None)
    found["anew"], _ = measured(sequences, None, seed + 100, None)
    for epochs in EPOCHS:
        name = f"warm, {epochs} epoch{'s' if epochs > 1 else ''}"
        found[name], _ = measured(sequences, epochs, seed + 100, earlier)
    for epochs in ANEW_EPOCHS:
        name = f"anew, {epochs} epoch{'s' if epochs > 1 else ''}"
        found[name], _ = measured(sequences, epochs, seed + 100, None)
    return found


if __name__ == "__main__":
    typer.run(main)

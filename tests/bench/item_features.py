"""What item features are worth on MovieLens-100K, to the items that were trained and to those that were not.

`python -m tests.bench.item_features`, after `make demo` or `python -m mind.prepare movielens-100k`. Validation users.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from tests.bench.machine import console, describe

VARIANTS = {"id alone": [], "genres": ["genres"], "genres, year": ["genres", "year"]}
COLD_SHARE = 0.1
METRICS = ("recall@20", "recall@50", "ndcg@50")


def main(
    data: Annotated[Path, typer.Option(help="Prepared data with items.parquet.")] = Path("data/movielens-100k"),
    config: Annotated[Path, typer.Option(help="Recipe.")] = Path("mind/config.yaml"),
    override: Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Passed to the recipe.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant.")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
) -> None:
    """Train with and without features: all items, and with a tenth of the items kept out of training."""
    console.print(describe())
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table(
        title=f"validation users, per cent, mean ± sd of {seeds} seeds; "
        "warm, cold: a tenth of the items kept out of training, cold ones ranked among themselves"
    )
    for heading in ("features", *METRICS, "warm recall@50", "cold recall@20", "by chance @20"):
        table.add_column(heading, justify="right" if "@" in heading else "left")
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        runs = {
            name: [pool.submit(_run, data, config, override or [], names, seed) for seed in range(1, seeds + 1)]
            for name, names in VARIANTS.items()
        }
        for name, futures in runs.items():
            values = 100 * np.array([future.result() for future in futures])
            table.add_row(name, *(f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(0), values.std(0), strict=True)))
    console.print(table)


def _run(data: Path, config: Path, override: list[str], features: list[str], seed: int) -> list[float]:
    """Metrics with all items; then recall of warm and of cold targets with a tenth of the items kept out."""
    from mind.config import load_config
    from mind.data.features import read_features
    from mind.data.paddlerec import read_eval, read_train
    from mind.training.loop import train

    keys = [f"runner.seed={seed}", f"hyper_parameters.item_features=[{','.join(features)}]"]
    file = data / "items.parquet"
    settings = load_config(config, [f"runner.item_features_file={file}", *keys, *override])
    table = read_features(file, features) if features else None
    sequences, valid = read_train(data / "train"), read_eval(data / "valid")
    best = train(settings, sequences, valid, features=table).best.metrics
    item_id = np.unique(sequences.item_id)
    cold = np.random.default_rng(0).choice(item_id, int(COLD_SHARE * len(item_id)), replace=False)
    weights = train(settings, _without(sequences, cold), _without_cases(valid, cold), features=table).weights
    return [*(best[name] for name in METRICS), *_recall_of(weights, settings, valid, cold)]


def _without(sequences, items):  # type: ignore[no-untyped-def]
    from mind.sequences import Sequences

    keep = ~np.isin(sequences.item_id, items)
    offsets = np.concatenate([[0], np.cumsum(keep)])[sequences.offsets]
    return Sequences(sequences.user_id, offsets, sequences.item_id[keep])


def _without_cases(cases, items):  # type: ignore[no-untyped-def]
    """The best epoch must not be chosen by the cold items either."""
    from mind.sequences import EvalCases

    target = _without(cases.target, items)
    kept = np.flatnonzero(target.lengths)
    return EvalCases(_without(cases.history, items).take(kept), target.take(kept))


def _recall_of(weights, settings, valid, cold) -> list[float]:  # type: ignore[no-untyped-def]
    """Recall@50 of the warm targets; recall@20 of the cold ones where the cold items alone compete, and by chance."""
    from mind.encoder import NumpyEncoder
    from mind.evaluation.metrics import hits
    from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
    from mind.vocabulary import Vocabulary

    vocabulary, hyper = Vocabulary(weights.item_id), settings.hyper_parameters
    history = _without(valid.history, cold)
    vectors = encode_histories(NumpyEncoder(weights, hyper), vocabulary, history, hyper.maxlen, 256)
    found = item_ids(vocabulary, nearest_items(vectors, weights.item_embedding, 50))
    is_cold = np.isin(valid.target.item_id, cold)
    warm = hits(found, valid.target).sum() / (~is_cold).sum()
    rows = vocabulary.item_index(np.sort(cold))
    if not rows.all():
        return [warm, 0.0, 20 / len(cold)]  # without features such items are in no collection
    shelf = np.concatenate([np.zeros((1, hyper.embedding_dim), np.float32), weights.item_embedding[rows]])
    found = item_ids(Vocabulary(np.sort(cold)), nearest_items(vectors, shelf, 20))
    return [warm, hits(found, valid.target).sum() / is_cold.sum(), 20 / len(cold)]


if __name__ == "__main__":
    typer.run(main)

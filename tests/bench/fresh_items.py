"""What adding fresh items between trainings is worth, against waiting for the next training.

    python -m tests.bench.fresh_items                                    after `make demo` or `mind.prepare`
    python -m tests.bench.fresh_items --data DIR --hold-out random       any prepared data; without times, at random

Some items are held out: the model is trained without them. Then they are added in each way that `indexer upsert` knows
and found by exact search, and, in the rows of the second source, as neighbours of the newest clicks. "Those users" are
the users who clicked a held-out item afterwards.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from tests.bench.item_features import _without, _without_cases
from tests.bench.machine import console, describe

CUTOFFS = (20, 50)


class HoldOut(StrEnum):
    """Which items are new."""

    last = "last"
    random = "random"


def main(
    data: Annotated[Path, typer.Option(help="Prepared data.")] = Path("data/movielens-100k"),
    archive: Annotated[
        Path, typer.Option(help="MovieLens-100K as downloaded: it has the times that --hold-out last needs.")
    ] = Path("data/downloads/recbole-1.2.1-py3-none-any.whl"),
    config: Annotated[Path, typer.Option(help="Recipe.")] = Path("mind/config.yaml"),
    override: Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Passed to the recipe.")] = None,
    hold_out: Annotated[HoldOut, typer.Option(help="Items whose first click is last, or any.")] = HoldOut.last,
    share: Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of the items that are new.")] = 0.2,
    part: Annotated[str, typer.Option(help="Users to look for them with: test, or valid to choose by.")] = "test",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 3,
) -> None:
    """Hold items out, train, add them in each way, and look for them."""
    console.print(describe())
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mind.config import load_config
    from mind.data.paddlerec import read_eval, read_train
    from mind.training.loop import train

    sequences, valid, users = read_train(data / "train"), read_eval(data / "valid"), read_eval(data / part)
    new = _newest(archive, share) if hold_out is HoldOut.last else _any(sequences, share)
    new = np.intersect1d(new, sequences.item_id)
    rows: dict[str, list[list[float]]] = {}
    for seed in range(1, seeds + 1):
        settings = load_config(config, [f"runner.seed={seed}", *(override or [])])
        hyper = settings.hyper_parameters
        weights = train(settings, _without(sequences, new), _without_cases(valid, new)).weights
        for name, vectors in _ways(weights, sequences, new, data / "items.parquet").items():
            rows.setdefault(name, []).append(_found(weights, hyper, vectors, users, new))
        for name, found in _second_source(weights, hyper, sequences, users, new).items():
            rows.setdefault(name, []).append(found)
        anew = train(settings, sequences, valid).weights
        rows.setdefault("trained anew with them", []).append(_found(anew, hyper, {}, users, new))
    rows["item co-occurrence, recency 0.8"] = [_counted(sequences, users, new)]
    console.print(_table(rows, new, sequences, users, hold_out, seeds))


def _newest(archive, share):  # type: ignore[no-untyped-def]
    """Items whose first click comes last: new releases, and what hardly anybody clicks."""
    from mind.data.movielens import read_movielens_100k

    clicks = read_movielens_100k(archive).interactions
    order = np.argsort(clicks.timestamp, kind="stable")
    item_id, first = np.unique(clicks.item_id[order], return_index=True)
    return item_id[np.argsort(first, kind="stable")[-int(share * len(item_id)) :]]


def _any(sequences, share):  # type: ignore[no-untyped-def]
    item_id = np.unique(sequences.item_id)
    return np.random.default_rng(0).choice(item_id, int(share * len(item_id)), replace=False)


def _ways(weights, sequences, new, items_file):  # type: ignore[no-untyped-def]
    """Name of each way to the vectors by item that it gives."""
    from mind.fresh_items import STRETCH, count_neighbours, from_neighbours
    from mind.vocabulary import Vocabulary

    vocabulary, table = Vocabulary(weights.item_id), weights.item_embedding
    counted = dict(count_neighbours(sequences, vocabulary))
    near, mean, half, long = (
        {item_id: from_neighbours(found, vocabulary, table, stretch) for item_id, found in counted.items()}
        for stretch in (STRETCH, 0, 0.5, 1)
    )
    ways = {
        "not added": {},
        "neighbours": near,
        "neighbours, not stretched": mean,
        "neighbours, stretched by 1/2": half,
        "neighbours, as long as theirs": long,
    }
    if items_file.is_file():
        ways["attributes"] = _alike(weights, new, items_file)
        ways["neighbours, else attributes"] = ways["attributes"] | near
    return ways


def _alike(weights, new, items_file):  # type: ignore[no-untyped-def]
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mind.fresh_items import AttributeVectors

    items = pq.read_table(items_file).combine_chunks()
    ids = items.column("item_id").to_numpy()
    columns = {name: items.column(name).combine_chunks() for name in items.column_names if name != "item_id"}
    columns = {n: c.fill_null(0) if pa.types.is_integer(c.type) else c for n, c in columns.items()}
    known, fresh = np.isin(ids, weights.item_id), np.isin(ids, new)
    rows = np.searchsorted(weights.item_id, ids[known]) + 1
    learnt = AttributeVectors({n: c.filter(pa.array(known)) for n, c in columns.items()}, weights.item_embedding[rows])
    vectors, _ = learnt.of({n: c.filter(pa.array(fresh)) for n, c in columns.items()})
    return dict(zip(ids[fresh].tolist(), vectors, strict=True))


def _found(weights, hyper, vectors, cases, new):  # type: ignore[no-untyped-def]
    from mind.encoder import NumpyEncoder
    from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
    from mind.vocabulary import Vocabulary

    known = Vocabulary(weights.item_id)
    queries = encode_histories(NumpyEncoder(weights, hyper), known, cases.history, hyper.maxlen, 256)
    ids = np.concatenate([weights.item_id, np.array(list(vectors), np.int64)])
    table = np.concatenate([weights.item_embedding, *(vector[None] for vector in vectors.values())])
    order = np.argsort(ids)
    table = table[np.append(0, order + 1)].astype(np.float32)
    return _measured(item_ids(Vocabulary(ids[order]), nearest_items(queries, table, CUTOFFS[-1])), cases, new)


def _second_source(weights, hyper, sequences, cases, new):  # type: ignore[no-untyped-def]
    """The lists with neighbours among the candidates: those of the model alone, and with the new items."""
    from mind.clicks_before import ClicksBefore
    from mind.encoder import NumpyEncoder
    from mind.evaluation.retrieval import encode_histories, nearest_items
    from mind.fresh_items import count_neighbours, from_neighbours
    from mind.vocabulary import Vocabulary
    from server.serving.added import Links

    known = Vocabulary(weights.item_id)
    counted = dict(count_neighbours(sequences, known))
    vectors = {item_id: from_neighbours(found, known, weights.item_embedding) for item_id, found in counted.items()}
    clicks, fresh = ClicksBefore(sequences, known), np.array(list(vectors), np.int64)  # ascending
    before = [clicks.of(item_id) for item_id in vectors]
    links = Links(
        fresh.repeat([len(own.item_id) for own in before]),
        known.item_index(np.concatenate([own.item_id for own in before])).astype(np.int32),
        np.concatenate([own.weight for own in before]).astype(np.float16),
    )
    table = np.concatenate([weights.item_embedding, *(vector[None] for vector in vectors.values())])
    every = np.concatenate([[0], weights.item_id, fresh])
    hist_index, seq_len, _ = known.look_up(cases.history.item_id, cases.history.offsets, hyper.maxlen)
    queries = encode_histories(NumpyEncoder(weights, hyper), known, cases.history, hyper.maxlen, 256)
    bonus = float(weights.neighbour_bonus[0]) or 2.0
    rows = {}
    for name, added in (("", None), (", and new ones are neighbours", links.neighbours(fresh, len(known)))):
        near = weights.neighbours.near(hist_index, seq_len, bonus, added)
        found = every[nearest_items(queries, table, CUTOFFS[-1], near=near)]
        rows[f"neighbours; second source{name}"] = _measured(found, cases, new)
    return rows


def _counted(sequences, cases, new):  # type: ignore[no-untyped-def]
    from mind.evaluation.baselines import Pairs, co_occurrence
    from mind.vocabulary import Vocabulary

    vocabulary = Vocabulary(np.unique(sequences.item_id))
    return _measured(co_occurrence(Pairs.of(vocabulary, sequences), cases.history, CUTOFFS[-1]), cases, new)


def _measured(found, cases, new):  # type: ignore[no-untyped-def]
    """Recall of those users, share of the new targets found, recall of all users; at each cut-off. And places taken."""
    from mind.evaluation.metrics import distinct_targets, hits

    hit, wanted = hits(found, cases.target), distinct_targets(cases.target)
    is_new = np.isin(cases.target.item_id, new)
    those = np.unique(np.repeat(np.arange(len(cases)), cases.target.lengths)[is_new])
    new_hit = hit & np.isin(found, new)
    values = [
        value
        for n in CUTOFFS
        for value in (
            np.mean(hit[those, :n].sum(1) / wanted[those]),
            new_hit[:, :n].sum() / is_new.sum(),
            np.mean(hit[:, :n].sum(1) / wanted),
        )
    ]
    return [*values, float(np.isin(found, new).mean())]


def _table(rows, new, sequences, users, hold_out, seeds):  # type: ignore[no-untyped-def]
    is_new = np.isin(users.target.item_id, new)
    those = np.unique(np.repeat(np.arange(len(users)), users.target.lengths)[is_new])
    clicks = np.unique(sequences.item_id[np.isin(sequences.item_id, new)], return_counts=True)[1]
    title = (
        f"{len(new)} items held out ({hold_out.value}), {np.median(clicks):g} training clicks each in the median; "
        f"{len(those)} of {len(users)} users clicked one; {is_new.mean():.1%} of all targets; per cent, mean ± sd "
        f"of {seeds} seeds"
    )
    table = Table(title=title)
    table.add_column("")
    for n in CUTOFFS:
        for heading in (f"those users\nRecall@{n}", f"new targets\nfound @{n}", f"all users\nRecall@{n}"):
            table.add_column(heading, justify="right")
    table.add_column("places new\nitems take", justify="right")
    for name, runs in rows.items():
        mean, sd = 100 * np.mean(runs, axis=0), 100 * np.std(runs, axis=0, ddof=len(runs) > 1)
        cells = (f"{m:.1f} ± {s:.1f}" if len(runs) > 1 else f"{m:.1f}" for m, s in zip(mean, sd, strict=True))
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    typer.run(main)

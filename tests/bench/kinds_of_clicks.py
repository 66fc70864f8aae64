"""What weighted targets are worth: `python -m tests.bench.kinds_of_clicks`; on MovieLens' ratings with `--archive`.

Trains the recipe of `mind.config` on the same clicks with other weights of the same kinds. Everybody's histories, test
users and targets stay the same: purchases, or ratings of 4 and 5. Users of the made data view at random and by
interest; what of their topics they buy is not what they view most.
"""

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from mind.data.interactions import Interactions
from mind.data.movielens import read_movielens_100k
from mind.data.split import Split, split
from mind.data.targets import assign
from mind.evaluation import metrics
from mind.events import Events, Roles
from mind.sequences import EvalCases, Int64

TOPICS, ITEMS_PER_TOPIC, TOPICS_OF_USER = 50, 40, 2
USERS, VIEWS, PURCHASES = 1_500, 27, 3
EPOCHS = 4
AT_RANDOM = 0.3
"""Share of the views that are of any item."""
TOP_N = 50
LIKED, REST = "buy", "view"
SHOP_VARIANTS: dict[str, tuple[float, float]] = {
    "all alike": (1, 1),
    "buy=3,view=1": (3, 1),
    "buy=10,view=1": (10, 1),
    "buy": (1, 0),
}
"""Weights of what is evaluated and of the rest, by what --target would say."""
RATING_VARIANTS: dict[str, tuple[float, float]] = {
    "all alike": (1, 1),
    ">=4=3,<4=1": (3, 1),
    ">=4": (1, 0),
}
SHOWN = ("recall@20", "recall@50", "ndcg@50", "hit_rate@50")

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


@dataclass(frozen=True)
class Run:
    """One training run."""

    archive: Path | None
    """Of MovieLens-100K; None for the made data."""
    weights: tuple[float, float]
    """Of what is evaluated, and of the rest."""
    seed: int


def draw_shop(seed: int) -> tuple[Interactions, Int64]:
    """Draw users who view and buy in two topics of their own; what sells in a topic is not what is looked at.

    Returns:
        interactions: with role 0 for a purchase and 1 for a view; sorted.
        topics: [U, 2] int64 of the users from 0.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, ITEMS_PER_TOPIC + 1)
    share /= share.sum()
    sold = np.stack([rng.permutation(ITEMS_PER_TOPIC) for _ in range(TOPICS)])  # item of each rank among purchases
    topics = rng.random((USERS, TOPICS)).argsort(axis=1)[:, :TOPICS_OF_USER]
    clicks = VIEWS + PURCHASES
    user = np.repeat(np.arange(USERS), clicks)
    bought = (rng.random((USERS, clicks)).argsort(axis=1) < PURCHASES).ravel()
    topic = topics[user, rng.integers(0, TOPICS_OF_USER, len(user))]
    topic = np.where(~bought & (rng.random(len(user)) < AT_RANDOM), rng.integers(0, TOPICS, len(user)), topic)
    rank = rng.choice(ITEMS_PER_TOPIC, len(user), p=share)
    item_id = 1 + topic * ITEMS_PER_TOPIC + np.where(bought, sold[topic, rank], rank)
    time = np.tile(np.arange(clicks), USERS)
    roles = Roles.of([(LIKED, True, 1.0), (REST, True, 0.0)])
    code = np.where(bought, 0, 1).astype(np.uint8)
    return Interactions(user, item_id, time, code=code, roles=roles), topics


def read_ratings(archive: Path) -> Interactions:
    """The ratings of MovieLens-100K, those of 4 and 5 being targets."""
    found = read_movielens_100k(archive, Events(column="rating", target={">=4": 1.0}))
    return assign(found.interactions, found.report.kinds, None, 0).interactions


def parts_of(run: Run) -> Split:
    """Training and held-out users; the seed of the run is that of the made data, the split of the ratings is fixed."""
    if run.archive is None:
        return split(draw_shop(run.seed)[0], seed=run.seed)
    return split(read_ratings(run.archive))


def train_and_judge(run: Run) -> dict[str, float]:
    """One run; in a process of its own. Validation users choose the epoch by the same kinds as the test users."""
    from mind.artifact import Artifact
    from mind.config import Config, HyperParameters, Runner
    from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
    from mind.paddle_encoder import PaddleEncoder
    from mind.training.loop import train
    from mind.vocabulary import Vocabulary

    parts = parts_of(run)
    roles = parts.train.roles
    assert roles is not None
    liked, rest = run.weights
    weight = np.where(roles.weight > 0, liked, rest).astype(np.float32)
    sequences = replace(parts.train, roles=replace(roles, weight=weight))
    dim = 32 if run.archive is None else 64
    hyper = HyperParameters(embedding_dim=dim, hidden_size=dim)
    config = Config(runner=Runner(seed=run.seed, epochs=EPOCHS), hyper_parameters=hyper)
    weights = train(config, sequences, parts.valid).weights
    vocabulary = Vocabulary(weights.item_id)
    encoder = PaddleEncoder.from_artifact(Artifact("kinds-of-clicks", hyper, weights))
    vectors = encode_histories(encoder, vocabulary, parts.test.history, hyper.maxlen, 256)
    found = item_ids(vocabulary, nearest_items(vectors, weights.item_embedding, TOP_N))
    return judge(found, parts.test)


def judge(candidates: Int64, cases: EvalCases) -> dict[str, float]:
    """The metrics of ranked lists. candidates: [U, N] int64."""
    return metrics.report(candidates, cases.target, (20, 50))


def oracle(seed: int) -> dict[str, float]:
    """The metrics of who knows the users' topics, and what sells in each."""
    interactions, topics = draw_shop(seed)
    cases = split(interactions, seed=seed).test
    bought = interactions.item_id[interactions.code == 0]
    counts = np.bincount(bought, minlength=1 + TOPICS * ITEMS_PER_TOPIC)
    of_topic = counts[1:].reshape(TOPICS, ITEMS_PER_TOPIC)
    ranked = np.argsort(-of_topic, axis=1, kind="stable") + 1 + np.arange(TOPICS)[:, None] * ITEMS_PER_TOPIC
    candidates = ranked[topics[cases.history.user_id]].transpose(0, 2, 1).reshape(len(cases), -1)[:, :TOP_N]
    return judge(candidates, cases)


@app.command(epilog="Example: python -m tests.bench.kinds_of_clicks --archive data/downloads/ml-100k.zip --seeds 3")
def main(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant, with seeds 1, 2, ...")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one core each.")] = 2,
    archive: Annotated[
        Path | None, typer.Option(help="MovieLens-100K: ml-100k.zip or recbole-1.2.1-py3-none-any.whl.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the table here as Markdown.")] = None,
) -> None:
    """Targets weighted by kind against all alike, evaluated on purchases, or on ratings of 4 and 5."""
    variants = RATING_VARIANTS if archive else SHOP_VARIANTS
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the runs share the cores
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        runs = {
            pool.submit(train_and_judge, Run(archive, weights, seed)): name
            for seed in range(1, seeds + 1)
            for name, weights in variants.items()
        }
        for done in track(as_completed(runs), "training", total=len(runs), console=console, transient=True):
            found[runs[done]].append(done.result())
    if archive is None:
        found["all known"] = [oracle(seed) for seed in range(1, seeds + 1)]
    text = table(found)
    console.print(Markdown(text))
    if output:
        output.write_text(text, encoding="utf-8")


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """All metrics as a Markdown table, per cent, mean ± standard deviation over seeds."""
    lines = ["| targets | " + " | ".join(map(metrics.title, SHOWN)) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, scores in found.items():
        values = 100 * np.array([[one[metric] for metric in SHOWN] for one in scores])
        cells = [
            f"{mean:.1f} ± {spread:.1f}" for mean, spread in zip(values.mean(axis=0), values.std(axis=0), strict=True)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()

"""When a second to fourth interest earns its place: `python -m tests.bench.known_interests`.

Trains the recipe of `mind.config` with one, two and four interests on users whose interests are known. Topics are
unrelated and every user combines a few at random, so only the user's own history tells what comes next; nothing else
favours either side. An oracle that knows the user's topics shows how much of a row is to be had.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from mind.artifact import Float32
from mind.evaluation import metrics
from mind.evaluation.interests import cosines
from mind.sequences import EvalCases, Int64, Sequences

TOPICS, ITEMS_PER_TOPIC = 100, 50
STAY = 0.7
"""Chance that a click stays in the topic of the one before; otherwise any topic of the user is drawn, that one too."""
TRAIN_CLICKS, VALID_USERS = 80_000, 500
EPOCHS, TOP_N = 5, 50
ENOUGH = 3
"""Candidates that a topic needs to count as found; a single one may be there by chance."""
TRUE_INTERESTS = (1, 2, 4)
VARIANTS: dict[str, dict[str, object]] = {
    "K = 1": {"num_interests": 1},
    "K = 4, one residual": {"num_interests": 4, "focus": False},
    "K = 2": {"num_interests": 2},
    "K = 4": {"num_interests": 4},
}
"""Hyper-parameters that differ from the recipe."""
TABLES = {
    "recall": "Recall@50",
    "hit_rate": "HitRate@50",
    "found": f"Interests found: share of a user's topics with at least {ENOUGH} of 50 candidates",
    "cosine": "Mean cosine between the interest vectors of a user (100 = all the same)",
}
ORACLE = "oracle"

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


@dataclass(frozen=True)
class World:
    """Users who each click in topics of their own."""

    true_interests: int
    """M, topics of a user, all equally likely."""
    history: int
    """Clicks that a held-out user is known by; a quarter as many, two at least, are to be found."""

    @property
    def clicks(self) -> int:
        """Clicks of a user, training users included."""
        return self.history + max(2, self.history // 4)


@dataclass(frozen=True)
class Run:
    """One training run."""

    world: World
    variant: str
    embedding_dim: int
    seed: int


def popularity() -> npt.NDArray[np.float64]:
    """Share of each item in the clicks of its topic, by Zipf's law: [ITEMS_PER_TOPIC]."""
    weight = 1 / np.arange(1, ITEMS_PER_TOPIC + 1)
    share: npt.NDArray[np.float64] = weight / weight.sum()
    return share


def draw_users(world: World, users: int, rng: np.random.Generator) -> tuple[Int64, Int64]:
    """Draw users and what they click.

    Returns:
        topics: [U, M] int64, different within a user.
        item_id: [U, clicks] int64, oldest first; item r of topic t has the id 1 + t * ITEMS_PER_TOPIC + r.
    """
    topics = rng.random((users, TOPICS)).argsort(axis=1)[:, : world.true_interests]
    at = rng.integers(0, world.true_interests, users)
    visited = np.empty((users, world.clicks), np.int64)
    for click in range(world.clicks):
        at = np.where(rng.random(users) < STAY, at, rng.integers(0, world.true_interests, users))
        visited[:, click] = at
    rank = rng.choice(ITEMS_PER_TOPIC, visited.shape, p=popularity())
    return topics, 1 + np.take_along_axis(topics, visited, axis=1) * ITEMS_PER_TOPIC + rank


def to_sequences(item_id: Int64) -> Sequences:
    """Users with as many clicks each, [U, n] int64, in columns."""
    users, clicks = item_id.shape
    return Sequences(np.arange(users), np.arange(users + 1) * clicks, item_id.ravel())


def generate(world: World, seed: int) -> tuple[Sequences, EvalCases, Int64]:
    """Training users, held-out users, and the held-out users' topics [U, M]."""
    rng = np.random.default_rng(seed)
    _, train_item_id = draw_users(world, TRAIN_CLICKS // world.clicks, rng)
    topics, item_id = draw_users(world, VALID_USERS, rng)
    history, target = item_id[:, : world.history], item_id[:, world.history :]
    return to_sequences(train_item_id), EvalCases(to_sequences(history), to_sequences(target)), topics


def oracle_candidates(topics: Int64) -> Int64:
    """The most popular items of the user's topics, as many of each: [U, TOP_N] int64."""
    rank = np.arange(TOP_N)[None, :, None]
    return (1 + topics[:, None, :] * ITEMS_PER_TOPIC + rank).reshape(len(topics), -1)[:, :TOP_N]


def interests_found(candidates: Int64, topics: Int64) -> float:
    """Share of the users' topics that have ENOUGH candidates. candidates: [U, N] int64; topics: [U, M] int64."""
    topic = (candidates - 1) // ITEMS_PER_TOPIC
    return float(np.mean((topic[:, None, :] == topics[:, :, None]).sum(axis=2) >= ENOUGH))


def mean_cosine(interest_vectors: Float32) -> float:
    """Mean over users and pairs of different interests, NaN for one interest. interest_vectors: [U, K, D]."""
    count = interest_vectors.shape[1]
    pairs = cosines(interest_vectors)[:, ~np.eye(count, dtype=bool)]
    return float(pairs.mean()) if count > 1 else float("nan")


def judge(candidates: Int64, cases: EvalCases, topics: Int64) -> dict[str, float]:
    """What every list of candidates is measured by, the oracle's too."""
    hit = metrics.hits(candidates, cases.target)
    return {
        "recall": metrics.recall(hit, metrics.distinct_targets(cases.target)),
        "hit_rate": metrics.hit_rate(hit),
        "found": interests_found(candidates, topics),
    }


def train_and_judge(run: Run) -> dict[str, float]:
    """One run; in a process of its own. The held-out users also choose the best epoch, as in `mind.ablation`."""
    from mind.artifact import Artifact
    from mind.config import Config, HyperParameters, Runner
    from mind.evaluation.retrieval import encode_histories, item_ids, nearest_items
    from mind.paddle_encoder import PaddleEncoder
    from mind.training.loop import train
    from mind.vocabulary import Vocabulary

    sequences, cases, topics = generate(run.world, run.seed)
    sizes = {"embedding_dim": run.embedding_dim, "hidden_size": run.embedding_dim, "maxlen": run.world.history}
    hyper = HyperParameters.model_validate(sizes | VARIANTS[run.variant])
    config = Config(runner=Runner(seed=run.seed, epochs=EPOCHS), hyper_parameters=hyper)
    weights = train(config, sequences, cases).weights
    vocabulary = Vocabulary(weights.item_id)
    encoder = PaddleEncoder.from_artifact(Artifact("known-interests", hyper, weights))
    vectors = encode_histories(encoder, vocabulary, cases.history, hyper.maxlen, VALID_USERS)
    candidates = item_ids(vocabulary, nearest_items(vectors, weights.item_embedding, TOP_N))
    return {**judge(candidates, cases, topics), "cosine": mean_cosine(vectors)}


@app.command(epilog="Example: python -m tests.bench.known_interests --seeds 3 --jobs 2 --output known_interests.md")
def main(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every cell, with seeds 1, 2, ...")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one core each.")] = 2,
    history: Annotated[list[int] | None, typer.Option(min=1, help="Length of histories. Repeatable. [6, 40]")] = None,
    embedding_dim: Annotated[int, typer.Option(min=1, help="Length of a vector.")] = 16,
    output: Annotated[Path | None, typer.Option(help="Write the tables here as Markdown.")] = None,
) -> None:
    """Recall and interests found with one, two and four interests, on users with one, two and four known topics."""
    worlds = [World(true, length) for true in TRUE_INTERESTS for length in history or [6, 40]]
    found: dict[tuple[World, str], list[dict[str, float]]] = {}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the runs share the cores
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        runs = {
            pool.submit(train_and_judge, run): run
            for seed in range(1, seeds + 1)
            for world in worlds
            for run in (Run(world, variant, embedding_dim, seed) for variant in VARIANTS)
        }
        for done in track(as_completed(runs), "training", total=len(runs), console=console, transient=True):
            run = runs[done]
            found.setdefault((run.world, run.variant), []).append(done.result())
    for world in worlds:
        for seed in range(1, seeds + 1):
            _, cases, topics = generate(world, seed)
            found.setdefault((world, ORACLE), []).append(judge(oracle_candidates(topics), cases, topics))
    text = "\n".join(table(metric, worlds, found) for metric in TABLES)
    console.print(Markdown(text))
    if output:
        output.write_text(text, encoding="utf-8")


def table(metric: str, worlds: list[World], found: dict[tuple[World, str], list[dict[str, float]]]) -> str:
    """One metric as a Markdown table, per cent, mean ± standard deviation over seeds."""
    columns = [*VARIANTS, ORACLE]
    heads = ["true interests", "history", *columns]
    lines = [f"{TABLES[metric]}\n", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for world in worlds:
        cells = []
        for column in columns:
            values = 100 * np.array([scores.get(metric, np.nan) for scores in found[world, column]])
            cells.append("" if np.isnan(values).any() else f"{values.mean():.1f} ± {values.std():.1f}")
        lines.append(f"| {world.true_interests} | {world.history} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app()

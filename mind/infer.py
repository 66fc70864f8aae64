"""The command that evaluates: `python -m mind.infer -m mind/config.yaml -top_n 50`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mind import baselines, metrics
from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.command import ConfigFile, Overrides, run
from mind.config import Config, load_config
from mind.encoder import Encoder, NumpyEncoder, check_golden
from mind.errors import DataError
from mind.paddlerec import read_eval, read_train
from mind.retrieval import encode_histories, item_ids, nearest_items
from mind.sequences import EvalCases, Int64

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


class EncoderName(StrEnum):
    """`--encoder`."""

    numpy = "numpy"
    paddle = "paddle"


@app.command(
    epilog="Example: python -m mind.infer -m mind/config.yaml -top_n 20 -top_n 50 --candidates candidates.jsonl"
)
def main(
    config: ConfigFile,
    override: Overrides = None,
    top_n: Annotated[
        list[int] | None,
        typer.Option("-top_n", "--top-n", min=1, max=10_000, help="Cut-off of the metrics. Repeatable; 20 and 50."),
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Model directory; the newest under runner.model_save_path otherwise.")
    ] = None,
    encoder: Annotated[EncoderName, typer.Option(help="What encodes the histories.")] = EncoderName.numpy,
    candidates: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also evaluate ranked lists that were made elsewhere, by a running server for example: JSON lines of "
            '{"user_id": 1, "item_ids": [..]}, as `recall-client recall --input .. --output ..` writes. Repeatable.'
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
) -> None:
    """Evaluate a model on the test users: exact search over all items, beside three baselines.

    Recall, NDCG and hit rate are means over users as ComiRec defines them; clicked items are not left out.
    """
    settings = load_config(config, override)
    cutoffs = tuple(sorted(set(top_n or [20, 50])))
    cases = read_eval(settings.runner.test_data_dir)
    model = load_artifact(newest_artifact(artifact or settings.runner.model_save_path))
    lists = _baselines(settings, model, cases, cutoffs[-1])
    lists["MIND, exact search"] = _exact(settings, model, encoder, cases, cutoffs[-1])
    for file in candidates or []:
        lists[file.stem] = read_candidates(file, cases, cutoffs[-1])
    scores = {name: metrics.report(ranked, cases.target, cutoffs) for name, ranked in lists.items()}
    console.print(_table(scores, cutoffs, f"model {model.model_version} on {len(cases):,} test users, per cent"))
    if output:
        output.write_text(json.dumps({"model_version": model.model_version, "metrics": scores}, indent=2))


def read_candidates(file: Path, cases: EvalCases, top_n: int) -> Int64:
    """Ranked lists of JSON lines, in the order of `cases`: [U, top_n] int64, -1 where a list is shorter.

    Raises:
        DataError: a line is no such JSON, or a test user has no line.
    """
    lists: dict[int, list[int]] = {}
    number = 0
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            number += 1
            row = json.loads(line)
            ranked_ids = [int(item) for item in row["item_ids"][:top_n]]
            if len(set(ranked_ids)) < len(ranked_ids):
                raise ValueError("item_ids has repeats")
            lists[int(row["user_id"])] = np.array(ranked_ids, np.int64).tolist()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f'{file}: line {number}: expected {{"user_id": 1, "item_ids": [..]}}: {error}') from error
    missing = [user for user in cases.history.user_id.tolist() if user not in lists]
    if missing:
        raise DataError(f"{file}: {len(missing)} of {len(cases)} test users have no line, user {missing[0]} for one")
    ranked = np.full((len(cases), top_n), -1, np.int64)
    for row_number, user in enumerate(cases.history.user_id.tolist()):
        ranked[row_number, : len(lists[user])] = lists[user]
    return ranked


def _baselines(settings: Config, model: Artifact, cases: EvalCases, top_n: int) -> dict[str, Int64]:
    vocabulary, train = model.vocabulary, read_train(settings.runner.train_data_dir)
    return {
        "most popular": baselines.most_popular(vocabulary, model.weights.popularity, cases.history, top_n),
        "item co-occurrence": baselines.co_occurrence(vocabulary, train, cases.history, top_n),
        "item-kNN, cosine": baselines.item_knn(vocabulary, train, cases.history, top_n),
    }


def _exact(settings: Config, model: Artifact, name: EncoderName, cases: EvalCases, top_n: int) -> Int64:
    encoder: Encoder
    if name is EncoderName.paddle:
        from mind.paddle_encoder import PaddleEncoder  # only then is Paddle needed

        encoder = PaddleEncoder.from_artifact(model)
    else:
        encoder = NumpyEncoder(model.weights, model.hyper_parameters)
    check_golden(encoder, model)
    batch = settings.runner.infer_batch_size
    vectors = encode_histories(encoder, model.vocabulary, cases.history, model.hyper_parameters.maxlen, batch)
    return item_ids(model.vocabulary, nearest_items(vectors, model.weights.item_embedding, top_n, batch))


def _table(scores: dict[str, dict[str, float]], cutoffs: tuple[int, ...], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for n in cutoffs:
        for name in ("Recall", "NDCG", "HitRate"):
            table.add_column(f"{name}\n@{n}", justify="right")
    best = {key: max(row[key] for row in scores.values()) for key in next(iter(scores.values()))}
    for name, row in scores.items():
        cells = [f"{100 * value:.2f}" for value in row.values()]
        bold = [f"[bold]{cell}[/]" if row[key] == best[key] else cell for key, cell in zip(row, cells, strict=True)]
        table.add_row(name, *bold)
    return table


if __name__ == "__main__":
    run(app)

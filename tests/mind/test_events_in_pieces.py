"""Kinds of clicks together with formats that are read in pieces, and with the age of clicks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.items.clicks import read_clicks
from mind.artifact import load_artifact
from mind.config import Config, HyperParameters
from mind.data import gathered, parquet, text_blocks
from mind.data.ages import AGES
from mind.data.clicks import read_interactions
from mind.data.interactions import Interactions
from mind.data.paddlerec import read_train
from mind.events import EventRules, Events, Roles
from mind.sequences import Sequences
from mind.training.inputs import read_everything
from mind.training.recency import popularity_within
from mind.training.sampler import TrainingSampler
from mind.vocabulary import Vocabulary
from tests.commands import run_here
from tests.mind.test_prepare import prepare
from tests.mind.test_train import CONFIG, overrides

NAMES = ("user_id", "item_id", "timestamp", "kind", "rating")
WISHES = [
    Events(column="kind", history=("view", "cart"), target={"buy": 3.0, "cart": 1.0}, exclude=("return",)),
    Events(column="rating", target={">=4": 2.0, ">=3": 1.0}, exclude=("<2",)),
    Events(column="rating"),
]


def clicks() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(3)
    kinds = ["view"] * 6 + ["cart", "buy", "return", "scroll"]
    columns = rng.integers(0, [60, 30, 400], (3_000, 3)).tolist()
    return [(*row, kinds[rng.integers(10)], int(rng.integers(1, 6))) for row in columns]


def write(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(list(map(pa.array, zip(*rows, strict=True))), names=NAMES), path, row_group_size=70)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows))
    else:
        path.write_text("\n".join(",".join(map(str, row)) for row in [NAMES, *rows]) + "\n")
    return path


def table(found: Interactions) -> list[list[float]]:
    assert found.code is not None
    return [column.tolist() for column in (found.user_id, found.item_id, found.timestamp, found.code)]


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_kinds_are_the_same_in_every_format_and_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, wish: Events
) -> None:
    whole, report = read_interactions(write(tmp_path / "whole.csv", clicks()), events=wish)
    path = write(tmp_path / f"a.{ending}", clicks())
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(parquet, "BATCH_ROWS", 70)
    monkeypatch.setattr(gathered, "PART_ROWS", 400)
    cut, told = read_interactions(path, events=wish)
    assert table(cut) == table(whole)
    assert (told.kinds, told.rules) == (report.kinds, report.rules)
    assert len(told.kinds) > 2 and told.duplicates.count == report.duplicates.count


def test_kinds_that_come_late_and_a_column_that_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[Any, ...]] = [(1, item, item, "view", 3) for item in range(100)]
    rows += [(1, "sku-1", 200, "buy", 5), (2, "sku-1", 201, "buy", 5)]
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 700)
    found, report = read_interactions(
        write(tmp_path / "a.csv", rows), events=Events(column="kind", target={"buy": 1.0}), max_malformed=0.001
    )
    assert found.item_keys is not None and found.code is not None
    assert [kind.name for kind in report.kinds] == ["view", "buy"]
    assert np.bincount(found.code).tolist() == [100, 2]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_upsert_learns_from_the_kinds_of_the_model_alone(tmp_path: Path, ending: str) -> None:
    rows = [(1, 10, 1, "view", 3), (1, 11, 2, "scroll", 3), (1, 12, 3, "buy", 3), (1, 13, 4, "return", 3)]
    rules = EventRules(column="kind", history=("view",), target={"buy": 1.0}, exclude=("return",), left_out=("scroll",))
    found, _ = read_clicks(write(tmp_path / f"a.{ending}", rows), has_text_ids=False, rules=rules)
    assert found.item_id.tolist() == [10, 12]
    everything, _ = read_clicks(tmp_path / f"a.{ending}", has_text_ids=False)
    assert everything.item_id.tolist() == [10, 11, 12, 13]


ROLES = Roles.of([("view", True, 0.0), ("cart", True, 1.0), ("buy", False, 3.0)])
SHOP = Sequences(
    np.array([1]), np.array([0, 5]), np.array([10, 20, 30, 20, 10]), np.array([0, 1, 2, 0, 2], np.uint8), ROLES
)


def test_the_weights_of_kind_and_age_are_multiplied() -> None:
    vocabulary, ages = Vocabulary(np.array([10, 20, 30])), np.array([1, 0.5, 0.25, 1, 1], np.float32)
    sampler = TrainingSampler(SHOP, vocabulary, HyperParameters(min_history=1), 8, 0, weight=ages)
    batch = sampler.batch(np.arange(sampler.examples), [0])
    expected = np.array([1 * 0.5, 3 * 0.25, 3 * 1])
    assert batch.weight is not None
    np.testing.assert_allclose(batch.weight, expected, rtol=1e-6)


def test_the_popular_items_of_a_window_are_those_of_its_targets_by_weight() -> None:
    vocabulary, ages = Vocabulary(np.array([10, 20, 30])), np.array([9, 8, 7, 1, 0], np.float32)
    clicks = np.array([2, 2, 1])
    assert popularity_within(SHOP, vocabulary, None, None, clicks).tolist() == [3, 1, 3]
    assert popularity_within(SHOP, vocabulary, ages, 7, clicks).tolist() == [3, 0, 3]
    assert popularity_within(replace(SHOP, role=None), vocabulary, ages, 7, clicks).tolist() == [1, 1, 1]


def test_ages_of_held_out_users_go_into_a_final_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each click happens on the day of its item's number, so its age tells whose it is."""
    rows = [(user, day, f"2026-01-{day + 1:02}", kind) for user in range(40) for day, kind in enumerate(days(user))]
    lines = ["user_id,item_id,timestamp,kind", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    data = tmp_path / "data"
    kinds = ["--event", "kind", "--history", "view,buy", "--target", "buy=2,view"]
    prepare(monkeypatch, str(tmp_path / "a.csv"), "--output", str(data), "--keep-ages", *kinds)
    for part in ("train", "held_out"):
        found = read_train(data / part)
        assert np.load(data / AGES / f"{part}.npy").tolist() == (11 - found.item_id).tolist()
    done = run_here(
        "mind.train", "-m", str(CONFIG), *overrides(data, runner__epochs=1, hyper_parameters__half_life_days=5.0)
    )
    assert done.returncode == 0, done.stderr
    (path,) = (data / "artifacts").iterdir()
    runner = Config().runner.model_copy(update={f"{part}_data_dir": data / part for part in ("train", "valid", "test")})
    hyper = Config().hyper_parameters.model_copy(update={"half_life_days": 5.0})
    every = read_everything(Config(runner=runner, hyper_parameters=hyper), load_artifact(path))
    assert every.ages is not None and len(every.sequences) == 40
    assert every.ages.tolist() == (11 - every.sequences.item_id).tolist()


def days(user: int) -> list[str]:
    """The kinds of a user's twelve clicks."""
    return [("view", "buy", "scroll")[(user + day) % 3] for day in range(12)]

"""Training and evaluation of clicks that have kinds: only targets are learnt, by their weight; only history is read."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.artifact import load_artifact
from mind.config import HyperParameters
from mind.data.paddlerec import read_eval
from mind.errors import DataError
from mind.events import Roles
from mind.sequences import Int64, Sequences
from mind.training.loop import train
from mind.training.sampler import TrainingSampler
from mind.vocabulary import Vocabulary
from tests.commands import run_here
from tests.mind.test_events import shop_file
from tests.mind.test_train import here, overrides, write_data
from tests.mind.test_training import clustered, config
from tests.server.test_metrics import sequences

ROLES = Roles.of([("view", True, 0), ("cart", True, 1), ("buy", False, 3), ("wish", True, 0.5)])
MAXLEN = 4


def with_roles(rows: list[list[tuple[int, int]]]) -> Sequences:
    """Users from 0 with their items and the roles of these."""
    found = sequences(*([item for item, _ in row] for row in rows))
    role = np.array([role for row in rows for _, role in row], np.uint8)
    return Sequences(found.user_id, found.offsets, found.item_id, role, ROLES)


def expected(rows: list[list[tuple[int, int]]], least: int) -> list[tuple[list[int], int, float]]:
    """History, target and weight of every example, user by user."""
    found = []
    for row in rows:
        history: list[int] = []
        for item, role in row:
            _, is_history, weight = ROLES.rows()[role]
            if weight and len(history) >= least:
                found.append((history[-MAXLEN:], item, weight))
            if is_history:
                history = [*history, item]
    return found


def of_sampler(sampler: TrainingSampler, vocabulary: Vocabulary) -> list[tuple[list[int], int, float]]:
    batch = sampler.batch(np.arange(sampler.examples), [0])
    assert batch.weight is not None

    def ids(rows: Int64) -> list[int]:
        return [int(vocabulary.item_id[row - 1]) for row in rows]

    histories = [ids(row[:length]) for row, length in zip(batch.hist_index, batch.seq_len, strict=True)]
    weights = batch.weight / batch.weight.min()
    targets = ids(batch.candidates[: len(histories)])
    return list(zip(histories, targets, weights.tolist(), strict=True))


clicks = st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=12), min_size=1, max_size=6)


@given(clicks, st.integers(1, 3))
def test_histories_have_history_and_targets_are_targets(rows: list[list[tuple[int, int]]], least: int) -> None:
    rows = [*rows, [(1, 0), (2, 0), (3, 0), (4, 3)]]
    found, hyper = with_roles(rows), HyperParameters(maxlen=MAXLEN, min_history=least, neg_samples=3)
    vocabulary = Vocabulary(np.unique(found.item_id))
    sampler = TrainingSampler(found, vocabulary, hyper, 512, 0)
    wanted = expected(rows, least)
    lightest = min(weight for *_, weight in wanted)
    assert of_sampler(sampler, vocabulary) == [
        (history, item, pytest.approx(weight / lightest, rel=1e-5)) for history, item, weight in wanted
    ]
    counts = sampler.target_counts(len(vocabulary))
    assert {item: count for item, count in zip(vocabulary.item_id.tolist(), counts.tolist(), strict=True) if count} == {
        item: [target for _, target, _ in wanted].count(item) for _, item, _ in wanted
    }
    newest = sampler.latest(100, np.random.default_rng(0))
    assert len(newest.seq_len) == sum(bool(expected([row], least)) for row in rows)


def test_users_without_a_target_after_a_history_teach_nothing() -> None:
    found = with_roles([[(1, 2), (2, 0), (3, 0)], [(4, 0)]])
    with pytest.raises(
        DataError, match="no user has a target after 1 clicks of history, so there is nothing to predict"
    ):
        TrainingSampler(found, Vocabulary(np.unique(found.item_id)), HyperParameters(), 512, 0)


def test_kinds_that_are_alike_give_the_model_that_clicks_without_kinds_give() -> None:
    plain = sequences(*clustered(60, 1))
    alike = Sequences(
        plain.user_id,
        plain.offsets,
        plain.item_id,
        np.arange(len(plain.item_id), dtype=np.uint8) % 2,
        Roles.of([("a", True, 2), ("b", True, 2)]),
    )
    one, other = (train(config(epochs=2), found, None) for found in (plain, alike))
    np.testing.assert_array_equal(other.weights.popularity, 2 * one.weights.popularity)
    assert [epoch.loss for epoch in other.epochs] == pytest.approx([epoch.loss for epoch in one.epochs], rel=5e-3)


def test_the_heavier_a_kind_the_more_its_items_are_recommended() -> None:
    """After seeing a page, everybody buys item 1 or wishes for item 2, each as often as the other."""
    rng = np.random.default_rng(3)
    chosen = [[(1, 1), (2, 2)][pick] for pick in rng.integers(0, 2, 2_000)]
    plain = with_roles([[(10 + user % 5, 0), *chosen[10 * user : 10 * user + 10]] for user in range(200)])

    def log_odds(weight: float) -> float:
        roles = Roles.of([("view", True, 0), ("buy", False, weight), ("wish", False, 1)])
        weights = train(config(epochs=6), replace(plain, roles=roles), None).weights
        scores = np.log(np.exp(weights.golden_interest_vectors @ weights.item_embedding[1:3].T).sum(axis=1))
        assert weights.popularity[2:].tolist() == [0] * 5, "what is only viewed is popular"
        return float((scores[:, 0] - scores[:, 1]).mean())

    light, alike, heavy = map(log_odds, (0.1, 1, 10))
    assert light < alike - 1 and alike + 1 < heavy


SHOP = [
    (user, 10 * (user % 4) + item, 40 * item + part, kind)
    for user in range(1, 61)
    for item in range(8)
    for part, kind in ((0, "view"), (9, "buy" if (user + item) % 3 == 0 else "cart"), (20, "hover"))
] + [(user, 10 * (user % 4) + 3, 999, "return") for user in range(1, 61, 5)]
RULES = ("--event", "kind", "--history", "view,buy", "--target", "buy=3,cart=1", "--exclude", "return")


def prepared(directory: Path, *more: str) -> Path:
    file = shop_file(directory / "shop.csv", SHOP)
    done = run_here("mind.prepare", str(file), "--output", str(directory), *RULES, *more)
    assert done.returncode == 0, done.stderr
    return directory


def final_of(data: Path, model: Path) -> list[str]:
    """Arguments that train the settings of a model on all data."""
    return ["--data", str(data), "-o", f"runner.model_save_path={data / 'final'}", "--final", str(model)]


def test_from_a_file_to_a_model_that_knows_the_rules_of_its_data(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    trained = here("mind.train", *overrides(data))
    assert trained.returncode == 0, trained.stderr
    (path,) = (data / "artifacts").iterdir()
    model = load_artifact(path)
    assert model.data["events"] == json.loads((data / "events.json").read_text())
    assert model.data["events"]["target"] == {"buy": 3, "cart": 1}
    every = here("mind.infer", *overrides(data), "-top_n", "20")
    assert every.returncode == 0, every.stderr
    served = tmp_path / "lists.jsonl"
    users = read_eval(data / "test").history.user_id.tolist()
    served.write_text("".join(json.dumps({"user_id": user, "item_ids": [10 * (user % 4)]}) + "\n" for user in users))
    bought = here(
        "mind.infer", *overrides(data), "-top_n", "20", "--targets-of", "buy", "--candidates", str(served),
        "--json", str(tmp_path / "buy.json"),
    )  # fmt: skip
    assert bought.returncode == 0, bought.stderr
    printed = " ".join(bought.stdout.split())
    assert (
        "test users, targets: buy, items of the history" in printed and "Targets are buy alone; 4 of 6 users" in printed
    )
    target = read_eval(data / "test").target
    assert target.role is not None and target.roles is not None
    of_buy = np.array(target.roles.kinds)[target.role] == "buy"
    found = json.loads((tmp_path / "buy.json").read_text())
    assert found["targets"] == of_buy.sum() < len(of_buy)
    assert found["users"] == sum(of_buy[start:end].any() for start, end in pairwise(target.offsets.tolist()))
    unknown = here("mind.infer", *overrides(data), "--targets-of", "purchase")
    assert unknown.returncode == 1
    assert "--targets-of names purchase, which no target of the test users is; there are: buy (" in unknown.stderr
    final = here("mind.train", *final_of(data, path))
    assert final.returncode == 0, final.stderr
    kept = sum(kind in ("view", "buy", "cart") for *_, kind in SHOP)
    returned = {(user, item) for user, item, _, kind in SHOP if kind == "return"}
    kept -= sum(kind == "cart" and (user, item) in returned for user, item, _, kind in SHOP)  # no history either
    assert f"60 users, {kept:,} interactions to train on" in final.stdout
    prepared(tmp_path, "--target", "buy=5,cart=1")
    other = here("mind.train", *final_of(data, path))
    assert other.returncode == 1 and "its data had other kinds of clicks or other weights" in other.stderr


@pytest.mark.parametrize("split", ["time", "last-out"])
def test_a_final_model_learns_from_all_clicks_of_every_split(tmp_path: Path, split: str) -> None:
    options = ["--split", split]
    if split == "time":
        options += ["--valid-from", "2024-01-01T00:03:00", "--test-from", "2024-01-01T00:04:00"]
    data = prepared(tmp_path, *options)
    assert here("mind.train", *overrides(data, runner__epochs=1)).returncode == 0
    (path,) = (data / "artifacts").iterdir()
    final = here("mind.train", *final_of(data, path))
    assert final.returncode == 0, final.stderr
    returned = {(user, item) for user, item, _, kind in SHOP if kind == "return"}
    kept = sum(
        kind in ("view", "buy") or (kind == "cart" and (user, item) not in returned) for user, item, _, kind in SHOP
    )
    assert f"60 users, {kept:,} interactions to train on" in final.stdout


def test_kinds_of_targets_need_data_with_kinds(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    assert here("mind.train", *overrides(data, runner__epochs=1)).returncode == 0
    done = here("mind.infer", *overrides(data), "--targets-of", "buy")
    assert done.returncode == 1 and "--targets-of: the test data have no kinds of clicks; prepare them" in done.stderr

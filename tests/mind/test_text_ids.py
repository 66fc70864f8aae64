"""A shop's own file from the first command to a report: text ids go in, and the same text ids come out."""

import json
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact
from mind.data.ids import IdKind
from mind.data.paddlerec import read_eval
from mind.data.titles import read_titles
from tests import ROOT
from tests.commands import run_here
from tests.mind.test_train import clustered, overrides

GROUPS = ("KIT", "GAR", "OUT")


def sku(item: int) -> str:
    """A text id that no integer, no comma and no quote is safe from."""
    number = item // 1_000 - 10**9
    return f'{GROUPS[number % 3]}-{number:04d}, "{number % 7}"' if number % 5 else f"00{number}"


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def clicks() -> list[list[str]]:
    return [[sku(item) for item in row] for row in clustered(300, 1)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, clicks: list[list[str]]) -> Path:
    """The directory of a shop: its files, prepared data and a model."""
    directory = tmp_path_factory.mktemp("shop")
    rows = [
        f"cust_{user:04d},{cell(item)},2026-08-01T10:{time:02d}:00Z"
        for user, row in enumerate(clicks)
        for time, item in enumerate(row)
    ]
    (directory / "clicks.csv").write_text("\n".join(["customer_id,sku,clicked_at", *rows]) + "\n")
    items = sorted({item for row in clicks for item in row} | {"NEW-1", "NEW-2"})
    lines = [f"{cell(item)},{cell('Title of ' + item)},{item[:3]}" for item in items]
    (directory / "items.csv").write_text("\n".join(["item_id,title,category", *lines]) + "\n")
    columns = ["--user", "customer_id", "--item", "sku", "--time", "clicked_at"]
    prepared = run_here("mind.prepare", directory / "clicks.csv", *columns, "--output", directory)
    assert prepared.returncode == 0, prepared.stderr
    assert "sku: text ids, such as" in prepared.stdout
    trained = train(directory)
    assert trained == 0
    return directory


def train(directory: Path, *more: str) -> int:
    config = str(ROOT / "mind" / "config.yaml")
    done = run_here("mind.train", "-m", config, *overrides(directory, runner__epochs=1), *more)
    print(done.stderr)
    return done.returncode


def model_of(directory: Path) -> Artifact:
    return load_artifact(next(path for path in directory.iterdir() if not path.name.startswith(".")))


def test_a_model_knows_the_text_ids_of_its_items(shop: Path, clicks: list[list[str]]) -> None:
    weights = model_of(shop / "artifacts").weights
    assert weights.keys
    known = set(weights.keys.at(np.arange(len(weights.item_id))))
    assert known <= {item for row in clicks for item in row}
    assert len(known) > 0.9 * len({item for row in clicks for item in row})


def test_test_users_are_written_in_their_own_ids(shop: Path, clicks: list[list[str]]) -> None:
    users = [json.loads(line) for line in (shop / "test_users.jsonl").read_text().splitlines()]
    assert len(users) == len(read_eval(shop / "test"))
    for user in users:
        row = clicks[int(user["user_id"].removeprefix("cust_"))]
        assert user["hist_item"] == row[: len(user["hist_item"])]
        assert user["eval_item"] and set(user["eval_item"]) <= set(row[len(user["hist_item"]) :])


def test_features_may_name_items_that_nobody_clicked(shop: Path) -> None:
    output = shop / "with-features"
    features = {"hyper_parameters.item_features": "[category]", "runner.item_features_file": shop / "items.csv"}
    more = [word for key, value in features.items() for word in ("-o", f"{key}={value}")]
    assert train(shop, *more, "-o", f"runner.model_save_path={output}") == 0
    weights = model_of(output).weights
    assert weights.keys
    assert {"NEW-1", "NEW-2"} <= set(weights.keys.at(np.arange(len(weights.item_id))))


def test_an_evaluation_reads_and_shows_text_ids(shop: Path, clicks: list[list[str]], tmp_path: Path) -> None:
    users = [json.loads(line) for line in (shop / "test_users.jsonl").read_text().splitlines()]
    lists = [
        {"user_id": user["user_id"], "item_ids": list(dict.fromkeys(clicks[int(user["user_id"][5:])][9:]))}
        for user in users
    ]
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, lists)))
    html, report = tmp_path / "report.html", tmp_path / "report.json"
    words = ["--candidates", tmp_path / "lists.jsonl", "--html", html, "--json", report, "-top_n", "20"]
    config = str(ROOT / "mind" / "config.yaml")
    done = run_here("mind.infer", "-m", config, *overrides(shop), *words, "--titles", shop / "items.csv")
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["metrics"]["lists"]["recall@20"] > 0.9
    page = html.read_text()
    assert "User cust_" in page
    assert "Title of KIT-" in page
    run_here("mind.infer", "-m", config, *overrides(shop), "--html", html, "-top_n", "20")
    assert ">KIT-" in html.read_text()


def test_a_user_without_a_list_is_named(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "lists.jsonl").write_text('{"user_id": "nobody", "item_ids": []}')
    config = str(ROOT / "mind" / "config.yaml")
    words = ["-m", config, *overrides(shop)]
    done = run_here("mind.infer", *words, "--candidates", tmp_path / "lists.jsonl")
    assert "test users have no line, such as user cust_" in done.stderr
    done = run_here("mind.infer", *words, "--server", "localhost:1")
    assert f"where FILE is {shop}/test_users.jsonl" in done.stderr


def test_titles_may_lie_beside_ids_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("sku,price,title\nKIT-1,5,Pan\n007,6,Mug\n")
    assert set(read_titles(tmp_path / "items.csv", IdKind.TEXT, "sku").values()) == {"Pan", "Mug"}


def test_integers_prepared_in_the_same_place_leave_no_text_ids_behind(shop: Path, tmp_path: Path) -> None:
    for source in (shop / "clicks.csv", tmp_path / "integers.csv"):
        if source.parent == tmp_path:
            rows = [f"{user},{user * 100 + time},{time}" for user in range(1, 11) for time in range(10)]
            source.write_text("\n".join(["customer_id,sku,clicked_at", *rows]) + "\n")
        columns = ["--user", "customer_id", "--item", "sku", "--time", "clicked_at"]
        assert run_here("mind.prepare", source, *columns, "--output", tmp_path / "data").returncode == 0
    left = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert left == ["days.json", "split.json", "test", "train", "valid"]

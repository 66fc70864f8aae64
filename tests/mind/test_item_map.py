"""The map of a model's items: what the file says is what the explorer page needs to put vectors on it."""

import json
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import load_artifact
from mind.keys import key_ids
from mind.plane import GRID, item_map
from tests.artifacts import make_artifact
from tests.commands import run_here


def draw(directory: Path, *options: str) -> Path:
    """A map of the newest model under `directory`/artifacts, by the command."""
    output = directory / "map.json"
    done = run_here("mind.item_map", "--artifact", directory / "artifacts", "--output", output, *options)
    assert done.returncode == 0, done.stderr
    assert "200 items" in done.stdout or options
    return output


def test_an_item_of_the_map_lies_where_its_own_vector_is_put(tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifacts"))
    drawn = json.loads(draw(tmp_path).read_text())
    assert drawn["model_version"] == artifact.model_version
    row = {str(item_id): index + 1 for index, item_id in enumerate(artifact.weights.item_id.tolist())}
    for item_id, x, y in zip(drawn["item_ids"], drawn["x"], drawn["y"], strict=True):
        vector = artifact.weights.item_embedding[row[item_id]].astype(float) * 3  # length is of no account
        direction = vector / np.linalg.norm(vector) - drawn["mean"]
        put = (direction @ np.array(drawn["axes"]) - drawn["low"]) * drawn["scale"]
        assert abs(put - [x, y]).max() < 0.6, "half a step of the grid, and rounding"
    assert max(drawn["x"] + drawn["y"]) == GRID - 1 and min(drawn["x"]) == min(drawn["y"]) == 0
    assert 0 < drawn["explained"] < 1


def test_it_draws_the_most_popular_and_the_same_every_time(tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifacts"))
    assert item_map(artifact, 3)["item_ids"] == ["1000", "1007", "1014"]
    assert item_map(artifact, 50) == item_map(artifact, 50)
    assert json.loads(draw(tmp_path, "--items", "20").read_text()) == item_map(artifact, 20)


def test_items_have_their_text_ids_where_the_model_has_them(tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifacts", keyed=True))
    drawn = item_map(artifact, 200)
    assert key_ids(drawn["item_ids"]).tolist() == artifact.weights.item_id.tolist(), "row 1 is the most popular"
    assert json.loads(draw(tmp_path, "--items", "3").read_text())["item_ids"] == drawn["item_ids"][:3]


def test_the_plane_is_the_one_that_shows_most(tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifacts"))
    drawn = item_map(artifact, 200)
    directions = artifact.weights.item_embedding[1:].astype(float)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    values = np.linalg.svd(directions - directions.mean(axis=0), compute_uv=False) ** 2
    assert drawn["explained"] == pytest.approx(values[:2].sum() / values.sum(), abs=1e-3)

"""What a server keeps of a model: its popular items, and cells that are computed where the model has none."""

import logging
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact, write_artifact
from mind.cells import EXACT_ROWS, cells_of
from mind.encoder import Encoder, NumpyEncoder
from mind.transfer import Models
from server.release import Release, Releases
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights
from tests.fake_store import FakeStore


def numpy_encoder(artifact: Artifact) -> Encoder:
    return NumpyEncoder(artifact.weights, artifact.hyper_parameters)


async def released(path: Path) -> Release:
    store = FakeStore()
    store.publish(load_artifact(path))
    _, release = await Releases(store, Models(path), numpy_encoder).check()
    return release


@pytest.mark.parametrize("most", [1, 5, 20])
async def test_the_most_popular_items_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("server.popular.BLOCK_ITEMS", 16)
    monkeypatch.setattr("server.popular.LISTED", 50)
    popularity = np.random.default_rng(most).integers(0, most + 1, 200)
    weights = replace(make_weights(), popularity=popularity)
    popular = (await released(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))).popular
    best = sorted(range(200), key=lambda row: (-popularity[row], row))[:50]  # equal ones by id
    assert popular.item_ids.tolist() == weights.item_id[best].tolist()
    np.testing.assert_allclose(popular.scores, popularity[best] / popularity.sum(), rtol=1e-6)


@pytest.mark.parametrize("keep_previous", [True, False])
async def test_a_release_is_freed_in_a_thread(tmp_path: Path, keep_previous: bool) -> None:
    store, freed = FakeStore(), []
    releases = Releases(store, Models(tmp_path), numpy_encoder, keep_previous)
    for seed in range(3):
        store.publish(load_artifact(make_artifact(tmp_path, items=100, seed=seed)))
        weakref.finalize((await releases.check())[1], lambda: freed.append(threading.current_thread()))
    await releases.check()
    assert len(freed) == (1 if keep_previous else 2)
    assert threading.main_thread() not in freed


async def test_cells_are_those_of_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "server.release")
    release = await released(make_artifact(tmp_path, items=EXACT_ROWS + 1))
    assert release.cells and not release.cells.cell.flags.writeable  # mapped
    assert not caplog.messages


async def test_an_older_model_has_its_cells_computed_which_the_log_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "server.release")
    with monkeypatch.context() as before:
        before.setattr("mind.artifact.cells_of", lambda table, queries: None)
        path = make_artifact(tmp_path, items=EXACT_ROWS + 1)
    release = await released(path)
    expected = cells_of(release.item_embedding, load_artifact(path).weights.golden_queries)
    assert release.cells and expected
    np.testing.assert_array_equal(release.cells.cell, expected.cell)
    assert f"model {path.name} is of an older format without the cells that filters need" in caplog.text

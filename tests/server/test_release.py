"""What a server keeps of a model, and which releases it takes over when models or releases change beside it."""

import logging
import shutil
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
from server.errors import ReleaseRefusedError
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights
from tests.fake_store import FakeStore


def numpy_encoder(artifact: Artifact) -> Encoder:
    return NumpyEncoder(artifact.weights, artifact.hyper_parameters)


async def released(path: Path) -> Release:
    store = FakeStore()
    store.publish(load_artifact(path))
    _, release = await Releases(store, Loader(store, Models(path), numpy_encoder)).check()
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
    releases = Releases(store, Loader(store, Models(tmp_path), numpy_encoder), keep_previous=keep_previous)
    for seed in range(3):
        store.publish(load_artifact(make_artifact(tmp_path, items=100, seed=seed)))
        weakref.finalize((await releases.check())[1], lambda: freed.append(threading.current_thread()))
    await releases.check()
    assert len(freed) == (1 if keep_previous else 2)
    assert threading.main_thread() not in freed


async def test_cells_are_those_of_the_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "server.loader")
    release = await released(make_artifact(tmp_path, items=EXACT_ROWS + 1))
    assert release.cells and not release.cells.cell.flags.writeable  # mapped
    assert not caplog.messages


async def test_an_older_model_has_its_cells_computed_which_the_log_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "server.loader")
    with monkeypatch.context() as before:
        before.setattr("mind.weights.cells_of", lambda table, queries: None)
        path = make_artifact(tmp_path, items=EXACT_ROWS + 1)
    release = await released(path)
    expected = cells_of(release.item_embedding, load_artifact(path).weights.golden_queries)
    assert release.cells and expected
    np.testing.assert_array_equal(release.cells.cell, expected.cell)
    assert f"model {path.name} is of an older format without the cells that filters need" in caplog.text


async def test_a_server_whose_directory_lacks_the_model_keeps_its_release_until_it_comes(tmp_path: Path) -> None:
    """Two servers read models from different directories."""
    store, here, there = FakeStore(), tmp_path / "here", tmp_path / "there"
    first, second = (make_artifact(here, seed=seed) for seed in (0, 1))
    shutil.copytree(first, there / first.name)
    one, other = (Releases(store, Loader(store, Models(place), numpy_encoder)) for place in (here, there))
    before = store.publish(load_artifact(first))
    assert [(await each.check())[1].collection for each in (one, other)] == [before, before]
    live = store.publish(load_artifact(second))
    assert (await one.check())[1].collection == live
    with pytest.raises(ReleaseRefusedError, match=f"needs model {second.name}: {there / second.name}"):
        await other.check()
    assert (other.current.collection, other.refused_collection) == (before, live)
    shutil.copytree(first, there / second.name)  # by mistake, the wrong model under the right name
    with pytest.raises(ReleaseRefusedError, match=f"model_version is {second.name}, the model says {first.name}"):
        await other.check(insist=True)
    shutil.rmtree(there / second.name)
    shutil.copytree(second, there / second.name)
    assert (await other.check(insist=True))[1].collection == live
    assert (other.refused, other.refused_collection) == ("", "")


async def test_releases_that_come_faster_than_they_are_loaded_end_with_the_last_one(tmp_path: Path) -> None:
    """Each is replaced by the next while it is being loaded, and at no time are three models in memory."""
    store = FakeStore()
    artifacts = [load_artifact(make_artifact(tmp_path, seed=seed)) for seed in range(3)]
    names = [store.publish(artifact) for artifact in artifacts]
    at_once: list[int] = []

    def encoder_and_next_release(artifact: Artifact) -> Encoder:
        at_once.append(len({id(each) for each in (releases.previous, releases.loaded and releases.current) if each}))
        if rapid:
            store.alias = names[rapid.pop()]
        return numpy_encoder(artifact)

    releases = Releases(store, Loader(store, Models(tmp_path), encoder_and_next_release))
    rapid = [(7 * number) % 3 for number in range(30)]
    served = []
    while rapid:
        store.alias = names[(names.index(store.alias or "") + 1) % 3]
        asked = store.alias
        _, now = await releases.check()
        served.append(now.collection == asked)
        assert now.collection.startswith(f"items_{now.model_version}_")
    assert all(served) and max(at_once) == 1  # beside the one that is being loaded
    await releases.check()
    assert releases.current.collection == store.alias

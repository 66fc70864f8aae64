"""`build --neighbours`: whether neighbours are candidates, whatever validation users of the model chose."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.build import choose_bonus
from indexer.catalogue import item_collections
from indexer.errors import RefusedError
from mind.artifact import Artifact, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.milvus.connection import Connection
from mind.milvus.rules import ReleaseRules
from mind.milvus.store import Store
from mind.transfer import Models
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from tests.artifacts import hyper_parameters_of, make_artifact, make_weights, with_neighbours
from tests.conftest import release_lite
from tests.fake_store import FakeStore, fingerprint_of


def model_with(directory: Path, bonus: float) -> Artifact:
    weights = with_neighbours(make_weights(), bonus)
    return load_artifact(write_artifact(directory, hyper_parameters_of(weights), weights, {}, {}))


@pytest.mark.parametrize(
    ("bonus", "wanted", "chosen"),
    [(4, "", None), (4, "on", 4), (4, "off", 0), (4, "2.5", 2.5), (0, "", None), (0, "off", 0), (0, "3", 3)],
)
def test_the_bonus_that_is_chosen(tmp_path: Path, bonus: float, wanted: str, chosen: float | None) -> None:
    assert choose_bonus(model_with(tmp_path, bonus), wanted) == chosen


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("on", "gained nothing by neighbours, so it has no bonus"),
        ("maybe", "--neighbours maybe: must be on, off, or a bonus above 0 and at most 1,000"),
        ("0", "must be on, off, or a bonus"),
        ("-1", "must be on, off, or a bonus"),
        ("nan", "must be on, off, or a bonus"),
        ("1001", "must be on, off, or a bonus"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, wanted: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        choose_bonus(model_with(tmp_path, 0), wanted)


def test_a_model_without_neighbours_cannot_add_any(tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path))
    assert choose_bonus(model, "") is None
    with pytest.raises(RefusedError, match=f"model {model.model_version} has no neighbours"):
        choose_bonus(model, "on")


def test_names_of_collections_without_the_option_stay(tmp_path: Path) -> None:
    fingerprint = fingerprint_of(model_with(tmp_path, 4))
    assert "neighbours" not in fingerprint.to_json()
    names = {
        replaced.collection
        for replaced in (fingerprint, *(fingerprint.model_copy(update={"neighbours": bonus}) for bonus in (0.0, 4.0)))
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("option", "line"),
    [([], ""), (["--neighbours", "off"], "are no candidates"), (["--neighbours", "2.5"], "with a bonus of 2.5")],
)
def test_the_build_records_it(tmp_path: Path, option: list[str], line: str) -> None:
    model_with(tmp_path / "models", 4)
    uri = str(tmp_path / "items.db")
    options = ["--artifact", str(tmp_path / "models"), "--milvus-uri", uri, *option]
    result = CliRunner().invoke(app, ["build", *options])
    assert result.exit_code == 0, result.output
    assert line in result.stdout and ("neighbours" in result.stdout) is bool(option)
    with Store(Connection(uri)) as store:
        (built,) = item_collections(store)
    release_lite(uri)
    assert built.fingerprint is not None and built.fingerprint.collection == built.name
    assert built.fingerprint.neighbours == {"": None, "are no candidates": 0}.get(line, 2.5)


@pytest.mark.parametrize(
    ("of_model", "of_build", "adds", "bonus"),
    [(4, None, True, 4), (4, 0.0, False, 4), (0, None, False, 0), (0, 2.5, True, 2.5), (4, 2.5, True, 2.5)],
)
async def test_a_server_does_as_the_release_says(
    tmp_path: Path, of_model: float, of_build: float | None, adds: bool, bonus: float
) -> None:
    """A request that asks for neighbours of a release that adds none gets them with the bonus of the model."""
    store = FakeStore()
    found = store.collections.pop(store.publish(model_with(tmp_path, of_model)))
    assert found.fingerprint
    found.fingerprint = found.fingerprint.model_copy(update={"neighbours": of_build})
    store.alias = found.fingerprint.collection
    store.collections[store.alias] = replace(found)
    loader = Loader(store, Models(tmp_path), lambda model: NumpyEncoder(model.weights, model.hyper_parameters))
    releases = Releases(store, loader)
    await releases.check()
    release: Release = releases.current
    assert release.neighbours is not None
    assert (release.adds_neighbours, release.neighbours.bonus) == (adds, bonus)


async def test_collections_of_one_model_have_each_its_own_bonus_and_rules(tmp_path: Path) -> None:
    """Channels share the model of such collections, and nothing that belongs to a collection."""
    store, artifact = FakeStore(), model_with(tmp_path, 4)
    first = store.collections.pop(store.publish(artifact))
    assert first.fingerprint
    for channel, bonus in (("live", 2.5), ("b", None), ("c", 0.0)):
        fingerprint = first.fingerprint.model_copy(update={"neighbours": bonus})
        store.collections[fingerprint.collection] = replace(first, fingerprint=fingerprint)
        store.point(channel, fingerprint.collection)
    store.collections[store.alias].rules = ReleaseRules(per_interest_min=1).to_json()  # type: ignore[index, union-attr]
    loader = Loader(store, Models(tmp_path), lambda model: NumpyEncoder(model.weights, model.hyper_parameters))
    found = {}
    for channel in ("live", "b", "c"):
        releases = Releases(store, loader, channel)
        await releases.check()
        found[channel] = releases.current
    bonuses = {channel: release.neighbours and release.neighbours.bonus for channel, release in found.items()}
    assert bonuses == {"live": 2.5, "b": 4, "c": 4}
    assert {channel: release.adds_neighbours for channel, release in found.items()} == {
        "live": True,
        "b": True,
        "c": False,
    }
    assert [release.rules.per_interest_min for release in found.values()] == [1, 0, 0]

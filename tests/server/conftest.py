"""A clock that tests set, and a store with a released model."""

from pathlib import Path

import pytest

from mind.artifact import load_artifact
from mind.encoder import NumpyEncoder
from mind.transfer import Models
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving import attributes, changes, local, matching
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore


class Clock:
    """The time that the code under test sees, in seconds."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of what follows the changes of a collection."""
    clock = Clock()
    for module in (attributes, changes, local, matching):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    """A store with the collection of a model of 200 items, 1000, 1007, 1014, ..."""
    store = FakeStore()
    store.publish(load_artifact(make_artifact(tmp_path)))
    return store


@pytest.fixture
async def release(store: FakeStore, tmp_path: Path) -> Release:
    """That model and its collection."""
    releases = Releases(
        store,
        Loader(store, Models(tmp_path), lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters)),
    )
    await releases.check()
    return releases.current

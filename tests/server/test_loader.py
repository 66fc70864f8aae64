"""One loader for several channels: what is read once, shared, freed, and not kept."""

import asyncio
import hashlib
import threading
import weakref
from io import BufferedReader
from pathlib import Path

import pytest

from mind import mapped
from mind.artifact import Artifact, load_artifact
from mind.encoder import Encoder, NumpyEncoder
from mind.transfer import Models
from server.errors import NotReadyError, ReleaseRefusedError
from server.loader import Loader
from server.releases import Releases
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore


class Shop:
    """A store with three models, and the channels live and b, which share a loader."""

    def __init__(self, directory: Path) -> None:
        self.store = FakeStore()
        self.read: list[str] = []
        """The models that were read."""
        artifacts = [load_artifact(make_artifact(directory, items=100, seed=seed)) for seed in range(3)]
        self.collections = [self.store.publish(artifact) for artifact in artifacts]
        loader = Loader(self.store, Models(directory), self._encoder)
        self.live, self.b = (Releases(self.store, loader, channel) for channel in ("live", "b"))

    def _encoder(self, artifact: Artifact) -> Encoder:
        self.read.append(artifact.model_version)
        return NumpyEncoder(artifact.weights, artifact.hyper_parameters)

    async def serve(self, live: int, b: int) -> None:
        """Let the channels take over these models."""
        self.store.point("live", self.collections[live])
        self.store.point("b", self.collections[b])
        await asyncio.gather(self.live.check(), self.b.check())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_what_two_channels_take_at_the_same_time_is_read_once(shop: Shop) -> None:
    await shop.serve(live=0, b=0)
    assert shop.live.current is shop.b.current and len(shop.read) == 1
    await shop.serve(live=1, b=1)
    assert shop.live.current is shop.b.current and len(shop.read) == 2


async def test_a_release_is_freed_in_a_thread_when_the_last_channel_leaves_it(shop: Shop) -> None:
    freed: list[threading.Thread] = []
    await shop.serve(live=0, b=0)
    weakref.finalize(shop.live.current, lambda: freed.append(threading.current_thread()))
    for number in (1, 2):
        await shop.serve(live=number, b=0)
    assert not freed  # b serves it
    await shop.serve(live=2, b=1)
    assert not freed  # it is the release before of b
    await shop.serve(live=2, b=2)
    await shop.b.check()
    await shop.serve(live=2, b=1)
    await shop.b.check()
    assert len(freed) == 1 and threading.main_thread() not in freed


async def test_a_refused_release_is_not_shared(shop: Shop) -> None:
    await shop.serve(live=0, b=0)
    vectors = shop.store.collections[shop.collections[1]].vectors
    right = vectors[0].copy()
    vectors[0] += 1
    for channel in ("live", "b"):
        shop.store.point(channel, shop.collections[1])
    for releases in (shop.live, shop.b):
        with pytest.raises(ReleaseRefusedError, match="is not that of model"):
            await releases.check()
        assert releases.current.collection == shop.collections[0]
    vectors[0] = right
    await shop.b.check(insist=True)
    assert shop.b.current.collection == shop.collections[1] and shop.live.refused


async def test_a_channel_says_its_name(shop: Shop) -> None:
    with pytest.raises(NotReadyError, match=r"^channel b: no release is loaded: starting$"):
        _ = shop.b.current
    with pytest.raises(NotReadyError, match=r"^no release is loaded: starting$"):
        _ = shop.live.current
    with pytest.raises(ReleaseRefusedError, match=r"^Milvus has no alias 'channel_b'; `python -m indexer publish --ch"):
        await shop.b.check()


async def test_a_process_of_lower_priority_hashes_models_only_while_requests_are_served(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[BufferedReader] = []

    def hash_aside(content: BufferedReader) -> str:
        hashed.append(content)
        return hashlib.file_digest(content, "sha256").hexdigest()

    monkeypatch.setattr(mapped, "_hash_aside", hash_aside)
    await shop.serve(live=0, b=0)
    assert not hashed
    await shop.serve(live=1, b=0)
    assert len(hashed) == 1

"""What is said of the version that a Milvus reports."""

import logging

import pytest
from pymilvus.grpc_gen import milvus_pb2

from indexer.build import build, choose_index
from indexer.errors import RefusedError
from indexer.items.attributes import Attributes
from mind.artifact import load_artifact
from mind.milvus.aio_session import AioSession
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.store import Store
from mind.milvus.version import Version, caution, danger, refusal
from tests.artifacts import make_artifact
from tests.fake_milvus import fake_milvus


@pytest.mark.parametrize(
    ("text", "name", "tested", "too_old"),
    [
        ("v2.3.5", "Milvus 2.3.5", True, False),
        ("v2.3.5-lite", "Milvus 2.3.5", True, False),  # the server of the PyPI package
        ("milvus_lite-3.2.2", "Milvus Lite 3.2.2", True, False),
        ("milvus_lite-3.20.0", "Milvus Lite 3.20.0", False, False),
        ("2.6.4", "Milvus 2.6.4", False, False),
        ("v3.0.0", "Milvus 3.0.0", False, False),
        ("v2.6-dev", "Milvus 2.6", False, False),
        ("v2.5.16-gpu", "Milvus 2.5.16", False, False),
        ("v2.3.1", "Milvus 2.3.1", False, True),
        ("v2.2.16", "Milvus 2.2.16", False, True),
        ("", "Milvus of an unknown version", False, False),
        ("some cloud", "Milvus some cloud", False, False),
    ],
)
def test_versions_as_they_are_reported(text: str, name: str, tested: bool, too_old: bool) -> None:
    version = Version(text)
    assert (str(version), version.is_tested, bool(refusal(version))) == (name, tested, too_old)
    assert bool(caution(version)) is not tested


def test_versions_that_lose_what_is_built() -> None:
    dangerous = [f"2.5.{patch}" for patch in range(20) if danger(Version(f"v2.5.{patch}"))]
    assert dangerous == ["2.5.0", "2.5.1", "2.5.2", "2.5.14"]
    assert danger(Version("v2.5.14")) == (
        "Milvus 2.5.14 must not be used: it may lose a collection that was renamed, as each build does "
        "(milvus-io/milvus#43407); upgrade to 2.5.16 or newer"
    )
    assert danger(Version("v2.3.5")) == danger(Version("v2.6.0")) == ""


def test_nothing_is_built_where_it_may_be_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_artifact(make_artifact(tmp_path_factory.mktemp("model")))
    with fake_milvus({"GetVersion": milvus_pb2.GetVersionResponse(version="v2.5.14")}) as (uri, called):
        with Store(Connection(uri)) as store, pytest.raises(RefusedError, match=r"Milvus 2\.5\.14 must not be used"):
            build(store, model, Attributes(), choose_index(False, None, {}, {}))
        assert "CreateCollection" not in called


async def test_a_server_warns_of_an_untested_milvus_and_refuses_an_old_one(caplog: pytest.LogCaptureFixture) -> None:
    with fake_milvus({"GetVersion": milvus_pb2.GetVersionResponse(version="v2.6.4")}) as (uri, _):
        session = AioSession(Connection(uri))
        with caplog.at_level(logging.WARNING):
            await session.call(lambda milvus: milvus.list_collections())
        await session.close()
    assert "Milvus 2.6.4 is not tested with this version of mind-recall" in caplog.text
    with fake_milvus({"GetVersion": milvus_pb2.GetVersionResponse(version="v2.2.0")}) as (uri, _):
        session = AioSession(Connection(uri))
        with pytest.raises(StoreError, match=r"Milvus 2\.2\.0 is too old: 2\.3\.2 or newer is needed; upgrade Milvus"):
            await session.call(lambda milvus: milvus.list_collections())

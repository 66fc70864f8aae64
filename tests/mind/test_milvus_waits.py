"""Every wait for Milvus ends, with a reason, whatever a version says or leaves out."""

import logging
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.connection import Connection
from mind.milvus.errors import NotFlushedError, StoreDeniedError, StoreError, StoreTimeoutError, StoreUnavailableError
from mind.milvus.index_wait import UNCOUNTED_S, IndexWait
from mind.milvus.records import RECORDS
from mind.milvus.store import Store
from mind.milvus.translation import translated
from tests.fake_milvus import DENIED, fake_milvus, flushed, index_answer


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(state: str | None, indexed: int = 0, total: int = 0, pending: int = 0) -> dict[str, Any]:
    counts = {"indexed_rows": indexed, "total_rows": total, "pending_index_rows": pending}
    return counts if state is None else counts | {"state": state}


@pytest.mark.parametrize(
    "nothing",
    [
        answer("Finished"),  # Milvus Lite 2.5.1
        answer("IndexStateNone"),  # the default of a field that is not sent
        {"index_type": "FLAT"},
        None,  # no index in the answer
    ],
)
def test_an_index_whose_rows_are_not_counted_is_not_waited_for_for_ever(
    nothing: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    wait = IndexWait("the FLAT index of items", 120, 3600, clock)
    assert not wait.is_over(nothing)
    clock.now = UNCOUNTED_S
    assert not wait.is_over(nothing)
    assert caplog.text == ""
    clock.now = UNCOUNTED_S + 1
    assert wait.is_over(nothing)
    assert "the FLAT index of items: Milvus counted no row of it for 31 s and says " in caplog.text


def test_an_index_that_is_finished_too_early_is_waited_for() -> None:
    """Milvus 2.3.5 and 2.5.3 (its issue #40580) say Finished all the time."""
    clock = Clock()
    wait = IndexWait("the HNSW index of items", 1000, 3600, clock)
    for indexed in (0, 0, 125, 875):
        clock.now += UNCOUNTED_S + 1
        assert not wait.is_over(answer("Finished", indexed, 1000, 1000 - indexed))
    assert wait.is_over(answer("Finished", 1000, 1000))


def test_an_index_that_is_being_built_uncounted_is_waited_for_as_long_as_the_user_allows() -> None:
    clock = Clock()
    wait = IndexWait("the HNSW index of items", 1000, 600, clock)
    clock.now = 600
    assert not wait.is_over(answer("InProgress"))
    clock.now = 601
    says = r"has 0 of 1,000 rows, is InProgress and made no progress for 600 s \(--wait-s\); see the log of Milvus"
    with pytest.raises(StoreError, match=says):
        wait.is_over(answer("InProgress"))


def test_an_index_that_stays_behind_ends_the_wait_with_its_rows() -> None:
    clock = Clock()
    wait = IndexWait("the HNSW index of items", 1000, 600, clock)
    assert not wait.is_over(answer("Finished", 900, 1000, 100))
    clock.now = 601
    with pytest.raises(StoreError, match="has 900 of 1,000 rows, is Finished and made no progress for 600 s"):
        wait.is_over(answer("Finished", 900, 1000, 100))


def test_a_failed_index_ends_the_wait() -> None:
    with pytest.raises(StoreError, match="the SCANN index of items failed; see the log of Milvus"):
        IndexWait("the SCANN index of items", 1, 600).is_over(answer("Failed"))


def test_the_answers_of_milvus_lite_2_5_1_end_the_wait_of_a_build(caplog: pytest.LogCaptureFixture) -> None:
    with (
        fake_milvus({"DescribeIndex": index_answer()}) as (uri, called),
        Store(Connection(uri, wait_s=0.3)) as store,
    ):
        seen: list[int] = []
        store.index("items", "FLAT", {}, 120, seen.append)
        assert "CreateIndex" in called
    assert set(seen) == {0}
    assert f"{uri}: the FLAT index of items: Milvus counted no row of it" in caplog.text


def test_a_flush_that_never_finishes_ends_with_the_limit() -> None:
    answers = {"Flush": flushed("items"), "GetFlushState": milvus_pb2.GetFlushStateResponse(flushed=False)}
    with fake_milvus(answers) as (uri, _), Store(Connection(uri, wait_s=0.2)) as store:
        says = r"Milvus did not write the rows of items to its storage within 0.2 s \(--wait-s\); see the log of Milvus"
        with pytest.raises(NotFlushedError, match=says):
            store.flush("items")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            milvus_pb2.FlushResponse(status=common_pb2.Status(code=8, reason="rate limit exceeded[rate=0.1]")),
            "rate=0.1",
        ),
        (flushed(RECORDS), "did not write the rows of release_records to its storage within 0.3 s"),
    ],
)
def test_release_records_that_cannot_be_flushed_yet_are_no_failure(
    answer: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Milvus 2.4 and later refuse a second flush within 10 s."""
    answers = {
        "Flush": answer,
        "ShowCollections": milvus_pb2.ShowCollectionsResponse(collection_names=[RECORDS]),
        "DescribeIndex": index_answer(),
        "GetLoadingProgress": milvus_pb2.GetLoadingProgressResponse(progress=100),
    }
    with fake_milvus(answers) as (uri, _), Store(Connection(uri, wait_s=0.3)) as store:
        store.records.secure()
    assert "the command goes on, because the log of Milvus has the rows" in caplog.text
    assert says in caplog.text


def test_a_load_that_never_finishes_ends_with_the_limit() -> None:
    answers = {"GetLoadingProgress": milvus_pb2.GetLoadingProgressResponse(progress=40)}
    with fake_milvus(answers) as (uri, _), Store(Connection(uri, wait_s=0.2)) as store:
        says = r"cannot load items: Milvus did not finish within 0.2 s \(--wait-s\); see its log \(wait for loading"
        with pytest.raises(StoreTimeoutError, match=says):
            store.load("items")


def test_a_compaction_that_never_finishes_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """`join_segments` goes on without, whatever state the answer has: here none at all, which is UndefiedState."""
    segments = milvus_pb2.GetPersistentSegmentInfoResponse(
        infos=[milvus_pb2.PersistentSegmentInfo(segmentID=number, num_rows=60) for number in (1, 2)]
    )
    answers = {
        "GetPersistentSegmentInfo": segments,
        "DescribeIndex": index_answer(indexed=120, total=120),
        "ManualCompaction": milvus_pb2.ManualCompactionResponse(compactionID=1),
        "GetCompactionState": milvus_pb2.GetCompactionStateResponse(state="Executing"),
    }
    with fake_milvus(answers) as (uri, called), Store(Connection(uri, wait_s=0.2)) as store:
        store.join_segments("items", 120)
        assert called[-1] == "DropIndex"
    assert "compacting items is not done after 0.2 s (--wait-s)" in caplog.text


async def test_a_server_says_which_collection_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mind.milvus.aio_store.LOADING_S", 0.2)
    not_yet = {
        "DescribeCollection": milvus_pb2.DescribeCollectionResponse(),
        "GetLoadState": milvus_pb2.GetLoadStateResponse(state="LoadStateLoading"),
        "GetLoadingProgress": milvus_pb2.GetLoadingProgressResponse(progress=40),
    }
    with fake_milvus(not_yet) as (uri, _):
        session = AioSession(Connection(uri))
        with pytest.raises(StoreTimeoutError, match=r"^Milvus has not loaded collection items within 0.2 s"):
            await MilvusStore(session).load("items")
        await session.close()


def test_a_user_without_a_right_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with fake_milvus({"CreateCollection": grpc.StatusCode.PERMISSION_DENIED}) as (uri, _):
        with Store(Connection(uri)) as store, pytest.raises(StoreDeniedError) as caught:
            store.create("items", 4, {})
        assert not isinstance(caught.value, StoreUnavailableError)
        denied = DENIED.format("PrivilegeCreateCollection")
        assert str(caught.value) == f"{uri}: cannot create items: {denied}"


def test_a_build_goes_on_for_a_user_who_may_not_compact(caplog: pytest.LogCaptureFixture) -> None:
    answers = {
        "GetPersistentSegmentInfo": milvus_pb2.GetPersistentSegmentInfoResponse(
            infos=[milvus_pb2.PersistentSegmentInfo(segmentID=number, num_rows=60) for number in (1, 2)]
        ),
        "DescribeIndex": index_answer(indexed=120, total=120),
        "ManualCompaction": grpc.StatusCode.PERMISSION_DENIED,
    }
    with fake_milvus(answers) as (uri, called), Store(Connection(uri)) as store, caplog.at_level(logging.WARNING):
        store.join_segments("items", 120)
        assert called[-1] == "DropIndex"
    assert "segments could not be joined; Milvus may join them later" in caplog.text


async def test_a_server_without_a_right_is_told_so() -> None:
    with fake_milvus({"GetLoadState": grpc.StatusCode.PERMISSION_DENIED}) as (uri, _):
        session = AioSession(Connection(uri))
        with pytest.raises(StoreDeniedError, match=r"^Milvus refuses the call: PrivilegeGetLoadState: permission deny"):
            await MilvusStore(session).loaded("items")
        await session.close()


def test_records_of_an_unreleased_build_say_what_to_do() -> None:
    error = translated(65535, "field record_key not exist")
    assert "made by an unreleased build of this version and cannot be read: drop it in Milvus" in str(error)

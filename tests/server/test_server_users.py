"""Remembered users through real gRPC, on exact stores in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact
from mind.encoder import NumpyEncoder
from mind.milvus.histories import HIST_ITEM, StoredUser, deleted, replaced
from mind.milvus.users import UserVectors, unit_interests
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.errors import CollectionGoneError, StoreError, StoreTimeoutError, StoreUnavailableError
from server.serving import breaker
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.fake_user_store import FakeUserStore
from tests.server.test_server import failure

OK, INVALID = recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_INVALID
UNKNOWN_USER = recall_pb2.USER_STATUS_UNKNOWN_USER


@dataclass
class Running:
    """A started server that remembers users, and a stub that talks to it."""

    server: RecallServer
    items: FakeStore
    store: FakeUserStore
    recall: Any
    artifacts: Path

    async def upsert(self, **updates: Any) -> list[recall_pb2.UserWritten]:
        """Each `user=[...]` replaces, each `user=("+", [...])` appends."""
        users = []
        for user_id, given in updates.items():
            field, ids = ("append_item_ids", given[1]) if isinstance(given, tuple) else ("hist_item", given)
            users.append(recall_pb2.UserUpdate(user_id=user_id, **{field: ids}))
        return list((await self.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=users))).results)

    async def ask(self, *users: recall_pb2.User, top_k: int = 5, **options: Any) -> recall_pb2.RecallResponse:
        answer: recall_pb2.RecallResponse = await self.recall.Recall(
            recall_pb2.RecallRequest(users=users, top_k=top_k, **options)
        )
        return answer

    async def similar(self, *users: recall_pb2.User, top_k: int = 5) -> recall_pb2.FindSimilarUsersResponse:
        answer: recall_pb2.FindSimilarUsersResponse = await self.recall.FindSimilarUsers(
            recall_pb2.FindSimilarUsersRequest(users=users, top_k=top_k)
        )
        return answer

    async def in_step(self, version: str) -> None:
        """Wait until a release is served and its users are encoded."""
        for _ in range(200):
            found = self.store.collections.get(f"users_{version}")
            loaded = self.server.releases.loaded and self.server.releases.current.model_version == version
            if loaded and found and found.complete:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{version} was never in step: {self.store.collections}")


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return load_artifact(make_artifact(tmp_path / "artifacts"))


@pytest.fixture
async def start(tmp_path: Path, artifact: Artifact) -> AsyncIterator[Start]:
    started: list[tuple[RecallServer, grpc.aio.Channel]] = []

    async def start(store: FakeUserStore | None = None, wait: bool = True, **options: Any) -> Running:
        settings = Settings(
            listen="127.0.0.1:0",
            artifacts=str(tmp_path / "artifacts"),
            **({"users": True, "watch_interval_s": 0.02} | options),
        )
        items, store = FakeStore(), store or FakeUserStore()
        items.publish(artifact)
        server = RecallServer(settings, items, store if settings.users else None)
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        started.append((server, channel))
        running = Running(server, items, store, recall_pb2_grpc.RecallServiceStub(channel), tmp_path / "artifacts")
        if settings.users and wait:
            await running.in_step(artifact.model_version)
        return running

    yield start
    for server, channel in started:
        await channel.close()
        await server.stop(0)


def stored(user_id: str) -> recall_pb2.User:
    return recall_pb2.User(user_id=user_id)


async def test_a_server_that_answers_has_made_the_collections(start: Start, artifact: Artifact) -> None:
    """Milvus takes seconds for a new collection: the first call would fail at its deadline."""
    running = await start(wait=False, watch_interval_s=60)
    assert list(running.store.collections) == [f"users_{artifact.model_version}"]
    assert running.store.opened


async def test_a_server_starts_before_its_milvus(start: Start) -> None:
    store = FakeUserStore(fault=StoreUnavailableError("Milvus does not answer"))
    running = await start(store, wait=False)
    assert (await running.ask(recall_pb2.User(hist_item=[1000]))).results[0].status == OK
    store.fault = None
    await running.in_step(running.server.releases.current.model_version)


async def test_recall_by_user_id_is_recall_by_history(start: Start) -> None:
    running = await start()
    assert [(w.status, w.history_length) for w in await running.upsert(ann=[1000, 1007], bob=[1014])] == [
        (OK, 2),
        (OK, 1),
    ]
    options = {"top_k": 10, "exclude_history": True}
    by_id = await running.ask(stored("ann"), recall_pb2.User(hist_item=[1021]), stored("bob"), **options)
    given = await running.ask(*(recall_pb2.User(hist_item=h) for h in ([1000, 1007], [1021], [1014])), **options)
    assert list(by_id.results) == list(given.results)
    assert not {1000, 1007} & set(by_id.results[0].item_ids)
    assert by_id.timings.history_ms > 0 and given.timings.history_ms == 0
    explained = await running.recall.Explain(recall_pb2.ExplainRequest(user=stored("ann"), **options))
    assert list(explained.used_hist_item) == [1000, 1007]
    assert explained.candidates.item_ids == by_id.results[0].item_ids


async def test_a_given_history_wins_and_nothing_is_looked_up(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000])
    running.store.reads.clear()
    answer = await running.ask(recall_pb2.User(user_id="ann", hist_item=[1014]))
    assert answer.results == (await running.ask(recall_pb2.User(hist_item=[1014]))).results
    assert running.store.reads == []


async def test_nobody_of_that_id_gets_the_popular_list_and_a_label(start: Start) -> None:
    running = await start()
    answer = await running.ask(stored("nobody"), recall_pb2.User(hist_item=[1000]))
    unknown, neighbour = answer.results
    assert (unknown.status, unknown.fallback, list(unknown.item_ids)) == (
        UNKNOWN_USER,
        True,
        [1000, 1007, 1014, 1021, 1028],
    )
    assert neighbour.status == OK


async def test_requests_that_wait_together_are_looked_up_together(start: Start) -> None:
    running = await start()
    await running.upsert(**{f"u{n}": [1000 + 7 * n] for n in range(40)})
    running.store.reads.clear()
    running.store.read_delay_s = 0.05
    answers = await asyncio.gather(*(running.ask(stored(f"u{n}")) for n in range(40)))
    assert [answer.results[0].status for answer in answers] == [OK] * 40
    assert sum(running.store.reads) == 40 and len(running.store.reads) < 20
    running.store.reads.clear()
    await running.ask(*(stored(f"u{n}") for n in range(40)))
    assert running.store.reads == [40]


async def test_appended_clicks_follow_and_the_newest_are_kept(start: Start) -> None:
    running = await start(max_stored_history=10)
    [written] = await running.upsert(ann=("+", [1, 2, 3]))  # makes the user
    assert written.history_length == 3
    [written] = await running.upsert(ann=("+", range(4, 13)))
    assert written.history_length == 10
    assert running.store.users["ann"].hist_item.tolist() == list(range(3, 13))
    await running.upsert(ann=[7])
    assert running.store.users["ann"].hist_item.tolist() == [7]


async def test_what_the_model_looks_at_is_kept_in_any_case(start: Start) -> None:
    running = await start(max_stored_history=1)
    await running.upsert(ann=range(20))
    assert running.store.users["ann"].hist_item.tolist() == list(range(12, 20))  # maxlen is 8


async def test_concurrent_appends_lose_no_click(start: Start) -> None:
    running = await start()
    clicks = [1000 + 7 * n for n in range(60)]
    await asyncio.gather(*(running.upsert(ann=("+", [click])) for click in clicks))
    assert sorted(running.store.users["ann"].hist_item.tolist()) == clicks


async def test_updates_of_one_user_in_one_batch_are_applied_in_order(start: Start) -> None:
    running = await start()
    users = [
        recall_pb2.UserUpdate(user_id="ann", append_item_ids=[1]),
        recall_pb2.UserUpdate(user_id="ann", hist_item=[2, 3]),
        recall_pb2.UserUpdate(user_id="ann", append_item_ids=[4]),
    ]
    answer = await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=users))
    assert [one.history_length for one in answer.results] == [1, 2, 3]
    assert running.store.users["ann"].hist_item.tolist() == [2, 3, 4]
    assert answer.model_version == running.server.releases.current.model_version


@pytest.mark.parametrize(
    ("update", "detail"),
    [
        (recall_pb2.UserUpdate(hist_item=[1]), "user_id has 0 bytes, must have 1 to 128"),
        (recall_pb2.UserUpdate(user_id="é" * 65, hist_item=[1]), "user_id has 130 bytes, must have 1 to 128"),
        (
            recall_pb2.UserUpdate(user_id="a"),
            "none of hist_item, append_item_ids and shown_item_ids given, must be one of them",
        ),
        (
            recall_pb2.UserUpdate(user_id="a", hist_item=[1], append_item_ids=[2]),
            "both of hist_item and append_item_ids given, must be one of them",
        ),
        (recall_pb2.UserUpdate(user_id="a", hist_item=range(6)), "hist_item has 6 ids, the limit is 5"),
        (recall_pb2.UserUpdate(user_id="a", append_item_ids=range(6)), "append_item_ids has 6 ids, the limit is 5"),
    ],
)
async def test_a_bad_update_is_that_users_status(start: Start, update: recall_pb2.UserUpdate, detail: str) -> None:
    running = await start(max_history=5)
    good = recall_pb2.UserUpdate(user_id="bob", hist_item=[1000])
    answer = await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=[good, update, good]))
    assert [one.status for one in answer.results] == [OK, INVALID, OK]
    assert answer.results[1].detail == detail
    assert list(running.store.users) == ["bob"]


async def test_a_bad_user_id_in_a_recall_is_that_users_status(start: Start) -> None:
    running = await start()
    answer = await running.ask(stored("x" * 129), recall_pb2.User(hist_item=[1000]))
    assert [result.status for result in answer.results] == [INVALID, OK]
    assert answer.results[0].detail == "user_id has 129 bytes, must have 1 to 128"


async def test_without_the_option_everything_says_so(start: Start) -> None:
    running = await start(users=False)
    update = recall_pb2.UserUpdate(user_id="a", hist_item=[1])
    calls = (
        running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=[update])),
        running.recall.FindSimilarUsers(recall_pb2.FindSimilarUsersRequest(users=[stored("a")], top_k=5)),
        running.recall.DeleteUsers(recall_pb2.DeleteUsersRequest(user_ids=["a"])),
    )
    for call in calls:
        code, reason, message, _ = await failure(call)
        assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "USERS_DISABLED")
        assert "--users" in message
    await running.server.releases.check()
    answer = await running.ask(stored("a"), recall_pb2.User(user_id="a", hist_item=[1000]))
    assert [result.status for result in answer.results] == [INVALID, OK]
    assert "--users" in answer.results[0].detail
    assert not (await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).users_enabled


async def test_info_tells_what_is_possible(start: Start) -> None:
    running = await start(max_stored_history=100)
    info = await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
    assert info.users_enabled
    assert (info.limits.max_stored_history, info.limits.max_similar) == (100, 20_000)


async def test_similar_users_are_those_of_the_best_cosine(start: Start, artifact: Artifact) -> None:
    running = await start()
    rng = np.random.default_rng(3)
    histories = {f"u{n}": rng.choice(artifact.weights.item_id, 5) for n in range(30)}
    await running.upsert(**{user_id: history.tolist() for user_id, history in histories.items()})
    encoder = NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    vectors = unit_interests(list(histories.values()), artifact.vocabulary, encoder, artifact.hyper_parameters)
    best = np.einsum("akd,bld->abkl", vectors, vectors).max(axis=(2, 3))  # [30, 30]
    np.fill_diagonal(best, -2)
    order = np.argsort(-best[3])[:4]
    answer = await running.similar(stored("u3"), recall_pb2.User(hist_item=histories["u3"]), top_k=4)
    by_id, by_history = answer.results
    assert list(by_id.user_ids) == [f"u{n}" for n in order]
    np.testing.assert_allclose(by_id.scores, best[3][order], rtol=1e-5)
    assert by_history.user_ids[0] == "u3" and by_history.scores[0] == pytest.approx(1)
    assert (by_id.status, answer.collection) == (OK, f"users_{artifact.model_version}")
    assert answer.model_version == artifact.model_version
    [left_out] = (await running.similar(recall_pb2.User(user_id="u3", hist_item=[1000]), top_k=30)).results
    assert len(left_out.user_ids) == 29 and "u3" not in left_out.user_ids


async def test_who_has_no_interests_has_nobody_similar(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000], odd=[5, 6])  # the model knows neither 5 nor 6
    users = [stored("ann"), stored("odd"), stored("nobody"), recall_pb2.User(), stored("x" * 129)]
    answer = await running.similar(*users)
    assert [result.status for result in answer.results] == [
        OK,
        recall_pb2.USER_STATUS_ALL_UNKNOWN,
        UNKNOWN_USER,
        recall_pb2.USER_STATUS_EMPTY_HISTORY,
        INVALID,
    ]
    assert all(not result.user_ids for result in answer.results)


@pytest.mark.parametrize(
    ("users", "top_k", "reason", "says"),
    [
        (0, 5, "EMPTY_BATCH", "users: is empty"),
        (5, 5, "TOO_MANY_USERS", "has 5 users, the limit is 4"),
        (1, 0, "TOP_K_OUT_OF_RANGE", "is 0, must be 1 to 1000"),
        (4, 26, "TOO_MANY_CANDIDATES", "4 users times 26 similar ones is 104, the limit is 100"),
    ],
)
async def test_limits_of_similar_users(start: Start, users: int, top_k: int, reason: str, says: str) -> None:
    running = await start(max_users=4, max_similar=100)
    request = recall_pb2.FindSimilarUsersRequest(users=[stored("a")] * users, top_k=top_k)
    code, found, message, _ = await failure(running.recall.FindSimilarUsers(request))
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert says in message


async def test_deleted_users_are_gone_everywhere(start: Start, artifact: Artifact) -> None:
    running = await start()
    await running.upsert(ann=[1000, 1007], bob=[1000, 1007])
    old = artifact.model_version
    other = load_artifact(make_artifact(running.artifacts, seed=1))
    running.items.publish(other)
    await running.in_step(other.model_version)
    assert all(running.store.vectors[f"users_{version}"] for version in (old, other.model_version))
    answer = await running.recall.DeleteUsers(recall_pb2.DeleteUsersRequest(user_ids=["ann", "nobody", ""]))
    assert [one.status for one in answer.results] == [OK, UNKNOWN_USER, INVALID]
    assert list(running.store.users) == ["bob"]
    for version in (old, other.model_version):
        assert {key.partition("/")[0] for key in running.store.vectors[f"users_{version}"]} == {"bob"}
    assert (await running.ask(stored("ann"))).results[0].status == UNKNOWN_USER
    assert not (await running.similar(stored("bob"))).results[0].user_ids


async def test_vectors_that_outlive_their_user_are_never_answered(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000, 1007], bob=[1000, 1007])
    running.store.lose("ann")
    assert not (await running.similar(stored("bob"))).results[0].user_ids


async def test_a_user_who_is_deleted_while_being_written_does_not_come_back(start: Start) -> None:
    running = await start()
    write_vectors = running.store.write_vectors

    async def deleted_by_another_server(*arguments: Any) -> None:
        stored = await running.store.read(["ann"])
        await running.store.write({"ann": deleted(stored["ann"])})
        await running.store.forget(["ann"])
        await write_vectors(*arguments)  # lands after the deletion

    running.store.write_vectors = deleted_by_another_server  # type: ignore[method-assign]
    await running.upsert(ann=[1000])
    assert running.store.users == {}
    assert all(not vectors for vectors in running.store.vectors.values())


async def test_clicks_that_others_replace_and_then_delete_meanwhile_are_not_stored(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000])
    write = running.store.write
    by_another_server = iter([lambda before: replaced(before, np.array([1014]), 500), deleted])

    async def overtaken(users: dict[str, StoredUser]) -> None:
        for change in by_another_server:
            await write({"ann": change((await running.store.read(["ann"]))["ann"])})
            break
        await write(users)

    running.store.write = overtaken  # type: ignore[method-assign]
    await running.upsert(ann=("+", [1007]))
    assert [item for row in running.store.rows.values() for item in row[HIST_ITEM]] == []
    assert running.store.users == {}
    assert all(not vectors for vectors in running.store.vectors.values())


async def test_a_new_release_has_the_users_that_others_wrote_meanwhile(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000, 1007])
    other = load_artifact(make_artifact(running.artifacts, seed=1))
    running.items.publish(other)
    await running.in_step(other.model_version)
    encoder = NumpyEncoder(other.weights, other.hyper_parameters)
    [expected] = unit_interests([np.array([1000, 1007])], other.vocabulary, encoder, other.hyper_parameters)
    stored_vectors = running.store.vectors[f"users_{other.model_version}"]
    assert sorted(stored_vectors) == ["ann/0", "ann/1", "ann/2", "ann/3"]
    for number in range(4):
        np.testing.assert_array_equal(stored_vectors[f"ann/{number}"][1], expected[number])


async def test_users_of_a_release_that_is_not_in_step_are_not_compared(start: Start) -> None:
    store = FakeUserStore()
    store.remember("ann", [1000, 1007])
    store.vector_fault = StoreUnavailableError("Milvus does not answer")
    running = await start(store, wait=False)
    for _ in range(200):
        code, reason, message, _ = await failure(running.similar(recall_pb2.User(hist_item=[1000])))
        if reason != "NOT_READY":
            break
        await asyncio.sleep(0.02)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USER_VECTORS_INCOMPLETE")
    assert "are being encoded" in message
    assert (await running.ask(stored("ann"))).results[0].status == OK  # histories need no vectors
    store.vector_fault = None
    await running.in_step(running.server.releases.current.model_version)  # by itself, when it can
    assert (await running.similar(recall_pb2.User(hist_item=[1000]))).results[0].user_ids == ["ann"]


async def test_a_history_counts_even_if_its_vectors_could_not_be_stored(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000])
    running.store.vector_fault = StoreError("Milvus (code 65535): odd")
    [written] = await running.upsert(ann=("+", [1007]))
    assert (written.status, written.history_length) == (OK, 2)
    assert "FindSimilarUsers sees this user as before" in written.detail
    assert (await running.ask(stored("ann"))).results == (
        await running.ask(recall_pb2.User(hist_item=[1000, 1007]))
    ).results


async def test_faults_of_milvus(start: Start) -> None:
    running = await start()
    running.store.fault = StoreUnavailableError("Milvus does not answer")
    code, reason, *_ = await failure(running.ask(stored("ann")))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await running.ask(recall_pb2.User(hist_item=[1000]))).results[0].status == OK  # needs no users


async def test_degraded_gives_the_popular_list_to_users_whose_history_cannot_be_read(start: Start) -> None:
    running = await start(degraded=True)
    running.store.fault = StoreUnavailableError("Milvus does not answer")
    by_id, by_history = (await running.ask(stored("ann"), recall_pb2.User(hist_item=[1000]))).results
    assert (by_id.status, by_id.fallback) == (recall_pb2.USER_STATUS_DEGRADED, True)
    assert list(by_id.item_ids) == [1000, 1007, 1014, 1021, 1028] and set(by_id.interest) == {-1}
    assert by_id.detail == "Milvus does not answer, and the history is there"
    assert by_history.status == OK


async def test_a_collection_that_somebody_dropped_is_made_anew(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    await running.upsert(ann=[1000])
    opened = 0

    async def gone(*arguments: Any) -> None:
        raise CollectionGoneError("Milvus: collection user_histories does not exist")

    open_vectors = running.store.open_vectors

    async def count_openings(wanted: UserVectors) -> UserVectors:
        nonlocal opened
        opened += 1
        return await open_vectors(wanted)

    monkeypatch.setattr(running.store, "open_vectors", count_openings)
    with monkeypatch.context() as dropped:
        dropped.setattr(running.store, "write", gone)
        code, reason, *_ = await failure(running.upsert(ann=[1007]))
    assert (code, reason, opened) == (grpc.StatusCode.FAILED_PRECONDITION, "COLLECTION_GONE", 0)
    [written] = await running.upsert(ann=[1014])
    assert (written.status, opened) == (OK, 1)


async def test_a_callers_own_deadline_is_no_fault_of_milvus(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    await running.upsert(ann=[1000], bob=[1007])

    async def too_late(*arguments: Any) -> None:
        raise StoreTimeoutError("Milvus does not answer in time")

    monkeypatch.setattr(running.store, "nearest", too_late)
    request = recall_pb2.FindSimilarUsersRequest(users=[stored("ann")], top_k=1)
    code, *_ = await failure(running.recall.FindSimilarUsers(request, timeout=3))  # the server's own limit is 5 s
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    code, *_ = await failure(running.recall.FindSimilarUsers(request))
    assert code == grpc.StatusCode.UNAVAILABLE


async def test_once_milvus_is_away_nobody_waits_for_users_either(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PAUSE_S", 0.05)
    running = await start()
    asked = 0

    async def count_reads(*arguments: Any) -> None:
        nonlocal asked
        asked += 1
        raise StoreUnavailableError("Milvus does not answer")

    monkeypatch.setattr(running.store, "histories", count_reads)
    running.items.fault = StoreUnavailableError("Milvus does not answer")
    async with asyncio.timeout(10):
        while running.server._breaker.open is False:
            await failure(running.ask(stored("ann")))
    before = asked
    update = recall_pb2.UserUpdate(user_id="ann", append_item_ids=[1000])
    for call in (
        running.ask(stored("ann")),
        running.similar(stored("ann")),
        running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=[update])),
        running.recall.DeleteUsers(recall_pb2.DeleteUsersRequest(user_ids=["ann"])),
    ):
        code, reason, *_ = await failure(call)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert asked == before

"""Releases whose items have text ids, through real gRPC: every call answers in keys what it answers in integers."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact
from mind.keys import key_ids
from mind.milvus.collection import ITEM_KEY
from mind.milvus.errors import StoreError, StoreUnavailableError
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.app import RecallServer
from server.edge import answers, item_ids, service
from server.serving import item_keys
from server.settings import Settings
from tests.artifacts import make_artifact, write_keyed
from tests.fake_store import FakeStore
from tests.fake_user_store import FakeUserStore
from tests.server.test_offload import Threads
from tests.server.test_server import failure
from tests.waiting import until

OK, INVALID, DEGRADED = recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_INVALID, recall_pb2.USER_STATUS_DEGRADED
ALL_UNKNOWN = recall_pb2.USER_STATUS_ALL_UNKNOWN
User = recall_pb2.User


@dataclass
class Running:
    """A started server of one model, and a stub that talks to it."""

    server: RecallServer
    store: FakeStore
    stub: Any
    artifact: Artifact

    def name(self, row: int) -> str:
        """What callers call the item in this row of the model."""
        assert self.artifact.weights.keys
        return self.artifact.weights.keys.at(np.array([row]))[0]

    def names(self, *rows: int) -> list[str]:
        return [self.name(row) for row in rows]

    def add(self, key: str, row: int, number: int | None = None) -> None:
        """Add an item like that in a row of the model, but nearer to whoever likes it."""
        vector = self.artifact.weights.item_embedding[row + 1] * 3
        item_id = int(key_ids([key])[0]) if number is None else number
        self.store.add(str(self.store.alias), item_id, vector, key)

    async def recall(self, *users: User, top_k: int = 5, **options: Any) -> list[recall_pb2.UserCandidates]:
        answer = await self.stub.Recall(recall_pb2.RecallRequest(users=users, top_k=top_k, **options))
        return list(answer.results)

    async def info(self) -> recall_pb2.GetServerInfoResponse:
        found: recall_pb2.GetServerInfoResponse = await self.stub.GetServerInfo(recall_pb2.GetServerInfoRequest())
        return found


class Start:
    """Starts servers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.started: list[tuple[RecallServer, grpc.aio.Channel]] = []

    async def __call__(self, keyed: bool = True, artifact: Artifact | None = None, **options: Any) -> Running:
        artifact = artifact or self.artifact(keyed)
        store = FakeStore()
        store.publish(artifact)
        where = {"listen": "127.0.0.1:0", "artifacts": str(self._directory), "users": True}
        server = RecallServer(Settings(**(where | options)), store, FakeUserStore())
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        self.started.append((server, channel))
        return Running(server, store, recall_pb2_grpc.RecallServiceStub(channel), artifact)

    def artifact(self, keyed: bool, **shape: int) -> Artifact:
        return load_artifact(make_artifact(self._directory, keyed=keyed, **shape))

    def with_long_keys(self, length: int) -> Artifact:
        return load_artifact(write_keyed(self._directory, [f"KIT-{item}".ljust(length) for item in range(200)]))


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    start = Start(tmp_path)
    yield start
    for server, channel in start.started:
        await channel.close()
        await server.stop(0)


def number(row: int) -> int:
    """The id of the item in a row of the model whose ids are integers."""
    return 1000 + 7 * row


async def test_the_answers_are_those_of_the_same_model_with_integers(start: Start) -> None:
    keyed, plain = await start(), await start(keyed=False)
    histories, excluded = [[3, 9, 27], [81, 5], [], [150]], [[], [9], [0, 1], []]
    of_text = [
        User(hist_item_keys=keyed.names(*history), exclude_item_keys=keyed.names(*leave))
        for history, leave in zip(histories, excluded, strict=True)
    ]
    of_numbers = [
        User(hist_item=map(number, history), exclude_item_ids=map(number, leave))
        for history, leave in zip(histories, excluded, strict=True)
    ]
    for options in ({}, {"exclude_history": True}, {"merge_strategy": recall_pb2.MERGE_STRATEGY_ROUND_ROBIN}):
        texts = await keyed.recall(*of_text, top_k=20, **options)
        numbers = await plain.recall(*of_numbers, top_k=20, **options)
        for text, integer in zip(texts, numbers, strict=True):
            assert list(text.item_keys) == [keyed.name((item - 1000) // 7) for item in integer.item_ids]
            assert not text.item_ids and not integer.item_keys
            assert (text.scores, text.interest, text.status) == (integer.scores, integer.interest, integer.status)
    assert not keyed.store.key_reads


async def test_pins_drawn_items_and_what_is_added_are_those_of_integers(start: Start) -> None:
    keyed, plain = await start(), await start(keyed=False)
    times = {row: 1_000_000 * row for row in range(0, 200, 2)}
    for running in (keyed, plain):
        ids = running.artifact.weights.item_id
        by_id = {int(ids[row]): time for row, time in times.items()} if running is plain else {}
        if running is keyed:
            by_id = {int(key_ids([running.name(row)])[0]): time for row, time in times.items()}
        running.store.give(str(running.store.alias), "sold_at", "INT64", by_id)
    boosts = [recall_pb2.Boost(attribute="sold_at", half_life_days=500, weight=9)]
    how: dict[str, Any] = {"boosts": boosts, "now_unix_s": 200_000_000, "top_k": 20}
    how["explore"] = recall_pb2.Explore(share=0.1, seed=7)
    of_text = how | {"pin_item_keys": [*keyed.names(150, 9), "unheard of"]}
    of_numbers = how | {"pin_item_ids": [number(150), number(9), 5]}
    while (await keyed.recall(User(hist_item_keys=keyed.names(3)), **of_text))[0].detail.startswith("boosts"):
        await asyncio.sleep(0.01)
    while (await plain.recall(User(hist_item=[number(3)]), **of_numbers))[0].detail.startswith("boosts"):
        await asyncio.sleep(0.01)
    [text] = await keyed.recall(User(hist_item_keys=keyed.names(3)), **of_text)
    [integer] = await plain.recall(User(hist_item=[number(3)]), **of_numbers)
    drawn = recall_pb2.SOURCE_EXPLORE
    assert list(text.source) == list(integer.source) and list(text.source).count(drawn) == 2

    def ranked(result: recall_pb2.UserCandidates, names: list[Any]) -> list[tuple[Any, ...]]:
        columns = zip(names, result.scores, result.added, result.interest, result.source, strict=True)
        return [row for row in columns if row[4] != drawn]  # in another order of ids, others are drawn

    own = [keyed.name((item - 1000) // 7) for item in integer.item_ids]
    assert ranked(text, list(text.item_keys)) == ranked(integer, own)
    assert text.detail == integer.detail and "pins 2 (from 0) are left out" in text.detail
    assert len(set(text.item_keys)) == 20


async def test_explain_names_every_item_by_its_key(start: Start) -> None:
    running = await start()
    user = User(hist_item_keys=[*running.names(3, 9), "unheard of"])
    explained = await running.stub.Explain(recall_pb2.ExplainRequest(user=user, top_k=5, exclude_history=True))
    [recalled] = await running.recall(user, exclude_history=True)
    assert explained.candidates == recalled
    assert list(explained.used_hist_item_keys) == running.names(3, 9)
    known = set(running.names(*range(200)))
    for interest in explained.interests:
        assert len(interest.item_keys) == len(interest.scores) > 0
        assert set(interest.item_keys) <= known
    history = {hit.item_key for hit in explained.dropped if hit.reason == recall_pb2.DROP_REASON_HISTORY}
    assert history and history <= set(running.names(3, 9))
    assert not explained.used_hist_item and not any(interest.item_ids for interest in explained.interests)
    assert not any(hit.item_id for hit in explained.dropped)


@pytest.mark.parametrize(
    ("keyed", "user", "field", "says"),
    [
        (
            True,
            User(hist_item=[1, 2]),
            "hist_item",
            "has 2 ids, but the ids of this release are text; send them in hist_",
        ),
        (True, User(exclude_item_ids=[1]), "exclude_item_ids", "are text; send them in exclude_item_keys"),
        (True, User(hist_item_keys=["A"], hist_item=[1]), "hist_item", "are text"),
        (False, User(hist_item_keys=["1000"]), "hist_item_keys", "release are integers; send them in hist_item"),
        (False, User(exclude_item_keys=["A"]), "exclude_item_keys", "are integers; send them in exclude_item_ids"),
    ],
)
async def test_ids_of_the_wrong_kind_are_refused_by_name(
    start: Start, keyed: bool, user: User, field: str, says: str
) -> None:
    running = await start(keyed=keyed)
    calls = {
        f"users[1].{field}": running.recall(User(), user),
        f"user.{field}": running.stub.Explain(recall_pb2.ExplainRequest(user=user, top_k=5)),
        f"users[0].{field}": running.stub.FindSimilarUsers(recall_pb2.FindSimilarUsersRequest(users=[user], top_k=5)),
    }
    for path, call in calls.items():
        code, reason, message, details = await failure(call)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_ID_TYPE")
        assert message.startswith(f"{path}: ") and says in message
        assert details[1].field_violations[0].field == path


@pytest.mark.parametrize(
    ("user", "detail"),
    [
        (User(hist_item_keys=["A", "", "B"]), "hist_item_keys[1] has 0 bytes, a key has 1 to 256"),
        (
            User(hist_item_keys=["A"], exclude_item_keys=["x" * 257]),
            "exclude_item_keys[0] has 257 bytes, a key has 1 to",
        ),
        (User(hist_item_keys=["A", "ü" * 129]), "hist_item_keys[1] has 258 bytes, a key has 1 to 256"),
        (User(hist_item_keys=["A"] * 51), "hist_item_keys has 51 ids, the limit is 50"),
        (User(exclude_item_keys=["A"] * 11), "exclude_item_keys has 11 ids, the limit is 10"),
    ],
)
async def test_one_users_bad_keys_are_that_users_status(start: Start, user: User, detail: str) -> None:
    running = await start(max_history=50, max_exclude=10)
    good, bad = await running.recall(User(hist_item_keys=running.names(3)), user)
    assert (good.status, len(good.item_keys)) == (OK, 5)
    assert (bad.status, len(bad.item_keys)) == (INVALID, 0)
    assert bad.detail.startswith(detail)


async def test_a_request_full_of_empty_keys_costs_no_hash(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    hashed: list[str] = []

    def hash_all(keys: Iterable[str]) -> Int64:
        hashed.extend(own := list(keys))
        return key_ids(own)

    monkeypatch.setattr(item_ids, "key_ids", hash_all)
    for users in ([User(hist_item_keys=[""] * 2_000_000)], [User(hist_item_keys=[""] * 7_500)] * 256):
        assert {found.status for found in await running.recall(*users)} == {INVALID}
    assert not hashed


async def test_many_keys_are_not_worked_on_by_the_event_loop(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    threads = Threads(monkeypatch, (service, "read_recall"), (item_keys, "_of_model"), (service, "candidates"))
    few = User(hist_item_keys=running.names(3, 9))
    await running.recall(few)
    here = threading.get_ident()
    assert all(used == {here} for used in threads.of.values()), threads.of
    threads.of.clear()
    many = User(hist_item_keys=running.names(*range(200)))
    found = await running.recall(*[many] * 30, top_k=200)  # 6,000 keys in, 6,000 out
    assert {len(result.item_keys) for result in found} == {200}
    assert set(threads.of) == {"read_recall", "_of_model", "candidates"}
    assert all(here not in used for used in threads.of.values()), threads.of


async def test_the_longest_keys_are_taken(start: Start) -> None:
    running = await start()
    longest = ["x" * 256, "ü" * 128, "\U0001f600" * 64, "\n", "\x00"]
    [found] = await running.recall(User(hist_item_keys=[*longest, running.name(3)], exclude_item_keys=longest))
    assert found.status == OK
    assert list(found.unknown_item_keys) == longest


async def test_unknown_keys_come_back_as_they_were_sent(start: Start) -> None:
    running = await start()
    sent = ["kit-1", "KIT-01", running.name(3), " KIT-1", "kit-1", "ключ"]
    some, all_unknown = await running.recall(User(hist_item_keys=sent), User(hist_item_keys=["A", "A"]))
    assert list(some.unknown_item_keys) == ["kit-1", "KIT-01", " KIT-1", "ключ"]
    assert (some.status, some.unknown_count) == (OK, 5)
    assert (all_unknown.status, all_unknown.fallback) == (ALL_UNKNOWN, True)
    assert (list(all_unknown.unknown_item_keys), all_unknown.unknown_count) == (["A"], 2)
    assert list(all_unknown.item_keys) == running.names(*range(5))  # the popular ones


async def test_unknown_keys_are_listed_up_to_a_number_and_a_size(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    [found] = await running.recall(User(hist_item_keys=[f"new-{item}" for item in range(300)]))
    assert (len(found.unknown_item_keys), found.unknown_count) == (answers.UNKNOWN_LISTED, 300)
    monkeypatch.setattr(answers, "UNKNOWN_BYTES", 100)
    users = [User(hist_item_keys=["A" * 20, "B" * 20, "C" * 20])] * 2  # 50 bytes each
    assert [len(found.unknown_item_keys) for found in await running.recall(*users)] == [2, 2]


async def test_items_that_were_added_have_the_keys_of_the_collection(start: Start) -> None:
    running = await start()
    for added in range(3):
        running.add(f"NEW-{added}", row=3)
    user = User(hist_item_keys=running.names(3))
    first, second = await running.recall(user, user)
    assert first == second
    assert {"NEW-0", "NEW-1", "NEW-2"} <= set(first.item_keys)
    assert len(first.item_keys) == len(first.scores) == len(first.interest) == 5
    assert sorted(running.store.key_reads[0]) == sorted(key_ids(["NEW-0", "NEW-1", "NEW-2"]).tolist())
    await running.recall(user)
    explained = await running.stub.Explain(recall_pb2.ExplainRequest(user=user, top_k=5))
    assert explained.candidates == first
    assert len(running.store.key_reads) == 1  # a key never changes


async def test_requests_that_need_the_same_keys_share_the_question(start: Start) -> None:
    running = await start()
    running.add("NEW", row=3)
    running.store.hold()
    calls = [asyncio.ensure_future(running.recall(User(hist_item_keys=running.names(3)))) for _ in range(8)]
    await until(lambda: running.store.held)
    running.store.let_go()
    for call in calls:
        assert "NEW" in (await call)[0].item_keys
    assert len(running.store.key_reads) == 1


async def test_what_has_no_key_is_left_out_with_the_reason(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    running.add("NEW", row=3)
    user = User(hist_item_keys=running.names(3))
    running.store.keys_fault = StoreError("Milvus (code 1): broken")
    [found] = await running.recall(user)
    assert (found.status, len(found.item_keys), len(found.scores), len(found.interest)) == (OK, 4, 4, 4)
    assert found.detail == "1 of 5 candidates are left out: Milvus did not tell their keys: Milvus (code 1): broken"
    explained = await running.stub.Explain(recall_pb2.ExplainRequest(user=user, top_k=5))
    assert explained.candidates == found
    assert all(len(interest.item_keys) == len(interest.scores) for interest in explained.interests)
    running.store.keys_fault = None
    [found] = await running.recall(user)
    assert (len(found.item_keys), found.detail) == (5, "")


async def test_an_answer_does_not_wait_long_for_keys(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    running.add("NEW", row=3)
    asked, hanging = asyncio.Event(), asyncio.Event()

    async def keys(*_: object) -> dict[int, str]:
        asked.set()
        await hanging.wait()
        return {}

    monkeypatch.setattr(item_keys, "WAIT_S", 0.05)
    monkeypatch.setattr(running.store, "keys", keys)
    [found] = await running.recall(User(hist_item_keys=running.names(3)))
    assert asked.is_set()
    assert (found.status, len(found.item_keys)) == (OK, 4)
    assert found.detail == "1 of 5 candidates are left out: Milvus did not tell their keys within 0.05 s"
    hanging.set()


async def test_a_key_that_is_not_that_of_its_id_is_never_told(start: Start) -> None:
    running = await start()
    running.add("NEW", row=3, number=4711)
    [found] = await running.recall(User(hist_item_keys=running.names(3)))
    assert (len(found.item_keys), "NEW" in found.item_keys) == (4, False)
    assert "1 of 5 candidates are left out" in found.detail


async def test_kept_keys_are_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_keys, "MAX_KEPT", 2)
    running = await start()
    for added in range(5):
        running.add(f"NEW-{added}", row=3)
    [found] = await running.recall(User(hist_item_keys=running.names(3)))
    assert {f"NEW-{added}" for added in range(5)} == set(found.item_keys)
    assert [found] == await running.recall(User(hist_item_keys=running.names(3)))
    assert [len(asked) for asked in running.store.key_reads] == [5, 3]


async def test_degraded_answers_and_counts_are_in_keys(start: Start) -> None:
    running = await start(degraded=True)
    user = User(hist_item_keys=[running.name(3), "unheard of"])
    running.store.fault = StoreError("Milvus (code 1): broken")
    code, *_ = await failure(running.recall(user))
    assert code is grpc.StatusCode.INTERNAL
    running.store.fault = StoreUnavailableError("Milvus does not answer")
    [found] = await running.recall(user, exclude_history=True)
    assert (found.status, list(found.item_keys)) == (DEGRADED, running.names(0, 1, 2, 4, 5))
    assert list(found.unknown_item_keys) == ["unheard of"]


async def test_the_server_tells_the_kind_of_its_ids(start: Start) -> None:
    keyed, plain = await (await start()).info(), await (await start(keyed=False)).info()
    assert (keyed.id_type, plain.id_type) == (recall_pb2.ID_TYPE_TEXT, recall_pb2.ID_TYPE_INTEGER)
    assert [attribute.name for attribute in keyed.attributes] == ["vector_source"]
    assert keyed.limits == plain.limits


async def test_remembered_users_are_remembered_by_keys(start: Start) -> None:
    running = await start()

    async def upsert(*updates: recall_pb2.UserUpdate) -> list[recall_pb2.UserWritten]:
        return list((await running.stub.UpsertUsers(recall_pb2.UpsertUsersRequest(users=updates))).results)

    update = recall_pb2.UserUpdate
    written = await upsert(
        update(user_id="ann", hist_item_keys=running.names(3, 9)),
        update(user_id="ann", append_item_keys=[running.name(27), "unheard of"]),
        update(user_id="bob", hist_item_keys=["A", ""]),
        update(user_id="bob", hist_item_keys=["A"], append_item_keys=["B"]),
        update(user_id="bob"),
    )
    assert [(one.status, one.history_length) for one in written] == [(OK, 2), (OK, 4)] + [(INVALID, 0)] * 3
    assert written[2].detail == "hist_item_keys[1] has 0 bytes, a key has 1 to 256"
    assert written[3].detail == "both of hist_item_keys and append_item_keys given, must be one of them"
    assert (
        written[4].detail == "none of hist_item_keys, append_item_keys and shown_item_keys given, must be one of them"
    )
    history = running.names(3, 9, 27)
    stored, given = await running.recall(User(user_id="ann"), User(hist_item_keys=history), exclude_history=True)
    assert (stored.item_keys, stored.scores) == (given.item_keys, given.scores)
    assert (stored.unknown_count, list(stored.unknown_item_keys)) == (1, [])  # its hash alone is stored
    explained = await running.stub.Explain(recall_pb2.ExplainRequest(user=User(user_id="ann"), top_k=5))
    assert list(explained.used_hist_item_keys) == history
    similar = await running.stub.FindSimilarUsers(
        recall_pb2.FindSimilarUsersRequest(users=[User(hist_item_keys=history)], top_k=1)
    )
    assert list(similar.results[0].user_ids) == ["ann"]
    [everything] = await running.recall(User(user_id="ann"))
    shown, rest = list(everything.item_keys[:2]), list(everything.item_keys[2:])
    [one] = await upsert(update(user_id="ann", shown_item_keys=shown))
    assert (one.status, one.history_length) == (OK, 4)
    [fresh] = await running.recall(User(user_id="ann"), exclude_shown=True)
    assert list(fresh.item_keys[: len(rest)]) == rest and not {*shown} & {*fresh.item_keys}
    for field in ("hist_item", "append_item_ids", "shown_item_ids"):
        code, reason, message, _ = await failure(upsert(update(user_id="ann"), update(user_id="ann", **{field: [1]})))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_ID_TYPE")
        assert message.startswith(f"users[1].{field}: has 1 ids")


async def test_feedback_is_logged_by_keys(start: Start, tmp_path: Path) -> None:
    running = await start(feedback_log=str(tmp_path / "log.jsonl"), feedback_sample=1)
    [found] = await running.recall(User(user_id="ann", hist_item_keys=running.names(3)))
    request = recall_pb2.LogFeedbackRequest
    await running.stub.LogFeedback(request(kind="click", user_id="ann", item_keys=[found.item_keys[1]]))
    for wrong, reason in (
        ({"item_ids": [5]}, "WRONG_ID_TYPE"),
        ({"item_keys": ["A", ""]}, "FEEDBACK_INVALID"),
        ({"item_keys": ["x" * 257]}, "FEEDBACK_INVALID"),
    ):
        assert (await failure(running.stub.LogFeedback(request(kind="click", user_id="ann", **wrong))))[1] == reason
    await running.server.stop(0)
    *candidates, click = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert [line["item_id"] for line in candidates] == list(found.item_keys)
    assert (click["item_id"], click["event"]) == (found.item_keys[1], "click")


async def test_a_request_in_progress_keeps_the_kind_of_ids_it_began_with(start: Start) -> None:
    running = await start(watch_interval_s=0.02)
    by_key, by_number = User(hist_item_keys=running.names(3)), User(hist_item=[number(3)])
    running.store.hold()
    call = asyncio.ensure_future(running.recall(by_key))
    await until(lambda: running.store.held)
    running.store.publish(plain := start.artifact(keyed=False))
    await until(lambda: running.server.releases.current.model_version == plain.model_version)
    [after] = await running.recall(by_number)
    running.store.let_go()
    [before] = await call
    assert (len(before.item_keys), len(before.item_ids)) == (5, 0)
    assert (len(after.item_keys), len(after.item_ids)) == (0, 5)
    assert (await failure(running.recall(by_key)))[1] == "WRONG_ID_TYPE"
    running.store.publish(running.artifact)
    await until(lambda: running.server.releases.current.model_version == running.artifact.model_version)
    assert [found.item_keys for found in await running.recall(by_key)] == [before.item_keys]


@pytest.mark.parametrize("keyed", [True, False])
async def test_a_collection_without_the_models_kind_of_ids_is_refused(start: Start, keyed: bool) -> None:
    running = await start(keyed=not keyed, watch_interval_s=0.02)
    collection = running.store.publish(start.artifact(keyed))
    found = running.store.collections[collection]
    assert found.fingerprint
    attributes = {} if keyed else {ITEM_KEY: "VARCHAR"}
    found.fingerprint = found.fingerprint.model_copy(update={"attributes": attributes})
    await until(lambda: running.server.releases.refused)
    kind, has = ("text", "no column") if keyed else ("integers", "a column")
    refused = running.server.releases.refused
    assert f"has {has} item_key" in refused and f"are {kind}; build the collection again" in refused


async def test_a_refused_release_names_items_by_their_keys(start: Start) -> None:
    running = await start(watch_interval_s=0.02)
    collection = running.store.publish(artifact := start.artifact(keyed=True, seed=1))
    running.store.collections[collection].vectors[0] += 1
    assert artifact.weights.keys
    named = repr(artifact.weights.keys.at(np.array([0]))[0])
    await until(lambda: f"the vector of item {named} is not that of model" in running.server.releases.refused)


async def test_answers_with_the_longest_keys_stay_below_what_clients_accept(start: Start) -> None:
    running = await start(artifact=start.with_long_keys(256))
    limits = (await running.info()).limits
    assert limits.max_candidates == 150_000 * 23 // (256 + 8)
    top_k = limits.max_candidates // limits.max_users
    users = [
        User(hist_item_keys=[running.name(user % 200), *(f"{user}-{item}".rjust(256) for item in range(55))])
        for user in range(limits.max_users)
    ]
    answer = await running.stub.Recall(recall_pb2.RecallRequest(users=users, top_k=top_k))  # 4 MB, as by default
    assert all(len(found.item_keys) == top_k and found.unknown_item_keys for found in answer.results)
    code, reason, message, _ = await failure(running.recall(*users, top_k=top_k + 1))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_CANDIDATES")
    assert f"the limit is {limits.max_candidates}" in message


async def test_long_keys_lower_the_limits_of_small_settings_too(start: Start) -> None:
    running = await start(artifact=start.with_long_keys(200), max_candidates=100, max_top_k=50)
    limits = (await running.info()).limits
    assert (limits.max_candidates, limits.max_top_k) == (11, 11)
    user = User(hist_item_keys=running.names(3))
    assert len((await running.recall(user, top_k=11))[0].item_keys) == 11
    assert (await failure(running.recall(user, top_k=12)))[1] == "TOO_MANY_CANDIDATES"
    explained = running.stub.Explain(recall_pb2.ExplainRequest(user=user, top_k=12))
    assert (await failure(explained))[1] == "TOO_MANY_CANDIDATES"

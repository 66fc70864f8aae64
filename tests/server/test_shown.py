"""What users were shown, through real gRPC on exact stores in memory."""

from typing import Any

import grpc
import numpy as np
import pytest

from mind.milvus import shown as shown_rows
from mind.milvus import users as user_rows
from mind.milvus.histories import HIST_ITEM, StoredUser, deleted
from mind.milvus.shown import DAY_MS, MAX_ROWS, SHOWN
from protos.recall.v1 import recall_pb2
from server.errors import StoreUnavailableError
from tests.server.test_server_users import INVALID, OK, UNKNOWN_USER, Running, Start, artifact, start, stored

__all__ = ["artifact", "start"]
CLICKS = [1000, 1007]


async def update(running: Running, user_id: str, *item_ids: int, **more: Any) -> recall_pb2.UserWritten:
    request = recall_pb2.UserUpdate(user_id=user_id, shown_item_ids=item_ids, **more)
    [written] = (await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=[request]))).results
    return written


async def fresh(running: Running, *users: recall_pb2.User, top_k: int = 5, **options: Any) -> list[list[int]]:
    """The candidates of users without what they were shown."""
    answer = await running.ask(*users, top_k=top_k, exclude_shown=True, **options)
    assert {result.status for result in answer.results} == {OK}
    return [list(result.item_ids) for result in answer.results]


async def listed(running: Running, top_k: int = 200) -> list[int]:
    """The whole list of a user with the clicks of these tests."""
    return list((await running.ask(recall_pb2.User(hist_item=CLICKS), top_k=top_k)).results[0].item_ids)


def named(user_id: str) -> recall_pb2.User:
    """A user whose history the caller has."""
    return recall_pb2.User(user_id=user_id, hist_item=CLICKS)


async def test_what_was_shown_is_left_out_where_it_is_asked_for(start: Start) -> None:
    running = await start()
    first, second, third = (await listed(running, 3))[:3]
    written = await update(running, "ann", first, second, hist_item=CLICKS)
    assert (written.status, written.history_length) == (OK, 2)
    without = [item for item in await listed(running) if item not in (first, second)][:5]
    assert await fresh(running, stored("ann")) == [without]
    assert list((await running.ask(stored("ann"))).results[0].item_ids[:3]) == [first, second, third]
    others = [named("bob"), recall_pb2.User(hist_item=CLICKS)]  # bob was shown nothing, and nobody names the last one
    assert await fresh(running, *others) == [await listed(running, 5)] * 2


async def test_an_update_may_have_no_history(start: Start) -> None:
    running = await start()
    first, second = await listed(running, 2)
    written = await update(running, "ann", second)
    assert (written.status, written.history_length) == (OK, 0)
    assert running.store.users == {}
    assert (await fresh(running, named("ann"), top_k=2))[0][0] == first
    [unknown] = (await running.ask(stored("ann"), exclude_shown=True)).results
    assert unknown.status == UNKNOWN_USER  # there is no history, so this is the popular list, as for anybody else
    await update(running, "bob", 1000, 1014)
    [unknown] = (await running.ask(stored("bob"), exclude_shown=True)).results
    assert list(unknown.item_ids) == [1007, 1021, 1028, 1035, 1042]


async def test_updates_of_one_user_follow_one_another_and_are_merged(start: Start) -> None:
    running = await start()
    items = await listed(running)
    for place in range(MAX_ROWS + 3):
        await update(running, "ann", items[place])
        assert (await fresh(running, named("ann"), top_k=3))[0] == items[place + 1 : place + 4]
    assert len(running.store.shown) == 3  # one merged, and two since
    users = [recall_pb2.UserUpdate(user_id="ann", shown_item_ids=[item]) for item in items[19:21]]
    await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=users))
    assert (await fresh(running, named("ann"), top_k=3))[0] == items[21:24]


async def test_a_user_who_saw_nearly_all_gets_the_rest(start: Start) -> None:
    running = await start(max_overfetch=0)
    items = await listed(running)
    await update(running, "ann", *items[:190])
    assert (await fresh(running, named("ann"), top_k=10)) == [items[190:]]
    answer = await running.ask(named("ann"), top_k=50, exclude_shown=True)
    assert list(answer.results[0].item_ids) == items[190:]
    assert answer.results[0].detail == "10 of 50: the search found no more items that are not excluded"


async def test_the_newest_count_each_once(start: Start) -> None:
    running = await start(max_shown=3)
    items = await listed(running, 6)
    for item in (items[0], items[1], items[2], items[3], items[2]):
        await update(running, "ann", item)
    assert (await fresh(running, named("ann"), top_k=3)) == [[items[0], items[4], items[5]]]
    assert (await update(running, "ann", *items[:4])).detail == "shown_item_ids has 4 ids, the limit is 3"


async def test_what_was_shown_long_ago_does_not_count(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start(shown_ttl=2)
    items = await listed(running, 5)
    now = user_rows.now_ms()
    for days, item in ((3, items[0]), (1, items[1]), (0, items[2])):
        for module in ("histories", "shown"):
            monkeypatch.setattr(f"mind.milvus.{module}.now_ms", lambda days=days: now - days * DAY_MS)
        await update(running, "ann", item)
    assert (await fresh(running, named("ann"), top_k=3)) == [[items[0], items[3], items[4]]]
    monkeypatch.setattr(shown_rows, "now_ms", lambda: now + 3 * DAY_MS)
    assert (await fresh(running, named("ann"), top_k=3)) == [items[:3]]


async def test_a_deletion_takes_it_too(start: Start) -> None:
    running = await start()
    items = await listed(running, 5)
    await update(running, "ann", *items[:2])
    await update(running, "bob", *items[:2], hist_item=CLICKS)
    request = recall_pb2.DeleteUsersRequest(user_ids=["ann", "bob", "nobody"])
    answer = await running.recall.DeleteUsers(request)
    assert [one.status for one in answer.results] == [OK, OK, UNKNOWN_USER]
    assert [row[HIST_ITEM] for row in running.store.shown.values()] == [[], []]  # tombstones
    assert await fresh(running, named("ann"), named("bob")) == [items] * 2
    await update(running, "ann", items[0])  # begins anew
    assert (await fresh(running, named("ann"), top_k=4)) == [items[1:]]


async def test_a_deletion_meanwhile_is_for_good(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    items = await listed(running, MAX_ROWS + 1)
    for item in items[:-1]:
        await update(running, "ann", item)
    write = running.store.write

    async def overtaken(users: dict[str, StoredUser], name: str) -> None:
        monkeypatch.setattr(running.store, "write", write)
        now = await running.store.read(["ann"], name=SHOWN)
        await write({"ann": deleted(now["ann"])}, SHOWN)  # by another server
        await write(users, name)

    monkeypatch.setattr(running.store, "write", overtaken)
    await update(running, "ann", items[-1])  # merges all rows
    assert [row[HIST_ITEM] for row in running.store.shown.values()] == [[]]
    assert (await fresh(running, named("ann"), top_k=17)) == [items]


async def test_explain_says_what_was_shown(start: Start) -> None:
    running = await start()
    items = await listed(running, 5)
    await update(running, "ann", *items[:2])
    user = named("ann")
    user.exclude_item_ids.append(items[1])
    request = recall_pb2.ExplainRequest(user=user, top_k=3, exclude_shown=True)
    explained = await running.recall.Explain(request)
    assert list(explained.candidates.item_ids) == items[2:]
    reasons = {hit.item_id: hit.reason for hit in explained.dropped if hit.item_id in items[:2]}
    assert reasons == {items[0]: recall_pb2.DROP_REASON_SHOWN, items[1]: recall_pb2.DROP_REASON_EXCLUDED}


async def test_with_a_filter_and_in_memory_it_is_left_out_too(start: Start) -> None:
    running = await start()
    everything = "item_id >= 0"
    items = await listed(running, 5)
    await update(running, "ann", *items[:2])
    assert await fresh(running, named("ann"), top_k=3, filter=everything) == [items[2:]]


async def test_a_server_that_remembers_nobody_says_so(start: Start) -> None:
    running = await start(users=False)
    [result] = (await running.ask(named("ann"), exclude_shown=True)).results
    assert (result.status, result.detail) == (INVALID, "user_id needs a server that was started with --users")


async def test_while_milvus_is_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    degraded = await start(degraded=True)

    async def away(*arguments: Any, **options: Any) -> None:
        raise StoreUnavailableError("Milvus does not answer")

    for one in (running, degraded):
        monkeypatch.setattr(one.store, "read", away)
    with pytest.raises(grpc.aio.AioRpcError, match="Milvus does not answer"):
        await running.ask(named("ann"), exclude_shown=True)
    ann, bob = (await degraded.ask(named("ann"), recall_pb2.User(hist_item=CLICKS), exclude_shown=True)).results
    assert (ann.status, ann.fallback) == (recall_pb2.USER_STATUS_DEGRADED, True)
    assert ann.detail == "Milvus does not answer, and what was shown is there"
    assert bob.status == OK


async def test_the_limit_is_told(start: Start) -> None:
    running = await start(max_shown=100)
    assert (await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).limits.max_shown == 100


def test_stamps_are_ascending_in_both_rows_of_a_long_list() -> None:
    """`older` looks at the first stamp of each row alone."""
    user = shown_rows.added(None, np.arange(5_000), 5_000, -1)
    assert (np.diff(user.stamp) > 0).all()

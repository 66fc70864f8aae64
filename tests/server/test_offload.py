"""Where requests are worked on: large ones not on the event loop, where they would hold up every other call."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from protos.recall.v1 import recall_pb2
from server.edge import service, user_service
from server.serving import pipeline
from server.users import vectors
from tests.server.test_server import Start as StartServer
from tests.server.test_server import start as start_server
from tests.server.test_server_users import Start, artifact, start

__all__ = ["artifact", "start", "start_server"]

CLICKS = [1000 + 7 * number for number in range(200)] * 50


class Threads:
    """The threads that some functions were called on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *functions: tuple[Any, str]) -> None:
        self.of: dict[str, set[int]] = {}
        for module, name in functions:
            monkeypatch.setattr(module, name, self._followed(name, getattr(module, name)))

    def _followed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def followed(*arguments: Any, **options: Any) -> Any:
            self.of.setdefault(name, set()).add(threading.get_ident())
            return function(*arguments, **options)

        return followed


async def test_a_large_recall_is_not_worked_on_by_the_event_loop(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start_server()
    stages = [(pipeline, name) for name in ("look_up", "exclusions", "merge")]
    threads = Threads(monkeypatch, (service, "read_recall"), *stages)
    large = [recall_pb2.User(hist_item=CLICKS) for _ in range(3)]
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=large, top_k=5, exclude_history=True))
    assert [result.status for result in answer.results] == [recall_pb2.USER_STATUS_OK] * 3
    here = threading.get_ident()
    assert set(threads.of) == {"read_recall", "look_up", "exclusions", "merge"}
    assert all(here not in used for used in threads.of.values()), threads.of
    threads.of.clear()
    small = [recall_pb2.User(hist_item=CLICKS[:5])]
    await running.recall.Recall(recall_pb2.RecallRequest(users=small, top_k=5, exclude_history=True))
    assert all(used == {here} for used in threads.of.values()), threads.of  # a thread would cost more


async def test_many_users_without_a_history_are_not_answered_by_the_event_loop(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start_server()
    threads = Threads(monkeypatch, (pipeline, "with_popular"))
    users = [recall_pb2.User(exclude_item_ids=CLICKS[:900]) for _ in range(100)]
    answer = await running.recall.Recall(recall_pb2.RecallRequest(users=users, top_k=5))
    assert all(result.fallback for result in answer.results)
    assert threading.get_ident() not in threads.of["with_popular"]


async def test_a_large_search_for_similar_users_is_not_worked_on_by_the_event_loop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()
    await running.upsert(ann=CLICKS[:20])
    threads = Threads(monkeypatch, (user_service, "_read_similar"), (vectors, "unit_interests"))
    found = await running.similar(*[recall_pb2.User(hist_item=CLICKS) for _ in range(3)])
    assert [list(each.user_ids) for each in found.results] == [["ann"]] * 3
    assert set(threads.of) == {"_read_similar", "unit_interests"}
    assert all(threading.get_ident() not in used for used in threads.of.values()), threads.of

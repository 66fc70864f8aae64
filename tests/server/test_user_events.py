"""UpsertUsers with the kinds of clicks: what the model counts as history is stored, other clicks are counted."""

from pathlib import Path
from typing import Any

import pytest

from mind.artifact import load_artifact, newest_artifact
from mind.events import EventRules
from protos.recall.v1 import recall_pb2
from tests.artifacts import make_artifact
from tests.fake_user_store import FakeUserStore
from tests.mind.test_train import here, overrides
from tests.mind.test_weighted_targets import prepared
from tests.server.test_server_users import INVALID, OK, Running, Start
from tests.server.test_server_users import start as start

SHOP = EventRules(
    column="kind", history=("view", "buy"), target={"buy": 3}, exclude=("return",), left_out=("hover",)
).model_dump(mode="json")
RATINGS = EventRules(column="rating", history=(">=3",), target={">=4": 1}).model_dump(mode="json")


@pytest.fixture
def events() -> dict[str, Any] | None:
    """What the model records of kinds."""
    return SHOP


@pytest.fixture
def artifact(tmp_path: Path, events: dict[str, Any] | None) -> Any:
    return load_artifact(make_artifact(tmp_path / "artifacts", data={"events": events} if events else None))


async def written(running: Running, *updates: recall_pb2.UserUpdate) -> list[recall_pb2.UserWritten]:
    return list((await running.recall.UpsertUsers(recall_pb2.UpsertUsersRequest(users=updates))).results)


def ann(**given: Any) -> recall_pb2.UserUpdate:
    return recall_pb2.UserUpdate(user_id="ann", **given)


def stored(store: FakeUserStore) -> list[int]:
    return list(store.users["ann"].hist_item.tolist())


async def test_clicks_of_history_kinds_are_stored_and_others_are_counted(start: Start) -> None:
    running = await start()
    one, two, three = await written(
        running,
        ann(hist_item=[1000, 1007, 1014, 1021], events=["view", "hover", "buy", "return"]),
        ann(append_item_ids=[1028, 1035], events=["return", "view"]),
        ann(append_item_ids=[1042]),  # without kinds, all is history
    )
    assert [(each.status, each.history_length, each.dropped) for each in (one, two, three)] == [
        (OK, 2, 2),
        (OK, 3, 1),
        (OK, 4, 0),
    ]
    assert stored(running.store) == [1000, 1014, 1035, 1042]
    answer = await running.ask(recall_pb2.User(user_id="ann"), recall_pb2.User(hist_item=[1000, 1014, 1035, 1042]))
    assert answer.results[0] == answer.results[1]


async def test_an_append_of_no_history_changes_nothing(start: Start) -> None:
    running = await start()
    await written(running, ann(hist_item=[1000]))
    version = running.store.users["ann"].version
    first, second = await written(
        running,
        ann(append_item_ids=[1007, 1014], events=["hover", "return"]),
        recall_pb2.UserUpdate(user_id="bob", append_item_ids=[1], events=["hover"]),
    )
    assert [(each.status, each.history_length, each.dropped) for each in (first, second)] == [(OK, 1, 2), (OK, 0, 1)]
    assert running.store.users["ann"].version == version and "bob" not in running.store.users
    [both] = await written(running, ann(append_item_ids=[1021, 1028], events=["hover", "buy"]))
    assert (both.history_length, both.dropped) == (2, 1)


@pytest.mark.parametrize(
    ("update", "detail"),
    [
        (
            {"append_item_ids": [1, 2], "events": ["view", "veiw"]},
            "events[1] is 'veiw', known are: view, buy, return, hover",
        ),
        (
            {"append_item_ids": [1], "events": ["view", "buy"]},
            "events has 2 kinds for 1 ids, must be one for each, or none",
        ),
        ({"append_item_ids": [1], "events": [""]}, "events[0] is '', known are: view, buy, return, hover"),
        ({"append_item_ids": [1], "events": ["x" * 257]}, "events[0] has 257 bytes, the limit is 256"),
        (
            {"hist_item": [1, 2], "events": ["hover", "return"]},
            "hist_item has no id of a kind that is history for the model; DeleteUsers forgets a user",
        ),
        ({"events": ["view"]}, "none of hist_item, append_item_ids and shown_item_ids given, must be one of them"),
    ],
)
async def test_kinds_that_cannot_be_are_that_user_s_error(start: Start, update: dict[str, Any], detail: str) -> None:
    running = await start()
    wrong, neighbour = await written(
        running, ann(**update), recall_pb2.UserUpdate(user_id="bob", append_item_ids=[1000], events=["buy"])
    )
    assert (wrong.status, wrong.detail, wrong.dropped) == (INVALID, detail, 0)
    assert (neighbour.status, neighbour.history_length) == (OK, 1)
    assert "ann" not in running.store.users


@pytest.mark.parametrize("events", [RATINGS])
async def test_kinds_of_ratings_are_numbers(start: Start, events: dict[str, Any]) -> None:
    running = await start()
    good, bad = await written(
        running,
        ann(hist_item=[1000, 1007, 1014], events=["5", "2.5", "3.0"]),
        ann(append_item_ids=[1], events=["good"]),
    )
    assert (good.history_length, good.dropped) == (2, 1)
    assert bad.detail == "events[0] is 'good', must be a number, as the kinds of the model are"
    assert stored(running.store) == [1000, 1014]


@pytest.mark.parametrize("events", [None])
async def test_a_model_without_kinds_takes_none(start: Start, events: None) -> None:
    running = await start()
    [one] = await written(running, ann(append_item_ids=[1000], events=["view"]))
    assert one.status == INVALID
    assert one.detail == "events has 1 kinds, but the model was trained without kinds; send none"


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A model of clicks with kinds, as the commands make it."""
    data = prepared(tmp_path)
    done = here("mind.train", *overrides(data, runner__epochs=1))
    assert done.returncode == 0, done.stderr
    return load_artifact(newest_artifact(data / "artifacts"))


class TestFromAFileToAServer:
    """A user's file is prepared, trained and served; the server takes kinds as the file has them."""

    @pytest.fixture
    def artifact(self, trained: Any) -> Any:
        return trained

    async def test_the_server_knows_the_kinds_of_the_file(self, start: Start) -> None:
        running = await start()
        one, two = await written(
            running,
            ann(hist_item=[10, 11, 12, 13], events=["view", "cart", "buy", "return"]),
            ann(append_item_ids=[14], events=["click"]),
        )
        assert (one.status, one.history_length, one.dropped) == (OK, 2, 2)
        assert stored(running.store) == [10, 12]
        assert two.detail == "events[0] is 'click', known are: view, buy, cart, return, hover"
        assert (await running.ask(recall_pb2.User(user_id="ann"))).results[0].status == OK

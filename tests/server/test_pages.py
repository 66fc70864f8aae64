"""Lists that are continued page by page, through real gRPC on exact stores in memory."""

from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.artifact import Artifact, load_artifact
from protos.recall.v1 import recall_pb2
from protos.recall.v1.recall_pb2 import MERGE_STRATEGY_BEST_SCORE, MERGE_STRATEGY_ROUND_ROBIN
from server.edge import page_token
from server.errors import InvalidRequestError
from tests.artifacts import make_artifact
from tests.server.test_server import failure
from tests.server.test_server_users import Running, Start, artifact, start, stored

__all__ = ["artifact", "start"]
USERS = [recall_pb2.User(hist_item=[1000, 1007]), recall_pb2.User(hist_item=[1021]), recall_pb2.User()]
OTHER_WORDS = {"filter": "item_id > 0", "exclude_history": True, "merge_strategy": 2, "exclude_shown": True}


async def page(
    running: Running, *users: recall_pb2.User, top_k: int = 7, token: bytes = b"", **options: Any
) -> recall_pb2.RecallResponse:
    return await running.ask(*users or USERS, top_k=top_k, page_token=token, paged=not token, **options)


async def pages(running: Running, *users: recall_pb2.User, **options: Any) -> list[recall_pb2.RecallResponse]:
    """All pages to the end of the lists."""
    found = [await page(running, *users, **options)]
    while found[-1].next_page_token:
        found.append(await page(running, *users, token=found[-1].next_page_token, **options))
    return found


def joined(answers: list[recall_pb2.RecallResponse], field: str = "item_ids") -> list[list[Any]]:
    """The candidates of each user on all pages."""
    users = zip(*(answer.results for answer in answers), strict=True)
    return [[value for result in results for value in getattr(result, field)] for results in users]


@pytest.mark.parametrize("strategy", [MERGE_STRATEGY_BEST_SCORE, MERGE_STRATEGY_ROUND_ROBIN])
@pytest.mark.parametrize("options", [{}, {"exclude_history": True}, {"filter": "item_id < 2000"}])
async def test_pages_are_the_parts_of_a_longer_list(start: Start, strategy: Any, options: dict[str, Any]) -> None:
    running = await start()
    found = await pages(running, merge_strategy=strategy, **options)
    longer = await running.ask(*USERS, top_k=200, merge_strategy=strategy, **options)
    assert joined(found) == [list(result.item_ids) for result in longer.results]
    assert joined(found, "scores") == [list(result.scores) for result in longer.results]
    assert {answer.collection for answer in found} == {longer.collection}
    assert found[-1].results[0].detail.startswith(f"{len(found[-1].results[0].item_ids)} of 7: ")


async def test_who_asks_for_no_pages_gets_no_token(start: Start) -> None:
    running = await start()
    plain, paged = await running.ask(*USERS, top_k=7), await page(running)
    assert plain.next_page_token == b"" != paged.next_page_token
    assert plain.results == paged.results


async def test_items_that_change_meanwhile_repeat_nothing(start: Start) -> None:
    running = await start()
    first = await page(running, USERS[0])
    given = list(first.results[0].item_ids)
    collection = first.collection
    running.items.delete(collection, [given[3]])
    best = running.server.releases.current
    row = best.vocabulary.item_index(np.array([given[0]]))
    running.items.add(collection, 7_000_001, best.item_embedding[row[0]] * 2)
    [second] = (await page(running, USERS[0], token=first.next_page_token)).results
    assert second.item_ids[0] == 7_000_001 and not {*given} & {*second.item_ids}
    assert len({*second.item_ids}) == 7


async def test_clicks_meanwhile_repeat_nothing(start: Start) -> None:
    running = await start()
    await running.upsert(ann=[1000])
    first = await page(running, stored("ann"))
    await running.upsert(ann=("+", [1350, 1357, 1364]))
    second = await page(running, stored("ann"), token=first.next_page_token)
    now = await running.ask(stored("ann"), top_k=14)
    given = {*first.results[0].item_ids}
    assert list(second.results[0].item_ids) == [item for item in now.results[0].item_ids if item not in given][:7]


async def test_pages_stay_with_their_release_while_it_is_there(start: Start, artifact: Artifact) -> None:
    running = await start()
    longer = await running.ask(*USERS, top_k=21)
    found = [await page(running)]
    for seed in (1, 2):
        other = load_artifact(make_artifact(running.artifacts, seed=seed))
        running.items.publish(other)
        await running.in_step(other.model_version)
        if seed == 1:
            for _ in range(2):
                found.append(await page(running, token=found[-1].next_page_token))
            assert {answer.model_version for answer in found} == {artifact.model_version}
            assert joined(found) == [list(result.item_ids) for result in longer.results]
    code, reason, message, _ = await failure(page(running, token=found[-1].next_page_token))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_RELEASE_GONE")
    assert "begin with the first page" in message


async def test_pages_end_where_the_server_says(start: Start) -> None:
    running = await start(max_paged=20)
    first, second = await pages(running)
    assert [len(result.item_ids) for result in second.results] == [7] * 3
    says = "the pages end here: another one would exceed 20 candidates of a user"
    assert {result.detail for result in second.results} == {says}
    code, reason, message, _ = await failure(page(running, top_k=14, token=first.next_page_token))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    assert "has 7 candidates of a user, and top_k more would exceed 20" in message
    assert (await running.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())).limits.max_paged == 20


async def test_a_token_has_a_limit(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await start()
    monkeypatch.setattr(page_token, "MAX_GIVEN", 40)
    first, second = await pages(running)
    assert second.next_page_token == b""
    assert second.results[0].detail.endswith("ask for fewer users at once")
    monkeypatch.setattr(page_token, "MAX_TOKEN_BYTES", len(first.next_page_token) - 1)
    *_, message, _ = await failure(page(running, token=first.next_page_token))
    assert f"has {len(first.next_page_token)} bytes, the limit is {len(first.next_page_token) - 1}" in message


@pytest.mark.parametrize("options", [{name: value} for name, value in OTHER_WORDS.items()])
async def test_a_token_of_another_request_is_refused(start: Start, options: dict[str, Any]) -> None:
    running = await start()
    token = (await page(running)).next_page_token
    code, reason, message, _ = await failure(page(running, token=token, **options))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    assert message.startswith("page_token: belongs to a request with other users or options")


async def test_a_token_of_other_users_is_refused(start: Start) -> None:
    running = await start()
    token = (await page(running, stored("ann"), stored("bob"))).next_page_token
    for users in ([stored("ann")], [stored("bob"), stored("ann")], [stored("ann")] * 3):
        code, reason, *_ = await failure(page(running, *users, token=token))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 4), st.booleans())
def test_any_bytes_are_a_token_or_refused(token: bytes, users: int, begins_right: bool) -> None:
    token = b"\x01" + token if begins_right else token
    try:
        _, digest, of_users = page_token._parse(token, users)
    except InvalidRequestError as error:
        assert error.reason == "PAGE_TOKEN_INVALID"
    else:
        assert len(digest) == 8 and len(of_users) == users


async def test_a_damaged_token_is_refused(start: Start) -> None:
    running = await start()
    token = (await page(running)).next_page_token
    for damaged in (token[:-1], token + b"\0", token[1:], b"\x02" + token[1:], b"x", token[:14] + b"\xff" * 90):
        code, reason, *_ = await failure(page(running, token=damaged))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")

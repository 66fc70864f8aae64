"""Boosts, pins and explored items through real gRPC and the shipped client, on an exact store in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest

from mind.hits import falling
from protos.recall.v1 import recall_pb2
from protos.recall.v1.recall_pb2 import MERGE_STRATEGY_BEST_SCORE, MERGE_STRATEGY_ROUND_ROBIN
from server.errors import StoreUnavailableError
from tests.server.test_server import USER, Running, Start, failure
from tests.server.test_server import start as start
from tests.server.test_variety import ITEMS, all_items, at_most, taken, with_attributes
from tests.waiting import PATIENCE_S, until

DAY_S = 86_400
NOW_S = 1_800_000_000
USERS = [USER, recall_pb2.User(hist_item=[1021, 1301]), recall_pb2.User(hist_item=[1399])]
Boost, Explore = recall_pb2.Boost, recall_pb2.Explore
PIN, EXPLORE, SEARCH = recall_pb2.SOURCE_PIN, recall_pb2.SOURCE_EXPLORE, recall_pb2.SOURCE_SEARCH


def published_at(item: int) -> int | None:
    """A day to 200 days ago; every third item has no time."""
    return None if item % 3 == 0 else NOW_S - (item - 999) * DAY_S // 7


async def shop_of(start: Start, **options: Any) -> Running:
    shop = await with_attributes(start, **options)
    times = {item: published_at(item) for item in ITEMS if published_at(item)}
    shop.store.give(shop.collection, "published_at", "INT64", times)
    return shop


async def ask(shop: Running, *users: recall_pb2.User, top_k: int = 10, **rest: Any) -> list[recall_pb2.UserCandidates]:
    request = recall_pb2.RecallRequest(users=users or USERS, top_k=top_k, **rest)
    return list((await shop.recall.Recall(request)).results)


async def until_so(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something that must be asked for is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def with_times(shop: Running) -> None:
    """Wait until the times of items are in memory."""

    async def there() -> bool:
        [result] = await ask(shop, USER, boosts=NEWEST)
        return not result.detail

    await until_so(there)


def added_by(boosts: list[recall_pb2.Boost], item: int) -> np.float32:
    """What boosts add to an item, in single precision and in their order."""
    total = np.float32(0)
    for boost in boosts:
        if boost.attribute:
            time = published_at(item)
            if time is None:
                continue
            age = max(NOW_S - time, 0) / DAY_S
            total += np.float32(boost.weight * 2 ** (-age / boost.half_life_days))
        else:
            total += np.float32(boost.add) if _matches(boost.filter, item) else np.float32(0)
    return total


def _matches(filter_: str, item: int) -> bool:
    _, sign, number = filter_.split()
    return item < int(number) if sign == "<" else item > int(number)


async def expected(
    shop: Running, user: recall_pb2.User, boosts: list[recall_pb2.Boost], **rest: Any
) -> tuple[list[int], list[float], list[float]]:
    """All items of a user by what they score and get: their ids, scores, and what they get."""
    [plain] = await ask(shop, user, top_k=200, **rest)
    scores = np.array(plain.scores, np.float32)
    gets = np.array([added_by(boosts, item) for item in plain.item_ids], np.float32)
    order = np.lexsort((plain.item_ids, falling(scores + gets)))
    return [plain.item_ids[place] for place in order], scores[order].tolist(), gets[order].tolist()


SOME = [Boost(filter="item_id > 2000", add=4)]
LOWERED = [Boost(filter="item_id < 2200", add=-50)]
SEVERAL = [*SOME, Boost(filter="item_id < 1400", add=2), Boost(filter="item_id > 2200", add=-6)]
NEWEST = [Boost(attribute="published_at", half_life_days=30, weight=8)]
OLDEST = [Boost(attribute="published_at", half_life_days=30, weight=-8)]


@pytest.mark.parametrize("boosts", [SOME, LOWERED, SEVERAL, NEWEST, OLDEST, [*NEWEST, *SEVERAL]])
@pytest.mark.parametrize("rest", [{}, {"filter": "item_id > 1500"}, {"exclude_history": True}])
@pytest.mark.parametrize("search", ["milvus", "local"])
async def test_lists_are_those_of_all_items_with_what_is_added(
    start: Start, boosts: list[recall_pb2.Boost], rest: dict[str, Any], search: str
) -> None:
    shop = await shop_of(start, search=search)
    await with_times(shop)
    found = await ask(shop, boosts=boosts, now_unix_s=NOW_S, **rest)
    for user, result in zip(USERS, found, strict=True):
        items, scores, gets = await expected(shop, user, boosts, **rest)
        assert list(result.item_ids) == items[:10]
        np.testing.assert_allclose(result.scores, scores[:10], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result.added, gets[:10], rtol=1e-6)
        assert not result.detail


async def test_without_boosts_nothing_is_told(start: Start) -> None:
    shop = await shop_of(start)
    for result in await ask(shop):
        assert not result.added and not result.source


async def test_rules_choose_among_boosted_items(start: Start) -> None:
    shop = await shop_of(start)
    for counts in ({"category": 1}, {"category": 1, "sold": 6}):
        for boosts in (SOME, SEVERAL, LOWERED):
            found = await ask(shop, boosts=boosts, at_most=at_most(**counts))
            for user, result in zip(USERS, found, strict=True):
                items, _, _ = await expected(shop, user, boosts)
                assert list(result.item_ids) == taken(items, 10, **counts)


async def test_interests_that_take_turns_have_boosted_lists(start: Start) -> None:
    shop = await shop_of(start)
    boosts = [Boost(filter="item_id > 2000", add=100)]
    for result in await ask(shop, boosts=boosts, merge_strategy=MERGE_STRATEGY_ROUND_ROBIN):
        assert min(result.item_ids) > 2000 and len(set(result.item_ids)) == 10
    found = await ask(shop, top_k=200, boosts=SEVERAL, merge_strategy=MERGE_STRATEGY_ROUND_ROBIN)
    shorter = await ask(shop, top_k=10, boosts=SEVERAL, merge_strategy=MERGE_STRATEGY_ROUND_ROBIN)
    assert [list(result.item_ids)[:10] for result in found] == [list(result.item_ids) for result in shorter]


async def test_boosts_follow_changes_of_items(start: Start) -> None:
    shop = await shop_of(start)
    boosts = [Boost(filter="item_id > 2300", add=100)]
    [before, *_] = await ask(shop, boosts=boosts)
    best = before.item_ids[0]
    shop.store.delete(shop.collection, [best])
    vector = shop.store.collections[shop.collection].vectors.sum(axis=0)
    shop.store.add(shop.collection, 9_999, vector)

    async def followed() -> bool:
        [now, *_] = await ask(shop, top_k=20, boosts=boosts)
        return best not in now.item_ids and 9_999 in now.item_ids

    await until_so(followed)


async def test_newer_times_count(start: Start) -> None:
    shop = await shop_of(start)
    await with_times(shop)
    boosts = [Boost(attribute="published_at", half_life_days=1, weight=1_000)]
    shop.store.change(shop.collection, "published_at", {2393: NOW_S, 2386: NOW_S + DAY_S})

    async def followed() -> bool:
        [now, *_] = await ask(shop, boosts=boosts, now_unix_s=NOW_S)
        return sorted(now.item_ids[:2]) == [2386, 2393] and list(now.added[:2]) == [1_000, 1_000]

    await until_so(followed)


async def test_a_boost_by_age_says_where_its_column_has_no_room(start: Start) -> None:
    shop = await shop_of(start, attribute_cache_mb=0)
    plain, boosted = await ask(shop, USER), await ask(shop, USER, boosts=[*NEWEST])
    assert list(plain[0].item_ids) == list(boosted[0].item_ids)
    assert boosted[0].detail == ("boosts are not applied: published_at (--attribute-cache-mb has no room for it)")
    [result] = await ask(shop, USER, boosts=[*NEWEST, Boost(filter="item_id > 2300", add=100)])
    assert min(result.item_ids) > 2300 and "published_at" in result.detail


async def test_the_clock_of_the_server_counts_without_another(start: Start) -> None:
    shop = await shop_of(start)
    await with_times(shop)
    [result] = await ask(shop, USER, boosts=[Boost(attribute="published_at", half_life_days=36_500, weight=1)])
    assert max(result.added) <= 1 and np.count_nonzero(result.added) >= 5


async def test_pins_come_first(start: Start) -> None:
    shop = await shop_of(start)
    pins = [2393, 5, 1000, 1_700_000, 1049]
    users = [USER, recall_pb2.User(hist_item=[1021], exclude_item_ids=[2393]), recall_pb2.User()]
    plain = await ask(shop, *users, exclude_history=True)
    found = await ask(shop, *users, exclude_history=True, pin_item_ids=pins)
    for result, before, own in zip(found, plain, ([2393, 1000, 1049], [1000, 1049], [2393, 1000, 1049]), strict=True):
        rest = [item for item in before.item_ids if item not in pins]
        assert list(result.item_ids)[: len(own) + 3] == [*own, *rest[:3]]
        assert len(result.item_ids) == 10 == len(set(result.item_ids))
        assert list(result.source[: len(own)]) == [PIN] * len(own)
        assert result.detail == "pins 1, 3 (from 0) are left out: no such items, or they do not match"
    assert set(found[0].source[3:]) == {SEARCH} and set(found[2].source[3:]) == {recall_pb2.SOURCE_UNSPECIFIED}
    [everything] = await ask(shop, USER, top_k=200)
    scores = dict(zip(everything.item_ids, everything.scores, strict=True))
    np.testing.assert_allclose(found[0].scores, [scores[item] for item in found[0].item_ids], rtol=1e-5)
    assert found[2].fallback and set(found[2].interest) == {-1}


async def test_pins_keep_to_the_filter_and_to_deletions(start: Start) -> None:
    shop = await shop_of(start)
    shop.store.delete(shop.collection, [2393])
    shop.store.add(shop.collection, 9_999, np.ones_like(shop.store.collections[shop.collection].vectors[0]))

    async def seen() -> bool:
        [result] = await ask(shop, USER, pin_item_ids=[2393, 2386, 1000, 9_999], filter="item_id > 2000")
        return list(result.item_ids[:2]) == [2386, 9_999] and "pins 0, 2 (from 0)" in result.detail

    await until_so(seen)
    [result] = await ask(shop, USER, pin_item_ids=[2393, 9_999])
    assert result.item_ids[0] == 9_999 and "pins 0 (from 0)" in result.detail


async def test_pins_neither_count_nor_fall_by_rules(start: Start) -> None:
    shop = await shop_of(start)
    pins = [item for item in ITEMS if item % 2 == 0][:4]
    [result] = await ask(shop, USER, at_most=at_most(sold=3), pin_item_ids=pins)
    items = [item for item in await all_items(shop, USER) if item not in pins]
    assert list(result.item_ids) == [*pins, *taken(items, 6, sold=3)]


async def test_more_pins_than_places(start: Start) -> None:
    shop = await shop_of(start)
    [result] = await ask(shop, USER, top_k=3, pin_item_ids=[1000, 1007, 1014, 1021], explore=Explore(share=0.5))
    assert list(result.item_ids) == [1000, 1007, 1014] and list(result.source) == [PIN] * 3


async def test_drawn_items_are_spread_over_the_list(start: Start) -> None:
    shop = await shop_of(start)
    plain = await ask(shop, top_k=20)
    asked = {"top_k": 20, "explore": Explore(share=0.1, seed=7), "pin_item_ids": [1007]}
    found = await ask(shop, **asked)
    for result, before in zip(found, plain, strict=True):
        assert [place for place, source in enumerate(result.source) if source == EXPLORE] == [5, 15]
        assert result.source[0] == PIN and list(result.source).count(SEARCH) == 17
        ranked = [item for item in before.item_ids if item != 1007]
        own = [item for item, source in zip(result.item_ids, result.source, strict=True) if source == SEARCH]
        assert own == ranked[:17] and len(set(result.item_ids)) == 20
    assert [list(result.item_ids) for result in await ask(shop, **asked)] == [list(each.item_ids) for each in found]
    other = await ask(shop, **(asked | {"explore": Explore(share=0.1, seed=8)}))
    assert [list(result.item_ids) for result in other] != [list(each.item_ids) for each in found]


async def test_a_user_id_draws_the_same_at_any_place(start: Start) -> None:
    shop = await shop_of(start, users=True)
    user = recall_pb2.User(hist_item=[1000], user_id="ada", exclude_item_ids=[1700])
    explore = Explore(share=0.3, seed=7)
    one = await ask(shop, user, explore=explore)
    two = await ask(shop, USER, user, explore=explore)
    assert list(one[0].item_ids) == list(two[1].item_ids)


async def test_drawn_items_match_and_are_not_excluded(start: Start) -> None:
    shop = await shop_of(start)
    user = recall_pb2.User(hist_item=[1000], exclude_item_ids=[2393])
    rest = {"filter": "item_id > 1500", "explore": Explore(share=0.5, filter="item_id > 2300", seed=3)}
    [result] = await ask(shop, user, top_k=40, **rest)
    explored = [item for item, source in zip(result.item_ids, result.source, strict=True) if source == EXPLORE]
    assert all(2300 < item != 2393 for item in explored) and 0 < len(explored) < 20
    assert result.detail.endswith("items are explored: no others match that are not candidates")
    assert len(result.item_ids) == 40 == len(set(result.item_ids))


async def test_without_a_seed_each_request_draws_anew(start: Start) -> None:
    shop = await shop_of(start)
    one, two = [(await ask(shop, USER, explore=Explore(share=0.5)))[0] for _ in range(2)]
    assert list(one.item_ids) != list(two.item_ids)


async def test_the_popular_list_has_pins_and_drawn_items_and_no_boosts(start: Start) -> None:
    shop = await shop_of(start)
    nobody = recall_pb2.User()
    [plain] = await ask(shop, nobody)
    [result] = await ask(
        shop,
        nobody,
        pin_item_ids=[2393],
        explore=Explore(share=0.1, seed=1),
        boosts=[Boost(filter="item_id > 0", add=1)],
    )
    assert result.fallback and result.item_ids[0] == 2393 and not result.added
    assert [result.source[0], list(result.source).count(EXPLORE), len(result.item_ids)] == [PIN, 1, 10]
    own = [item for item, source in zip(result.item_ids, result.source, strict=True) if source == 0]
    assert own == list(plain.item_ids)[:8]


@pytest.mark.parametrize("strategy", [MERGE_STRATEGY_BEST_SCORE, MERGE_STRATEGY_ROUND_ROBIN])
async def test_pages_have_no_repeats(start: Start, strategy: Any) -> None:
    shop = await shop_of(start)
    how: dict[str, Any] = {"boosts": SEVERAL, "pin_item_ids": [2393, 1049], "merge_strategy": strategy}
    asked = how | {"explore": Explore(share=0.1), "users": USERS, "top_k": 30}
    answer, found = await shop.recall.Recall(recall_pb2.RecallRequest(**asked, paged=True)), []
    found.append(answer.results)
    while answer.next_page_token:
        answer = await shop.recall.Recall(recall_pb2.RecallRequest(**asked, page_token=answer.next_page_token))
        found.append(answer.results)
    for user in range(len(USERS)):
        items = [item for results in found for item in results[user].item_ids]
        assert len(items) == len(set(items)) == 200 and items[:2] == [2393, 1049]


async def test_a_token_belongs_to_its_boosts(start: Start) -> None:
    shop = await shop_of(start)
    request = recall_pb2.RecallRequest(users=USERS, top_k=5, boosts=SOME, paged=True)
    token = (await shop.recall.Recall(request)).next_page_token
    for other in ({"boosts": SEVERAL}, {"boosts": SOME, "pin_item_ids": [1]}, {"boosts": SOME, "now_unix_s": 5}):
        again = recall_pb2.RecallRequest(users=USERS, top_k=5, page_token=token, **other)
        code, reason, _, _ = await failure(shop.recall.Recall(again))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_explain_tells_what_each_boost_adds(start: Start) -> None:
    shop = await shop_of(start)
    await with_times(shop)
    boosts = [*SOME, *NEWEST]
    how: dict[str, Any] = {"boosts": boosts, "now_unix_s": NOW_S, "pin_item_ids": [2393], "top_k": 20}
    how["explore"] = Explore(share=0.1, seed=7)
    explained = await shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, **how))
    [answered] = await ask(shop, USER, **how)
    assert explained.candidates == answered
    assert [applied.boost for applied in explained.boosts] == boosts
    for boost, applied in zip(boosts, explained.boosts, strict=True):
        own = [added_by([boost], item) for item in answered.item_ids]
        np.testing.assert_allclose(applied.added, own, rtol=1e-5)
    for interest in explained.interests:
        values = np.array(interest.scores) + np.array(interest.added)
        assert len(interest.added) == len(interest.item_ids) and (np.diff(values) < 1e-6).all()
    reasons = {each.item_id: each.reason for each in explained.dropped}
    ranked = [item for item, source in zip(answered.item_ids, answered.source, strict=True) if source == SEARCH]
    hits = {item for interest in explained.interests for item in interest.item_ids}
    assert reasons.get(2393, recall_pb2.DROP_REASON_PINNED) == recall_pb2.DROP_REASON_PINNED
    assert hits == set(reasons) | set(ranked)


async def test_boosts_of_what_was_seen_last_apply_while_milvus_is_away(start: Start) -> None:
    shop = await shop_of(start, degraded=True)
    await until(lambda: shop.server.local.knows(shop.server.releases.current))
    boosts = [Boost(filter="item_id > 2300", add=100)]
    [before] = await ask(shop, USER, boosts=boosts, pin_item_ids=[1000])
    shop.store.fault = StoreUnavailableError("Milvus does not answer")
    [after] = await ask(shop, USER, boosts=boosts, pin_item_ids=[1000])
    assert after.status == recall_pb2.USER_STATUS_DEGRADED and list(after.item_ids) == list(before.item_ids)
    [other] = await ask(shop, USER, boosts=[Boost(filter="item_id > 2301", add=100)])
    assert "boosts are not applied: item_id > 2301 (Milvus does not answer)" in other.detail


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        ({"boosts": [Boost(add=1)]}, "boosts[0]", "BAD_BOOST"),
        ({"boosts": [Boost(filter="item_id > 1", attribute="published_at", add=1)]}, "boosts[0]", "BAD_BOOST"),
        ({"boosts": [Boost(filter="item_id > 1")]}, "boosts[0].add", "BOOST_OUT_OF_RANGE"),
        ({"boosts": [Boost(filter="item_id > 1", add=1001)]}, "boosts[0].add", "BOOST_OUT_OF_RANGE"),
        ({"boosts": [Boost(filter="item_id > 1", add=float("nan"))]}, "boosts[0].add", "BOOST_OUT_OF_RANGE"),
        ({"boosts": [*SOME, Boost(filter="price >", add=1)]}, "boosts[1].filter", "FILTER_INVALID"),
        ({"boosts": [Boost(filter="item_id > 1", add=1, weight=1)]}, "boosts[0].weight", "BAD_BOOST"),
        (
            {"boosts": [Boost(attribute="category", half_life_days=1, weight=1)]},
            "boosts[0].attribute",
            "UNKNOWN_ATTRIBUTE",
        ),
        ({"boosts": [Boost(attribute="published_at", weight=1)]}, "boosts[0].half_life_days", "HALF_LIFE_OUT_OF_RANGE"),
        ({"boosts": [Boost(attribute="published_at", half_life_days=1)]}, "boosts[0].weight", "BOOST_OUT_OF_RANGE"),
        ({"boosts": SOME * 9}, "boosts", "TOO_MANY_BOOSTS"),
        ({"pin_item_ids": [1, 2, 1]}, "pin_item_ids[2]", "INVALID_PINS"),
        ({"pin_item_ids": range(51)}, "pin_item_ids", "INVALID_PINS"),
        ({"pin_item_keys": ["a"]}, "pin_item_keys", "WRONG_ID_TYPE"),
        ({"explore": Explore()}, "explore.share", "SHARE_OUT_OF_RANGE"),
        ({"explore": Explore(share=1.5)}, "explore.share", "SHARE_OUT_OF_RANGE"),
        ({"explore": Explore(share=0.5, filter="item_id = 1")}, "explore.filter", "FILTER_INVALID"),
    ],
)
async def test_what_breaks_a_limit_is_refused(start: Start, options: dict[str, Any], field: str, reason: str) -> None:
    shop = await shop_of(start)
    code, why, says, _ = await failure(shop.recall.Recall(recall_pb2.RecallRequest(users=USERS, top_k=5, **options)))
    assert (code, why) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert says.startswith(f"{field}:")
    asked = recall_pb2.ExplainRequest(user=USER, top_k=5, **options)
    assert (await failure(shop.recall.Explain(asked)))[1:3] == (reason, says)

"""Rules that make candidates vary, through real gRPC and the shipped client, on an exact store in memory."""

import asyncio
from collections import Counter
from typing import Any

import grpc
import numpy as np
import pytest

from clients import AsyncRecallClient
from protos.recall.v1 import recall_pb2
from server.errors import StoreUnavailableError
from server.serving import depth, pipeline
from server.serving.rules.diversity import diversified, relevance_of
from tests.server.test_server import USER, Running, Start, failure
from tests.server.test_server import start as start
from tests.waiting import until

ITEMS = range(1000, 1000 + 7 * 200, 7)
COLOURS = ("red", "green", "blue")


def category(item: int) -> str | None:
    """200 items: 50 have no category, the others one of 25, 6 items each."""
    return None if item % 4 == 0 else f"c{item % 25}"


def colours(item: int) -> tuple[str, ...]:
    return COLOURS[: item % 4]


@pytest.fixture
async def shop(start: Start) -> Running:
    return await with_attributes(start)


async def with_attributes(start: Start, **options: Any) -> Running:
    running = await start(**options)
    for name, kind, value in (
        ("category", "VARCHAR", category),
        ("colours", "ARRAY<VARCHAR>", colours),
        ("sold", "BOOL", lambda item: item % 2 == 0),
    ):
        values = {item: value(item) for item in ITEMS if value(item) is not None}
        running.store.give(running.collection, name, kind, values)
    return running


def at_most(**counts: int) -> list[recall_pb2.AtMost]:
    return [recall_pb2.AtMost(attribute=name, count=count) for name, count in counts.items()]


async def all_items(shop: Running, user: recall_pb2.User, **rest: Any) -> list[int]:
    """All items of a user, ranked, without rules."""
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=[user], top_k=200, **rest))
    return list(answer.results[0].item_ids)


def taken(items: list[int], top_k: int, **counts: int) -> list[int]:
    """What at_most takes of ranked items."""
    seen: Counter[tuple[str, Any]] = Counter()
    found = []
    for item in items:
        values = {"category": [category(item)], "colours": colours(item), "sold": [item % 2 == 0]}
        own = [(name, value) for name in counts for value in values[name] if value is not None]
        if all(seen[each] < counts[each[0]] for each in own):
            seen.update(own)
            found.append(item)
    return found[:top_k]


@pytest.mark.parametrize(
    "counts",
    [
        {"category": 1},
        {"category": 2, "sold": 20},
        {"colours": 3},
        {"category": 1, "colours": 4, "sold": 10},
        {"sold": 3},
    ],
)
async def test_at_most_takes_the_best_that_have_room_however_deep_they_are(
    shop: Running, counts: dict[str, int]
) -> None:
    users = [USER, recall_pb2.User(hist_item=[1014]), recall_pb2.User(hist_item=[1700, 1707], exclude_item_ids=[1021])]
    ranked = [await all_items(shop, user) for user in users]
    for _ in range(2):  # read for these items at first, then from columns
        for top_k in (5, 30):
            request = recall_pb2.RecallRequest(users=users, top_k=top_k, at_most=at_most(**counts))
            answer = await shop.recall.Recall(request)
            for items, result in zip(ranked, answer.results, strict=True):
                expected = taken(items, top_k, **counts)
                assert list(result.item_ids) == expected
                assert bool(result.detail) == (len(expected) < top_k)
        await asyncio.sleep(0.06)


async def test_a_short_list_says_that_the_rule_leaves_no_more(shop: Running) -> None:
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=30, at_most=at_most(sold=3)))
    assert answer.results[0].detail == "6 of 30: at_most allows no more of the items that are not excluded"


async def test_a_list_that_cannot_be_searched_further_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth, "MAX_HITS", 40)
    monkeypatch.setattr(depth, "TOGETHER", 20)
    shop = await with_attributes(start)
    shop.store.searches.clear()
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=8, at_most=at_most(sold=3)))
    said = "6 of 8: at_most allows no more of the 40 nearest items of each interest, and the search goes no deeper"
    assert answer.results[0].detail == said
    assert max(limit for _, limit in shop.store.searches) == 40


async def test_no_search_is_deeper_than_a_rule_can_use(shop: Running) -> None:
    """Two values, of which every item has one: six items are all that the rule ever allows."""
    request = recall_pb2.RecallRequest(users=[USER], top_k=30, at_most=at_most(sold=3))
    await shop.recall.Recall(request)
    await asyncio.sleep(0.1)  # the column is read beside the request, for its values are not known before
    shop.store.searches.clear()
    [result] = (await shop.recall.Recall(request)).results
    assert list(result.item_ids) == taken(await all_items(shop, USER), 30, sold=3)
    assert result.detail == "6 of 30: at_most allows no more of the items that are not excluded"
    assert len(shop.store.searches) == 2  # the rule's, and the one for all items
    shop.store.change(shop.collection, "sold", {next(iter(ITEMS)): None})
    await asyncio.sleep(0.06)
    again = (await shop.recall.Recall(request)).results[0]
    assert set(result.item_ids) - {next(iter(ITEMS))} <= set(again.item_ids)
    assert len(shop.store.searches) > 3  # an item without a value may be anywhere


async def test_requests_without_rules_fetch_no_more(shop: Running) -> None:
    shop.store.searches.clear()
    plain = recall_pb2.RecallRequest(users=[USER], top_k=20)
    ruled = recall_pb2.RecallRequest(users=[USER], top_k=20, at_most=at_most(category=1))
    alone = await shop.recall.Recall(plain)
    both = await asyncio.gather(shop.recall.Recall(plain), shop.recall.Recall(ruled))
    assert both[0].results == alone.results
    assert shop.store.searches[0] == (4, 20)


@pytest.mark.parametrize("filter_", ["", "item_id < 2000"])
async def test_rules_with_exclusions_and_a_filter(shop: Running, filter_: str) -> None:
    user = recall_pb2.User(hist_item=[1000, 1007], exclude_item_ids=list(ITEMS)[10:30])
    rest = {"filter": filter_, "exclude_history": True}
    expected = taken(await all_items(shop, user, **rest), 20, category=1)
    request = recall_pb2.RecallRequest(users=[user], top_k=20, at_most=at_most(category=1), **rest)
    answer = await shop.recall.Recall(request)
    assert list(answer.results[0].item_ids) == expected


async def test_each_interest_has_its_candidates(shop: Running) -> None:
    user = recall_pb2.User(hist_item=[1000, 1350, 1700])
    without = await shop.recall.Explain(recall_pb2.ExplainRequest(user=user, top_k=16))
    answer = await shop.recall.Explain(recall_pb2.ExplainRequest(user=user, top_k=16, per_interest_min=4))
    found = answer.candidates
    counts = Counter(found.interest)
    hits = {number: len(interest.item_ids) for number, interest in enumerate(answer.interests) if interest.item_ids}
    assert len(hits) > 1 and min(Counter(without.candidates.interest)[number] for number in hits) < 4
    assert len(found.item_ids) == 16
    dropped = Counter(hit.interest for hit in answer.dropped if hit.reason != recall_pb2.DROP_REASON_DUPLICATE)
    for number in hits:
        assert counts[number] >= min(4, counts[number] + dropped[number])
    assert list(found.scores) == sorted(found.scores, reverse=True)
    gone = [hit.item_id for hit in answer.dropped if hit.reason == recall_pb2.DROP_REASON_PER_INTEREST_MIN]
    assert set(gone) == set(without.candidates.item_ids) - set(found.item_ids) != set()


async def test_diversity_is_mmr_among_half_as_many_more(shop: Running) -> None:
    pool = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=30))
    ids, scores = list(pool.results[0].item_ids), np.array(pool.results[0].scores, np.float32)
    stored = shop.store.collections[shop.collection]
    vectors = stored.vectors[np.searchsorted(stored.item_ids, ids)]
    diversity = np.array([0.6], np.float32)
    size = np.array([30])
    [places] = diversified(relevance_of(scores, size), vectors, size, diversity, np.array([20]))
    answer = await shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=20, diversity=0.6))
    assert list(answer.candidates.item_ids) == [ids[place] for place in places]
    assert list(answer.candidates.item_ids) != ids[:20]
    gone = {hit.item_id for hit in answer.dropped if hit.reason == recall_pb2.DROP_REASON_DIVERSITY}
    assert gone == set(ids[:20]) - set(answer.candidates.item_ids)


async def test_an_item_that_came_after_the_build_counts_for_diversity(shop: Running) -> None:
    [best, *_] = await all_items(shop, USER)
    stored = shop.store.collections[shop.collection]
    twin = stored.vectors[np.searchsorted(stored.item_ids, best)]
    shop.store.add(shop.collection, 5, twin * np.float32(0.999))
    without = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5))
    assert list(without.results[0].item_ids)[:2] == [best, 5]
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=5, diversity=0.7))
    assert 5 not in answer.results[0].item_ids


async def test_explain_tells_which_rule_dropped_a_hit(shop: Running) -> None:
    request = recall_pb2.ExplainRequest(user=USER, top_k=10, at_most=at_most(sold=4))
    answer = await shop.recall.Explain(request)
    ranked = await all_items(shop, USER)
    kept = list(answer.candidates.item_ids)
    assert kept == taken(ranked, 10, sold=4)
    dropped = {hit.item_id for hit in answer.dropped if hit.reason == recall_pb2.DROP_REASON_AT_MOST}
    # How deep the search goes depends on whether the column is in memory yet, which tells that two values are all.
    assert dropped == {item for interest in answer.interests for item in interest.item_ids} - set(kept)
    [recalled] = (
        await shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], top_k=10, at_most=at_most(sold=4)))
    ).results
    assert recalled == answer.candidates


@pytest.mark.parametrize("counts", [{"sold": 4}, {"category": 1, "sold": 3}, {"colours": 4, "category": 1, "sold": 5}])
async def test_explain_tells_which_attributes_of_at_most_dropped_a_hit(shop: Running, counts: dict[str, int]) -> None:
    seen: Counter[tuple[str, Any]] = Counter()
    full: dict[int, list[str]] = {}
    for item in await all_items(shop, USER):
        values = {"category": [category(item)], "colours": colours(item), "sold": [item % 2 == 0]}
        own = [(name, value) for name in counts for value in values[name] if value is not None]
        full[item] = list(dict.fromkeys(name for name, value in own if seen[name, value] >= counts[name]))
        if not full[item]:
            seen.update(own)
    request = recall_pb2.ExplainRequest(user=USER, top_k=9, at_most=at_most(**counts))
    answer = await shop.recall.Explain(request)
    dropped = [hit for hit in answer.dropped if hit.reason == recall_pb2.DROP_REASON_AT_MOST]
    assert {hit.item_id: list(hit.at_most) for hit in dropped} == {hit.item_id: full[hit.item_id] for hit in dropped}
    assert len(dropped) > 5 and {name for hit in dropped for name in hit.at_most} == set(counts), answer.candidates
    assert not any(hit.at_most for hit in answer.dropped if hit.reason != recall_pb2.DROP_REASON_AT_MOST)


async def test_the_popular_list_follows_at_most(shop: Running) -> None:
    users = [recall_pb2.User(), recall_pb2.User(exclude_item_ids=[1000, 1014])]
    rules = {"at_most": at_most(category=1, sold=5), "per_interest_min": 1, "diversity": 0.5}
    answer = await shop.recall.Recall(recall_pb2.RecallRequest(users=users, top_k=10, **rules))
    for user, result in zip(users, answer.results, strict=True):
        left = [item for item in ITEMS if item not in user.exclude_item_ids]
        assert list(result.item_ids) == taken(left, 10, category=1, sold=5)
    [short] = (
        await shop.recall.Recall(recall_pb2.RecallRequest(users=users[:1], top_k=10, at_most=at_most(sold=1)))
    ).results
    assert short.detail == "2 of 10: the popular list has no more items that are not excluded and that at_most allows"


async def test_a_rule_of_an_attribute_that_milvus_does_not_tell_is_not_applied_and_the_answer_says_so(
    shop: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(shop.store, "values", silent)
    users = [USER, recall_pb2.User()]
    request = recall_pb2.RecallRequest(users=users, top_k=5, at_most=at_most(category=1))
    answer = await shop.recall.Recall(request, timeout=4)
    for result in answer.results:
        assert len(result.item_ids) == 5
        assert result.detail.startswith("at_most is not applied to category: Milvus did not tell them within")


async def test_an_attribute_that_changed_counts_at_once(shop: Running) -> None:
    request = recall_pb2.RecallRequest(users=[USER], top_k=20, at_most=at_most(category=1))
    before = (await shop.recall.Recall(request)).results[0].item_ids
    await asyncio.sleep(0.06)
    same = [item for item in before if category(item)][:2]
    shop.store.change(shop.collection, "category", dict.fromkeys(same, "one for both"))
    await asyncio.sleep(0.06)
    after = (await shop.recall.Recall(request)).results[0].item_ids
    assert same[0] in after and same[1] not in after


async def test_explain_shows_a_part_of_a_search_that_went_deep(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SHOWN_HITS", 12)
    answer = await shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=8, at_most=at_most(sold=3)))
    assert len(answer.candidates.item_ids) == 6
    shown = [interest for interest in answer.interests if interest.item_ids]
    assert {len(interest.item_ids) for interest in shown} == {len(interest.scores) for interest in shown} == {12}
    assert len(answer.dropped) < 12 * len(shown)
    assert {hit.item_id for hit in answer.dropped} < {item for interest in shown for item in interest.item_ids}


@pytest.mark.parametrize("known", [True, False])
async def test_at_most_holds_while_milvus_does_not_answer_as_far_as_values_are_known(start: Start, known: bool) -> None:
    shop = await with_attributes(start, degraded=True)
    request = recall_pb2.RecallRequest(users=[USER, recall_pb2.User()], top_k=12, at_most=at_most(category=1, sold=20))
    ranked = await all_items(shop, USER)
    await until(lambda: shop.server.local.knows(shop.server.releases.current))
    if known:
        await shop.recall.Recall(request)
        await asyncio.sleep(0.1)  # the columns are read beside the requests
        await shop.recall.Recall(request)
    shop.store.fault = StoreUnavailableError("Milvus does not answer: connection refused")
    own, popular = (await shop.recall.Recall(request, timeout=10)).results
    assert (own.status, popular.fallback) == (recall_pb2.USER_STATUS_DEGRADED, True)
    if known:
        assert list(own.item_ids) == taken(ranked, 12, category=1, sold=20)
        assert list(popular.item_ids) == taken(list(ITEMS), 12, category=1, sold=20)
    else:
        assert list(own.item_ids) == ranked[:12] and list(popular.item_ids) == list(ITEMS)[:12]
        said = "at_most is not applied to category, sold: Milvus did not tell them: Milvus does not answer"
        assert said in own.detail and said in popular.detail


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        (
            {"at_most": at_most(categry=1)},
            "at_most[0].attribute",
            "'categry' is unknown; the attributes are vector_sour",
        ),
        ({"at_most": at_most(sold=1) * 2}, "at_most[1].attribute", "'sold' is there twice"),
        ({"at_most": at_most(sold=0)}, "at_most[0].count", "is 0, must be 1 to 1000"),
        ({"at_most": at_most(sold=1001)}, "at_most[0].count", "is 1001, must be 1 to 1000"),
        ({"at_most": at_most(sold=1) * 9}, "at_most", "has 9 rules, the limit is 8"),
        ({"per_interest_min": 2}, "per_interest_min", "is 2, must be 0 to 1: 4 interests share top_k, which is 5"),
        ({"per_interest_min": -1}, "per_interest_min", "is -1, must be 0 to 1"),
        ({"diversity": 1.5}, "diversity", "is 1.5, must be 0 to 1"),
        ({"diversity": -0.1}, "diversity", "is -0.1, must be 0 to 1"),
        ({"diversity": float("nan")}, "diversity", "is nan, must be 0 to 1"),
        ({"diversity": 0.5, "top_k": 501}, "top_k", "is 501, must be 1 to 500 for a request with diversity"),
    ],
)
async def test_rules_that_make_no_sense_are_refused(
    shop: Running, asked: dict[str, Any], field: str, said: str
) -> None:
    asked = {"top_k": 5} | asked
    for call in (
        shop.recall.Recall(recall_pb2.RecallRequest(users=[USER], **asked)),
        shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, **asked)),
    ):
        code, _, message, details = await failure(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert said in message
        assert f'"{field}"' in str(details)


async def test_the_client_asks_for_variety(shop: Running) -> None:
    rules = {"at_most": {"category": 1, "sold": 6}, "per_interest_min": 1, "diversity": 0.4}
    request = recall_pb2.RecallRequest(
        users=[USER], top_k=9, at_most=at_most(category=1, sold=6), per_interest_min=1, diversity=0.4
    )
    expected = await shop.recall.Recall(request)
    async with AsyncRecallClient(f"127.0.0.1:{shop.server.port}", timeout_s=30) as client:
        found = await client.recall([[1000, 1007]], top_k=9, **rules)
        explained = await client.explain([1000, 1007], top_k=9, **rules)
        with pytest.raises(TypeError, match="at_most is \\[1\\], must be a dict of attributes and counts"):
            await client.recall([[1000]], top_k=9, at_most=[1])  # type: ignore[arg-type]
    assert found.results == list(expected.results)
    assert explained.candidates == expected.results[0]


async def test_users_with_rules_and_without_share_a_batch(shop: Running) -> None:
    requests = [
        recall_pb2.RecallRequest(users=[USER], top_k=20, **rules)
        for rules in ({}, {"at_most": at_most(category=1)}, {"diversity": 0.5}, {"per_interest_min": 3})
    ]
    alone = [(await shop.recall.Recall(request)).results for request in requests]
    together = await asyncio.gather(*(shop.recall.Recall(request) for request in requests * 8))
    assert [answer.results for answer in together] == alone * 8

"""The rules of a release as requests meet them, through real gRPC on an exact store in memory."""

import asyncio
import logging

import grpc
import pytest

from mind.milvus.rules import ReleaseRules
from protos.recall.v1 import recall_pb2
from protos.recall.v1.recall_pb2 import RELEASE_RULES_OFF, SOURCE_EXPLORE
from tests.server.test_boosts import USERS, ask, until_so
from tests.server.test_server import USER, Running, Start, failure
from tests.server.test_server import start as start
from tests.server.test_variety import at_most, with_attributes

BOOST = recall_pb2.Boost(filter="item_id > 2300", add=100)
RULES = ReleaseRules.model_validate({"boosts": [{"filter": "item_id > 2300", "add": 100}]})


async def shop_with(start: Start, rules: ReleaseRules) -> Running:
    shop = await with_attributes(start)
    await set_rules(shop, rules)
    return shop


async def set_rules(shop: Running, rules: ReleaseRules | None) -> None:
    """Change the rules of the release, and wait until the server has seen it."""
    text = rules.to_json() if rules else ""
    shop.store.collections[shop.collection].rules = text

    async def seen() -> bool:
        info = await shop.recall.GetServerInfo(recall_pb2.GetServerInfoRequest())
        return bool(info.release_rules == text)

    await until_so(seen)


async def test_boosts_of_the_release_apply_until_a_request_turns_them_off(start: Start) -> None:
    shop = await with_attributes(start)
    plain, boosted = await ask(shop), await ask(shop, boosts=[BOOST])
    await set_rules(shop, RULES)
    assert await ask(shop) == boosted
    assert await ask(shop, release_rules=RELEASE_RULES_OFF) == plain
    await set_rules(shop, None)
    assert await ask(shop) == plain


async def test_a_request_adds_to_the_boosts_of_the_release(start: Start) -> None:
    shop = await shop_with(start, RULES)
    more = recall_pb2.Boost(filter="item_id > 2350", add=-3)
    both = await ask(shop, boosts=[BOOST, more], release_rules=RELEASE_RULES_OFF)
    assert await ask(shop, boosts=[more]) == both
    explained = await shop.recall.Explain(recall_pb2.ExplainRequest(user=USER, top_k=10, boosts=[more]))
    assert [(each.boost, each.of_release) for each in explained.boosts] == [(BOOST, True), (more, False)]
    assert explained.candidates == both[0]


async def test_the_lower_of_two_at_most_holds(start: Start) -> None:
    rules = {"at_most": [{"attribute": "category", "count": 2}, {"attribute": "sold", "count": 6}]}
    shop = await shop_with(start, ReleaseRules.model_validate(rules))
    off = {"release_rules": RELEASE_RULES_OFF}
    assert await ask(shop) == await ask(shop, at_most=at_most(category=2, sold=6), **off)
    found = await ask(shop, at_most=at_most(category=1, sold=9))
    assert found == await ask(shop, at_most=at_most(category=1, sold=6), **off)


async def test_what_a_request_says_stands_in_for_the_other_rules(start: Start) -> None:
    rules = {"per_interest_min": 4, "diversity": 0.5, "explore": {"share": 0.2, "filter": "item_id > 2000"}}
    shop = await shop_with(start, ReleaseRules.model_validate(rules))
    off = {"release_rules": RELEASE_RULES_OFF}
    own = recall_pb2.Explore(share=0.1, seed=3)
    like = await ask(shop, per_interest_min=2, diversity=0.5, explore=own, **off)
    assert await ask(shop, explore=own, top_k=10) == like  # 10 places are 2 for each of 4 interests
    [result] = await ask(shop, USER, top_k=20, diversity=0.25)
    drawn = [item for item, of in zip(result.item_ids, result.source, strict=True) if of == SOURCE_EXPLORE]
    assert len(drawn) == 4 and min(drawn) > 2000


async def test_rules_that_cannot_be_used_leave_those_before(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    shop = await shop_with(start, RULES)
    boosted = await ask(shop)
    with caplog.at_level(logging.ERROR):
        shop.store.collections[shop.collection].rules = '{"boosts": [{"filter": "price > 1", "add": 1}]}'
        while "the rules of collection" not in caplog.text:
            await asyncio.sleep(0.01)
        shop.store.collections[shop.collection].rules = "{"
        while "cannot be read" not in caplog.text:
            await asyncio.sleep(0.01)
    assert await ask(shop) == boosted


async def test_a_number_without_a_meaning_is_refused(start: Start) -> None:
    shop = await with_attributes(start)
    code, reason, says, _ = await failure(
        shop.recall.Recall(recall_pb2.RecallRequest(users=USERS, top_k=5, release_rules=9))  # type: ignore[arg-type]
    )
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_RULES") and "must be 0 to 2" in says

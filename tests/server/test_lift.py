"""What boosts add, and the search of boosted items, against a plain reference: score all items, add, sort."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind.hits import Hits, falling
from mind.nearest import nearest_with_added
from mind.vocabulary import Vocabulary
from server.serving.depth import Depth
from server.serving.inputs import NO_EXCLUSIONS
from server.serving.matching import Matches
from server.serving.merge import merge
from server.serving.question import Boost
from server.serving.results import cut_short
from server.serving.rules.explore import Pool, drawn, numbers_from, spread
from server.serving.rules.lift import Lift, Part, lift_of
from server.serving.rules.lifted import interests_of, with_lifted
from server.serving.search import Found

DIM = 3
FIRST_FRESH = 9_000


def matches(rows: Any, fresh: Any = (), vectors: Any = None) -> Matches:
    found = np.zeros((len(fresh), DIM), np.float32) if vectors is None else vectors
    return Matches(np.array(rows, np.int32), np.array(fresh, np.int64), found)


@dataclass
class Shop:
    """Items with integer embeddings, so that many scores are equal; some are known, the others fresh."""

    release: Any
    known: Matches
    vectors: Any
    """[n, D], those of the known items and then those of the fresh ones."""
    item_ids: Any

    def values(self, interests: Any, lift: Lift) -> tuple[Any, Any]:
        """The inner products of all items with the interests, [K, n], and what each gets, [n]."""
        return np.einsum("kd,nd->kn", interests, self.vectors), lift.of(self.release, self.item_ids)


def shop_of(known: int, fresh: int, numbers: np.random.Generator) -> Shop:
    table = numbers.integers(-3, 4, (known + 1, DIM)).astype(np.float32)
    more = numbers.integers(-3, 4, (fresh, DIM)).astype(np.float32)
    item_id = np.arange(known, dtype=np.int64) * 7 + 1_000
    release = SimpleNamespace(item_embedding=table, vocabulary=Vocabulary(item_id))
    fresh_ids = np.arange(FIRST_FRESH, FIRST_FRESH + fresh)
    items = matches(np.arange(1, known + 1), fresh_ids, more)
    return Shop(release, items, np.concatenate([table[1:], more]), np.concatenate([item_id, fresh_ids]))


def searched(shop: Shop, vectors: Any, limit: int) -> Found:
    """The exact search without boosts."""
    found = interests_of(vectors)
    scores = np.einsum("qd,nd->qn", vectors[found.user, found.interest], shop.vectors)
    order = np.argsort(falling(scores), axis=1, kind="stable")[:, :limit]
    lengths = np.full(len(scores), order.shape[1])
    return Found(
        *(found.user, found.interest),
        Hits(shop.item_ids[order].ravel(), np.take_along_axis(scores, order, 1).ravel(), lengths),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shop, Any, Lift, int]:
    """A shop, interests, what items get, and how many are wanted."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    shop = shop_of(draw(st.integers(1, 40)), draw(st.integers(0, 5)), numbers)
    vectors = numbers.integers(-2, 3, (draw(st.integers(1, 3)), 2, DIM)).astype(np.float32)
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        rows = np.flatnonzero(numbers.random(len(shop.known.rows)) < draw(st.sampled_from([0, 0.1, 0.5, 1]))) + 1
        new = np.flatnonzero(numbers.random(len(shop.known.fresh_ids)) < 0.5)
        add = np.float32([draw(st.sampled_from([-4, -0.25, 0.5, 2, 30]))])
        fresh = shop.known.fresh_ids[new], shop.known.fresh_vectors[new]
        parts.append(Part(Boost(), matches(rows, *fresh), add, add))
    return shop, vectors, lift_of(parts, len(shop.release.item_embedding), None), draw(st.integers(1, 12))


@given(cases(), st.integers(0, 20))
def test_boosted_lists_are_those_of_all_items_with_what_is_added(case: tuple[Shop, Any, Lift, int], more: int) -> None:
    shop, vectors, lift, top_k = case
    limits = np.full(len(vectors), top_k + more)
    users, wanted = len(vectors), np.full(len(vectors), top_k)
    round_robin = np.zeros(users, bool)
    for whole in (False, True):
        found = interests_of(vectors) if whole else searched(shop, vectors, top_k + more)
        own = lift.over(shop.known) if whole else lift
        lifted = asyncio.run(with_lifted(shop.release, found, vectors, [own] * users, limits, wanted))
        assert lifted.added is not None
        merged = merge(
            *(lifted.hits, lifted.user, lifted.interest, wanted, round_robin, NO_EXCLUSIONS), added=lifted.added
        )
        depth = Depth(top_k + more, top_k, 0, 0, lowers=lift.lowers and not whole)
        short = cut_short([depth] * users, wanted, lifted, merged)
        assert not short.any() or (lift.lowers and not whole)
        for user in range(users):
            interests = vectors[user][vectors[user].any(axis=1)]
            if short[user] or not len(interests):
                continue
            scores, gets = shop.values(interests, lift)
            best = scores.max(axis=0)
            order = np.lexsort((shop.item_ids, falling(best + gets)))[:top_k]
            part = slice(*merged.offsets[user : user + 2])
            assert merged.item_ids[part].tolist() == shop.item_ids[order].tolist()
            assert merged.scores[part].tolist() == best[order].tolist()
            assert merged.added[part].tolist() == gets[order].tolist()


@given(cases())
def test_each_interest_has_its_own_order_where_interests_take_turns(case: tuple[Shop, Any, Lift, int]) -> None:
    shop, vectors, lift, limit = case
    wanted = np.full(len(vectors), limit)
    found = asyncio.run(
        with_lifted(
            shop.release, interests_of(vectors), vectors, [lift.over(shop.known)] * len(vectors), wanted, wanted
        )
    )
    ends = np.cumsum(found.hits.lengths)
    for query, (user, interest) in enumerate(zip(found.user, found.interest, strict=True)):
        scores, gets = shop.values(vectors[user][interest][None], lift)
        order = np.lexsort((shop.item_ids, falling(scores[0] + gets)))[:limit]
        own = slice(ends[query] - found.hits.lengths[query], ends[query])
        assert found.hits.item_ids[own].tolist() == shop.item_ids[order].tolist()


def test_a_lift_adds_up_its_boosts_and_keeps_to_the_filter() -> None:
    shop = shop_of(6, 2, np.random.default_rng(1))
    one, two = np.float32([0.5]), np.float32([-2])
    parts = [Part(Boost(), matches([1, 2, 3], [9_000]), one, one), Part(Boost(), matches([3, 4], [9_001]), two, two)]
    lift = lift_of(parts, 7, None)
    wanted = np.array([1_000, 1_014, 1_021, 1_028, 9_000, 9_001, 5])
    assert lift.of(shop.release, wanted).tolist() == [0.5, -1.5, -2, 0, 0.5, -2, 0]
    assert lift.lowers
    only = lift_of(parts, 7, matches([2, 4], [9_001]))
    assert only.of(shop.release, wanted).tolist() == [0, 0, -2, 0, 0, -2, 0]
    nothing = [Part(Boost(), matches([5]), each, each) for each in (one, -one)]
    assert len(lift_of(nothing, 7, None).items) == 0


def test_sums_are_searched_in_chunks_of_any_rows() -> None:
    numbers = np.random.default_rng(0)
    table = numbers.normal(size=(50_001, 8)).astype(np.float32)
    queries = numbers.normal(size=(3, 8)).astype(np.float32)
    for rows in (np.arange(1, 50_001, dtype=np.int32), np.arange(1, 50_001, 3, dtype=np.int32)):
        added = numbers.normal(size=len(rows)).astype(np.float32) * 3
        found, scores, gets = nearest_with_added(queries, table, rows, added, 20)
        every = np.einsum("nd,qd->qn", table[rows], queries)
        order = np.argsort(-(every + added), axis=1, kind="stable")[:, :20]
        assert found.tolist() == rows[order].tolist()
        np.testing.assert_allclose(scores, np.take_along_axis(every, order, 1), rtol=1e-5, atol=1e-5)
        assert gets.tolist() == added[order].tolist()


@pytest.mark.parametrize("left_out", [0, 5, 18, 20])
def test_drawn_items_are_distinct_and_drawn_again_for_the_same_start(left_out: int) -> None:
    shop = shop_of(18, 2, np.random.default_rng(1))
    pool = Pool(shop.release, shop.known)
    banned = shop.item_ids[:left_out]
    found = drawn(7, pool, banned, 6)
    assert len(set(found.tolist())) == len(found) == min(6, 20 - left_out)
    assert not np.isin(found, banned).any() and np.isin(found, shop.item_ids).all()
    assert drawn(7, pool, banned, 6).tolist() == found.tolist()
    if left_out < 10:
        assert drawn(8, pool, banned, 6).tolist() != found.tolist()


def test_each_item_is_drawn_as_often_as_the_others() -> None:
    shop = shop_of(18, 2, np.random.default_rng(1))
    counts = {int(item): 0 for item in shop.item_ids}
    for start in range(2_000):
        for item in drawn(start * 7_919, Pool(shop.release, shop.known), np.zeros(0, np.int64), 5).tolist():
            counts[item] += 1
    assert min(counts.values()) > 430 and max(counts.values()) < 570  # 500 are expected, with a deviation of 20


def test_numbers_are_those_of_splitmix64() -> None:
    assert numbers_from(1234567, 0, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_places_are_spread_evenly() -> None:
    assert spread(0, 10).tolist() == []
    assert spread(1, 10).tolist() == [5]
    assert spread(2, 50).tolist() == [12, 37]
    assert spread(3, 3).tolist() == [0, 1, 2]

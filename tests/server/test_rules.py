"""The vectorised rules against plain ones, and searches that go as deep as the rules need against one of everything."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.hits import Hits
from server.serving.columns import Groups, groups
from server.serving.depth import Depth
from server.serving.merge import NOTHING_NEAR, Exclusions, Fate, NearHits, merge
from server.serving.question import Query, Strategy, Variety
from server.serving.rules.at_most import allowed
from server.serving.rules.diversity import diversified, relevance_of
from server.serving.rules.per_interest import with_each_interest
from server.serving.rules.variety import ranked, rules_of, vary
from server.serving.search import Found

NAMES = ("category", "genres")


def plain_at_most(items, values, most):
    """Items from the best to the worst, each of which has room for all its values."""
    seen, taken = {}, []
    for item in items:
        own = [(name, value) for name in most for value in values[name].get(item, ())]
        if all(seen.get(each, 0) < most[each[0]] for each in own):
            taken.append(item)
            seen |= {each: seen.get(each, 0) + 1 for each in own}
    return taken


def plain_diverse(items, relevance, vectors, diversity, top_k):
    """Carbonell and Goldstein's MMR, one item after the other."""

    def cosine(a, b):
        length = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
        return vectors[a] @ vectors[b] / length if length else 0.0

    chosen, left = [], list(items)
    while left and len(chosen) < top_k:
        gains = [
            (1 - diversity) * relevance[item] - diversity * max((cosine(item, other) for other in chosen), default=0)
            for item in left
        ]
        chosen.append(left.pop(int(np.argmax(gains))))
    return chosen


def plain_each_interest(items, interest, least, top_k):
    """The best `least` of each interest, then the best others; in their order."""
    needed = {item for number in set(interest.values()) for item in [i for i in items if interest[i] == number][:least]}
    filled = sorted(needed, key=items.index) + [item for item in items if item not in needed]
    return [item for item in items if item in filled[:top_k]]


def plain_rules(items, score, interest, values, vectors, variety, top_k, turns):
    """The candidates of a user out of all items in merged order."""
    items = plain_at_most(items, values, dict(variety.at_most))
    if variety.diversity and items:
        pool = items[: ceil(1.5 * top_k)]
        least, most = score[pool[-1]], score[pool[0]]
        by_score = {item: (score[item] - least) / (most - least) if most > least else 1.0 for item in pool}
        by_place = {item: 1 - place / max(1, len(pool) - 1) for place, item in enumerate(pool)}
        chosen = plain_diverse(pool, by_place if turns else by_score, vectors, variety.diversity, top_k)
        items = chosen + [item for item in items if item not in chosen]
    return plain_each_interest(items, interest, variety.per_interest_min, top_k)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_at_most_as_item_after_item(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 12))
    value = st.sampled_from("abc")
    category = {item: (data.draw(value),) for item in range(count) if data.draw(st.booleans())}
    genres = {item: tuple(data.draw(st.lists(value, max_size=3))) for item in range(count)}
    values = {"category": category, "genres": {item: tuple(dict.fromkeys(own)) for item, own in genres.items()}}
    most = {name: data.draw(st.integers(1, 3)) for name in NAMES}
    told = groups([category.get(item) for item in range(count)], np.arange(count))
    lists = groups([genres[item] for item in range(count)], np.arange(count))
    taken = allowed(
        count,
        np.concatenate([told.place, lists.place]),
        np.concatenate([told.value, 10 + lists.value]),
        np.repeat([most["category"], most["genres"]], [len(told.place), len(lists.place)]),
    )
    assert np.flatnonzero(taken).tolist() == plain_at_most(range(count), values, most)


def test_what_one_rule_drops_leaves_its_room_in_another() -> None:
    """Item 1 has no room in its category, so it does not count for its brand, and item 2 has room."""
    category, brand = groups(["a", "a", "b"], np.arange(3)), groups(["x", "y", "y"], np.arange(3))
    place, group = np.concatenate([category.place, brand.place]), np.concatenate([category.value, 5 + brand.value])
    assert allowed(3, place, group, np.ones(6, np.int64)).tolist() == [True, False, True]


def test_a_long_chain_of_rules_is_followed_to_its_end() -> None:
    """Each item shares a value with the next one, so that every second one is taken."""
    items = 101
    place = np.arange(items).repeat(2)
    group = np.stack([np.arange(items), np.arange(1, items + 1)], axis=1).ravel()
    taken = allowed(items, place, group, np.ones(len(place), np.int64))
    assert taken.tolist() == [item % 2 == 0 for item in range(items)]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_diversity_as_item_after_item(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, rng.integers(1, 5))
    vectors = [rng.normal(size=(size, 3)).astype(np.float32) for size in sizes]
    scores = np.concatenate([np.sort(rng.normal(size=size).astype(np.float32))[::-1] for size in sizes])
    relevance = relevance_of(scores, sizes)
    diversity = rng.uniform(0.01, 1, len(sizes)).astype(np.float32)
    top_k = rng.integers(1, 8, len(sizes))
    chosen = diversified(relevance, np.concatenate(vectors), sizes, diversity, top_k)
    for user, own in enumerate(np.split(relevance, np.cumsum(sizes)[:-1])):
        plain = plain_diverse(range(len(own)), own, vectors[user], diversity[user], top_k[user])
        assert chosen[user].tolist() == plain


def test_diversity_prefers_another_kind_to_a_better_score() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], np.float32)
    one = np.array([3])
    relevance = relevance_of(np.array([3.0, 2.9, 1.0], np.float32), one)
    for diversity, expected in ((0.1, [0, 1]), (0.9, [0, 2]), (1.0, [0, 2])):
        [chosen] = diversified(relevance, vectors, one, np.array([diversity], np.float32), np.array([2]))
        assert chosen.tolist() == expected


def test_relevance_has_bounds_whatever_the_scores() -> None:
    largest = np.finfo(np.float32).max
    scores = np.array([5, 4, 1, 2, 2, largest, 0, -largest], np.float32)
    assert relevance_of(scores, np.array([3, 2, 3])).tolist() == [1.0, 0.75, 0.0, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_users_with_many_items_are_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    relevance = np.tile(np.linspace(1, 0, 8, dtype=np.float32), 5)
    asked = relevance, vectors, np.full(5, 8), np.full(5, 0.5, np.float32), np.full(5, 4)
    together = diversified(*asked)
    monkeypatch.setattr("server.serving.rules.diversity.MOST_PAIRS", 1)
    assert [own.tolist() for own in diversified(*asked)] == [own.tolist() for own in together]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_each_interest_as_item_after_item(data: st.DataObject) -> None:
    lists = data.draw(st.lists(st.lists(st.integers(0, 2), max_size=10), min_size=1, max_size=4))
    least = [data.draw(st.integers(0, 3)) for _ in lists]
    top_k = [3 * few + data.draw(st.integers(0, 4)) for few in least]
    user = np.repeat(np.arange(len(lists)), [len(own) for own in lists])
    interest = np.array([number for own in lists for number in own], np.int64)
    chosen = with_each_interest(user, interest, np.array(least), np.array(top_k))
    for number, own in enumerate(lists):
        expected = plain_each_interest(list(range(len(own))), dict(enumerate(own)), least[number], top_k[number])
        assert np.flatnonzero(chosen[user == number]).tolist() == expected


class Catalogue:
    """Items with scores for each interest of each user, values, vectors, and a search that finds the best of them."""

    def __init__(self, rng: np.random.Generator, users: int, with_near: bool) -> None:
        self.items = int(rng.integers(1, 40))
        self.scores = np.round(rng.normal(size=(users, 3, self.items)), 3).astype(np.float32)
        self.category = [None if rng.random() < 0.2 else int(rng.integers(0, 4)) for _ in range(self.items)]
        self.genres = [tuple(rng.choice(list("abcd"), rng.integers(0, 3)).tolist()) for _ in range(self.items)]
        self.vectors = rng.normal(size=(self.items, 4)).astype(np.float32)
        self.bonus = np.zeros((users, self.items), np.float32)
        if with_near:
            given_ = rng.random((users, self.items)) < 0.1
            self.bonus[given_] = rng.random(int(given_.sum())).astype(np.float32)
        self.excluded = rng.random((users, self.items)) < 0.1

    def values(self) -> dict[str, dict[int, tuple]]:
        category = {item: (value,) for item, value in enumerate(self.category) if value is not None}
        return {"category": category, "genres": {i: tuple(dict.fromkeys(own)) for i, own in enumerate(self.genres)}}

    def groups(self, name: str, items: np.ndarray) -> Groups:
        told = getattr(self, name)
        return groups([told[item] for item in items.tolist()], np.arange(len(items)))

    def search(self, limit: int) -> Found:
        users = len(self.scores)
        best = np.argsort(-self.scores, axis=2, kind="stable")[:, :, :limit].reshape(users * 3, -1)
        scores = np.take_along_axis(self.scores.reshape(users * 3, -1), best, axis=1)
        hits = Hits(best.ravel(), scores.ravel(), np.full(users * 3, best.shape[1]))
        return Found(np.arange(users).repeat(3), np.tile(np.arange(3), users), hits)

    def near(self) -> NearHits:
        """The items with a bonus, each for the interest that scores it best."""
        if not self.bonus.any():
            return NOTHING_NEAR
        columns = []
        for user, own in enumerate(self.bonus):
            best = self.scores[user].argmax(axis=0)
            for interest in range(3):
                items = np.flatnonzero((own > 0) & (best == interest))
                value = self.scores[user, interest, items] + own[items]
                columns.append((user, interest, items[np.argsort(-value, kind="stable")]))
        ids = np.concatenate([items for _, _, items in columns])
        of = np.concatenate([np.full(len(items), user) for user, _, items in columns])
        by = np.concatenate([np.full(len(items), interest) for _, interest, items in columns])
        hits = Hits(ids, self.scores[of, by, ids], np.array([len(items) for _, _, items in columns]))
        return NearHits(
            hits, np.array([user for user, _, _ in columns]), np.array([k for _, k, _ in columns]), self.bonus[of, ids]
        )


def candidates(catalogue, queries, limit, widest):
    """What the rules choose of the hits of a search, and who must be searched for again."""
    users = len(queries)
    top_k = np.array([query.top_k for query in queries])
    round_robin = np.array([query.strategy is Strategy.ROUND_ROBIN for query in queries])
    rules = rules_of(queries, np.arange(users), top_k, round_robin)
    user, item = np.nonzero(catalogue.excluded)
    found, near = catalogue.search(limit), catalogue.near()
    wanted = rules.merged if rules else top_k
    excluded = Exclusions(user, item, np.full(len(user), Fate.EXCLUDED))
    merged = merge(found.hits, found.user, found.interest, wanted, round_robin, excluded, near=near)
    if rules is None:
        return merged, np.zeros(users, bool), [""] * users
    varied = None
    for times in (1, 1.5, np.inf):
        items = ranked(rules, merged, found, near, [Depth(limit, widest, 0, 0, widens=True)] * users, times)
        ids = merged.item_ids[items.row]
        told = {name: catalogue.groups(name, ids) for name in rules.most}
        varied = varied or vary(rules, merged, items, told, lambda item_ids: catalogue.vectors[item_ids])
    assert varied
    return varied.merged, varied.short, varied.detail


def lists_of(merged):
    rows = list(zip(merged.item_ids.tolist(), merged.interest.tolist(), strict=True))
    return [rows[start:end] for start, end in zip(merged.offsets[:-1], merged.offsets[1:], strict=True)]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_searches_as_deep_as_needed_give_what_a_search_of_everything_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = int(rng.integers(1, 4))
    catalogue = Catalogue(rng, users, with_near=rng.random() < 0.5)
    queries = [
        Query(
            [],
            int(rng.integers(3, 10)),
            "",
            False,
            Strategy(int(rng.integers(1, 3))),
            variety=Variety(
                tuple((name, int(rng.integers(1, 3))) for name in NAMES if rng.random() < 0.6),
                0,  # an interest has as many as the search happens to find; see the next test
                float(np.float32(rng.random())) if rng.random() < 0.4 else 0.0,
            ),
        )
        for _ in range(users)
    ]
    [everything, _, _], limit = candidates(catalogue, queries, catalogue.items + 1, catalogue.items + 1), 3
    expected = lists_of(everything)
    waiting = set(range(users))
    while waiting:
        merged, short, detail = candidates(catalogue, queries, limit, catalogue.items + 1)
        found = lists_of(merged)
        for user in sorted(waiting):
            if not short[user]:
                assert found[user] == expected[user]
                assert len(found[user]) == queries[user].top_k or detail[user] or not queries[user].variety.at_most
                waiting.discard(user)
        limit += 3
    whole = lists_of(merge_everything(catalogue, queries))
    for user, query in enumerate(queries):
        score = {
            item: catalogue.scores[user, interest, item] + catalogue.bonus[user, item] for item, interest in whole[user]
        }
        interest = dict(whole[user])
        items = [item for item, _ in whole[user]]
        turns = query.strategy is Strategy.ROUND_ROBIN
        values = catalogue.values()
        plain = plain_rules(items, score, interest, values, catalogue.vectors, query.variety, query.top_k, turns)
        assert [item for item, _ in expected[user]] == plain


def merge_everything(catalogue, queries):
    found = catalogue.search(catalogue.items + 1)
    user, item = np.nonzero(catalogue.excluded)
    round_robin = np.array([query.strategy is Strategy.ROUND_ROBIN for query in queries])
    excluded = Exclusions(user, item, np.full(len(user), Fate.EXCLUDED))
    top_k = np.full(len(queries), 2**40)
    return merge(found.hits, found.user, found.interest, top_k, round_robin, excluded, near=catalogue.near())

"""The vectorised merge against a plain one, ties and exclusions included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mind.hits import Hits
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.serving.merge import Exclusions, Fate, Merged, merge
from server.serving.question import Strategy


def as_hits(lists: list[list[tuple[int, float]]]) -> Hits:
    flat = [hit for hits in lists for hit in hits]
    return Hits(
        np.array([item for item, _ in flat], np.int64),
        np.array([score for _, score in flat], np.float32),
        np.array([len(hits) for hits in lists], np.int64),
    )


def as_exclusions(triples: list[tuple[int, int, Fate]]) -> Exclusions:
    columns = np.array(triples, np.int64).reshape(-1, 3)
    return Exclusions(columns[:, 0], columns[:, 1], columns[:, 2])


def as_asked(users: int, top_k: int, strategy: Strategy = Strategy.BEST_SCORE) -> tuple[Int64, Mask]:
    return np.full(users, top_k), np.full(users, strategy is Strategy.ROUND_ROBIN)


def per_user(merged: Merged) -> list[list[tuple[int, float, int]]]:
    rows = list(zip(merged.item_ids.tolist(), merged.scores.tolist(), merged.interest.tolist(), strict=True))
    return [rows[a:b] for a, b in zip(merged.offsets[:-1], merged.offsets[1:], strict=True)]


def plain_merge(lists, users, top_k, strategy, excluded):
    """What the merge means, written as one would explain it."""
    answer = []
    for user in users:
        best = {}
        for interest, hits in lists[user].items():
            for rank, (item, score) in enumerate(hits):
                if (user, item) in excluded:
                    continue
                turn = rank if strategy is Strategy.ROUND_ROBIN else 0
                place = (turn, -score, item, interest)
                if item not in best or (turn, -score, interest) < (best[item][0], best[item][1], best[item][3]):
                    best[item] = place
        ranked = sorted(best.values())[:top_k]
        answer.append([(item, -negative, interest) for _, negative, item, interest in ranked])
    return answer


def test_best_score_first_each_item_once() -> None:
    hits = as_hits([[(7, 3.0), (5, 2.0)], [(5, 2.5), (9, 1.0)]])  # one user, two interests
    merged = merge(hits, np.array([0, 0]), np.array([0, 2]), *as_asked(1, 10), as_exclusions([]), True)
    assert per_user(merged) == [[(7, 3.0, 0), (5, 2.5, 2), (9, 1.0, 2)]]
    assert merged.fate.tolist() == [Fate.KEPT, Fate.DUPLICATE, Fate.KEPT, Fate.KEPT]


def test_round_robin_takes_turns() -> None:
    hits = as_hits([[(1, 9.0), (2, 8.0), (3, 7.0)], [(4, 1.0), (1, 0.5)]])
    merged = merge(hits, np.array([0, 0]), np.array([0, 1]), *as_asked(1, 4, Strategy.ROUND_ROBIN), as_exclusions([]))
    assert per_user(merged) == [[(1, 9.0, 0), (4, 1.0, 1), (2, 8.0, 0), (3, 7.0, 0)]]


def test_ties_are_ordered_by_item_and_then_interest() -> None:
    hits = as_hits([[(8, 1.0), (3, 1.0)], [(3, 1.0), (8, 1.0)]])
    merged = merge(hits, np.array([0, 0]), np.array([0, 1]), *as_asked(1, 10), as_exclusions([]))
    assert per_user(merged) == [[(3, 1.0, 0), (8, 1.0, 0)]]


def test_every_drop_has_its_reason() -> None:
    hits = as_hits([[(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]])
    excluded = as_exclusions([(0, 1, Fate.HISTORY), (0, 2, Fate.EXCLUDED), (0, 99, Fate.EXCLUDED)])
    merged = merge(hits, np.array([0]), np.array([0]), *as_asked(1, 1), excluded, explain=True)
    assert per_user(merged) == [[(3, 2.0, 0)]]
    assert merged.fate.tolist() == [Fate.HISTORY, Fate.EXCLUDED, Fate.KEPT, Fate.BELOW_TOP_K]


def test_exclusions_of_one_user_leave_the_neighbour_alone() -> None:
    hits = as_hits([[(1, 2.0)], [(1, 2.0)]])
    merged = merge(hits, np.array([0, 1]), np.array([0, 0]), *as_asked(2, 5), as_exclusions([(0, 1, Fate.EXCLUDED)]))
    assert per_user(merged) == [[], [(1, 2.0, 0)]]


def test_nothing_found() -> None:
    nothing = np.zeros(0, np.int64)
    merged = merge(as_hits([]), nothing, nothing, *as_asked(0, 5), as_exclusions([]))
    assert merged.offsets.tolist() == [0]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_parity_with_the_plain_merge(data: st.DataObject) -> None:
    users = data.draw(st.integers(1, 4))
    item = st.integers(-3, 12) | st.sampled_from([2**62 + 1, -(2**62)])
    lists: dict[int, dict[int, list[tuple[int, float]]]] = {user: {} for user in range(users)}
    queries, user_of, interest_of = [], [], []
    for user in range(users):
        for interest in range(data.draw(st.integers(0, 4))):
            found = data.draw(st.dictionaries(item, st.integers(0, 4).map(float), max_size=8))
            hits = sorted(found.items(), key=lambda pair: -pair[1])  # few different scores: many ties
            lists[user][interest] = hits
            queries.append(hits)
            user_of.append(user)
            interest_of.append(interest)
    marks = data.draw(st.lists(st.tuples(st.integers(0, users - 1), item), unique=True, max_size=6))
    top_k = data.draw(st.lists(st.integers(1, 10), min_size=users, max_size=users))
    strategy = data.draw(st.lists(st.sampled_from(Strategy), min_size=users, max_size=users))
    merged = merge(
        as_hits(queries),
        np.array(user_of, np.int64),
        np.array(interest_of, np.int64),
        np.array(top_k),
        np.array(strategy) == Strategy.ROUND_ROBIN,
        as_exclusions([(user, item, Fate.EXCLUDED) for user, item in marks]),
    )
    for user, found in enumerate(per_user(merged)):  # as if each were alone
        assert [found] == plain_merge(lists, [user], top_k[user], strategy[user], set(marks))
    excluded = [sum((user, item) in marks for item, _ in hits) for user, hits in zip(user_of, queries, strict=True)]
    assert merged.left.tolist() == [len(hits) - out for hits, out in zip(queries, excluded, strict=True)]


@pytest.mark.parametrize("strategy", Strategy)
def test_a_batch_too_large_for_keys_of_one_integer(strategy: Strategy) -> None:
    users, interests, found = 400, 4, 50  # users x items x places x interests is more than 63 bits in round robin
    rng = np.random.default_rng(0)
    lists: dict[int, dict[int, list[tuple[int, float]]]] = {}
    for user in range(users):
        scores = np.sort(rng.normal(size=(interests, found)).astype(np.float32))[:, ::-1]
        items = [rng.choice(20_000, found, replace=False) for _ in range(interests)]
        rows = [list(zip(items[i].tolist(), scores[i].tolist(), strict=True)) for i in range(interests)]
        lists[user] = dict(enumerate(rows))
    queries = [lists[user][interest] for user in range(users) for interest in range(interests)]
    user_of, interest_of = np.divmod(np.arange(users * interests), interests)
    merged = merge(as_hits(queries), user_of, interest_of, *as_asked(users, 60, strategy), as_exclusions([]))
    assert per_user(merged) == plain_merge(lists, range(users), 60, strategy, set())

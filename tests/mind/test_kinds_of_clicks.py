"""The made shop of `tests.bench.kinds_of_clicks`: what is known of it, and what its table says."""

import numpy as np

from mind.data.split import split
from tests.bench.kinds_of_clicks import ITEMS_PER_TOPIC, PURCHASES, SHOWN, VIEWS, draw_shop, oracle, table


def test_users_view_at_random_and_buy_what_they_like() -> None:
    interactions, topics = draw_shop(1)
    topic = (interactions.item_id - 1) // ITEMS_PER_TOPIC
    own = (topic[:, None] == topics[interactions.user_id]).any(axis=1)
    bought = interactions.code == 0
    assert own[bought].all()
    assert 0.65 < own[~bought].mean() < 0.8  # 30 % of the views are of any item
    assert bought.sum() * (VIEWS + PURCHASES) == len(interactions) * PURCHASES
    counts = [np.bincount(interactions.item_id[kind], minlength=2_001) for kind in (bought, ~bought)]
    best_sold, most_viewed = (np.argmax(count[1 : ITEMS_PER_TOPIC + 1]) for count in counts)
    assert most_viewed == 0 and np.corrcoef(counts)[0, 1] < 0.5, f"item {best_sold} sells best"


def test_who_knows_the_topics_finds_nearly_all_purchases() -> None:
    cases = split(draw_shop(1)[0], seed=1).test
    assert cases.target.roles is not None and cases.target.role is not None
    assert {cases.target.roles.kinds[role] for role in cases.target.role.tolist()} == {"buy"}
    found = oracle(1)
    assert found["recall@50"] > 0.9
    lines = table({"all known": [found, found]}).splitlines()
    assert lines[0] == "| targets | Recall@20 | Recall@50 | NDCG@50 | HitRate@50 |"
    assert lines[2].startswith("| all known | ") and lines[2].count("± 0.0") == len(SHOWN)

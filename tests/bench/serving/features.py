"""What each feature of a request costs: `python -m tests.bench.serving --only features`.

The same requests without and with each feature, in turn, and with all of them at once; and SimilarItems beside Recall.
"""

from typing import Any

from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Row
from tests.bench.serving.catalogue import SHOWN
from tests.bench.serving.stage import Stage
from tests.bench.serving.variety import AT_MOST, RULES
from tests.bench.serving.world import TOP_K, user_id_of

USERS = 2_048
"""Users who ask. They were shown the best of their own lists."""
AT_ONCE = 128
"""Users of a call that tells what users were shown."""
LOADS = ((64, 16), (1, 64))
"""Users of a request, and callers."""
FEATURES: dict[str, dict[str, Any]] = {
    "attributes": {"attributes": SHOWN},
    **{name: RULES[name] for name in ("at_most", "per_interest_min", "diversity")},
    "neighbours": {"neighbours": "on"},
    "pages": {"paged": True},
    "exclude_shown": {"exclude_shown": True},
}
ALL: dict[str, Any] = {name: value for feature in FEATURES.values() for name, value in feature.items()}
SERVER_OPTIONS = ("--users",)
"""Options that the server needs."""


def measure(stage: Stage, bench: Bench) -> list[Row]:
    """Rows in pairs: without a feature, and with it."""
    stage.read_columns(list(dict.fromkeys([*SHOWN, *(name for name, _ in AT_MOST)])))
    tell_shown(stage)
    plain = stage.subject("none", first=USERS)
    asked = [(plain, stage.subject(name, first=USERS, **one)) for name, one in (FEATURES | {"all": ALL}).items()]
    return bench.beside(LOADS, [*asked, (plain, stage.subject("similar", "similar", first=USERS))])


def tell_shown(stage: Stage) -> None:
    """Tell the service that each user was shown the best of the user's list."""
    histories = world.read_histories(stage.directory)
    with stage.client() as client:
        for start in range(0, USERS, AT_ONCE):
            users = range(start, start + AT_ONCE)
            found = client.recall([histories[user].tolist() for user in users], top_k=TOP_K).item_ids
            client.upsert_users(shown_item_ids=dict(zip(map(user_id_of, users), found, strict=True)))

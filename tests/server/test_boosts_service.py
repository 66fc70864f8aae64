"""Boosts, pins and explored items as they run: `python -m server` beside Milvus, asked by the shipped client."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients import RecallClient
from mind.hits import falling
from protos.recall.v1.recall_pb2 import SOURCE_EXPLORE, SOURCE_PIN
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.server.test_service import Server, index, running
from tests.server.test_store import build
from tests.waiting import wait_until

ITEMS = [1000 + 7 * number for number in range(200)]
HISTORIES = [[1000, 1007], [1700], []]
NOW_S = 1_800_000_000
DAY_S = 86_400
BOOSTS = [
    {"filter": "margin > 0.6", "add": 4},
    {"filter": "margin < 0.3 and not (item_id == 1049)", "add": -6},
    {"attribute": "published_at", "half_life_days": 30, "weight": 8},
]


def margin(item: int) -> float | None:
    return None if item % 4 == 0 else (item % 10) / 10


def published_at(item: int) -> int | None:
    return None if item % 3 == 0 else NOW_S - item % 97 * DAY_S


def added(item: int) -> np.float32:
    """What the boosts add to an item."""
    own, time_s, total = margin(item), published_at(item), np.float32(0)
    if own is not None and own > 0.6:
        total += np.float32(4)
    if own is not None and own < 0.3 and item != 1049:
        total += np.float32(-6)
    if time_s is not None:
        total += np.float32(8 * 2 ** (-(NOW_S - time_s) / DAY_S / 30))
    return total


@pytest.fixture
def shop(milvus_uri: str, tmp_path: Path) -> Iterator[Server]:
    """A server on a released collection whose items have a margin and a time, most of them."""
    make_artifact(tmp_path / "artifacts")
    values = ((item, margin(item), published_at(item)) for item in ITEMS)
    lines = [f"{item},{'' if own is None else own},{'' if at is None else at}" for item, own, at in values]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,margin,published_at", *lines]))
    build(milvus_uri, tmp_path / "artifacts", "--attributes", str(tmp_path / "items.csv"))
    with running("--milvus-uri", milvus_uri, "--artifacts", str(tmp_path / "artifacts")) as server:
        server.wait_for("serving model")
        yield server


def expected(client: RecallClient, history: list[int], **rest: object) -> tuple[list[int], list[float]]:
    """All items of a user by score and boosts, and what they get."""
    [plain] = client.recall([history], top_k=200, **rest).results  # type: ignore[arg-type]
    gets = np.array([added(item) for item in plain.item_ids], np.float32)
    order = np.lexsort((plain.item_ids, falling(np.array(plain.scores, np.float32) + gets)))
    return [plain.item_ids[place] for place in order], gets[order].tolist()


def test_lists_are_those_of_all_items_with_what_is_added(shop: Server) -> None:
    with RecallClient(shop.address, timeout_s=30) as client:
        while client.recall(HISTORIES[:1], top_k=1, boosts=BOOSTS[2:]).results[0].detail:  # until the column is read
            time.sleep(0.05)
        for rest in ({}, {"filter": "margin >= 0.2"}, {"exclude_history": True}):
            found = client.recall(HISTORIES, top_k=20, boosts=BOOSTS, now_unix_s=NOW_S, **rest)  # type: ignore[arg-type]
            for history, result in zip(HISTORIES[:2], found.results, strict=False):
                items, gets = expected(client, history, **rest)
                assert list(result.item_ids) == items[:20]
                np.testing.assert_allclose(result.added, gets[:20], rtol=1e-5)
                assert not result.detail
            assert found.results[2].fallback and not found.results[2].added
        explained = client.explain(HISTORIES[0], top_k=20, boosts=BOOSTS, now_unix_s=NOW_S)
        [same] = client.recall(HISTORIES[:1], top_k=20, boosts=BOOSTS, now_unix_s=NOW_S).results
        assert explained.candidates == same and len(explained.boosts) == 3


def test_pins_and_drawn_items_have_their_places(shop: Server) -> None:
    with RecallClient(shop.address, timeout_s=30) as client:
        pins, explore = [2393, 77, 1007], {"share": 0.2, "filter": "margin > 0.5", "seed": 7}
        found = client.recall(HISTORIES, top_k=20, pin=pins, explore=explore, filter="margin > 0.1")
        for result in found.results:
            ids, source = list(result.item_ids), list(result.source)
            assert ids[:2] == [2393, 1007] and source[:2] == [SOURCE_PIN, SOURCE_PIN]
            assert len(ids) == 20 == len(set(ids))
            drawn = [item for item, of in zip(ids, source, strict=True) if of == SOURCE_EXPLORE]
            assert len(drawn) == 4 and all((margin(item) or 0) > 0.5 for item in drawn)
            assert "pins 1 (from 0) are left out" in result.detail
        again = client.recall(HISTORIES, top_k=20, pin=pins, explore=explore, filter="margin > 0.1")
        assert again.item_ids == found.item_ids


def test_a_deleted_item_is_neither_boosted_nor_pinned(shop: Server, milvus_uri: str) -> None:
    if milvus_uri.endswith(".db"):
        pytest.skip("the server holds the file, so nobody can change it meanwhile")
    with RecallClient(shop.address, timeout_s=30) as client:

        def best() -> list[int]:
            boosts = [{"filter": "item_id > 2300", "add": 100}]
            return list(client.recall(HISTORIES[:1], top_k=10, boosts=boosts, pin=[2393]).item_ids[0])

        gone = {2393, best()[1]}
        assert "deleted    2 items" in index("delete", "--ids", ",".join(map(str, gone)), "--milvus-uri", milvus_uri)
        wait_until(lambda: not gone & set(best()))


def test_the_command_line_shows_what_was_added(shop: Server) -> None:
    options = ["--hist-item", "1000,1007", "--top-k", "5", "--pin", "1049", "--boost", "margin > 0.6=4"]
    found = run_here("clients", "recall", "--server", shop.address, *options)
    assert found.returncode == 0 and "+4.0000" in found.stdout and "pin" in found.stdout

"""What the explorer page shows of items and interests where the release has titles and other attributes."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from mind.artifact import write_artifact
from mind.encoder import NumpyEncoder
from protos.recall.v1 import recall_pb2
from tests.artifacts import hyper_parameters_of, make_weights
from tests.canned_recall import CannedRecall
from tests.canned_recall import running as canned
from tests.clients.test_gateway_explorer import DESK, PHONE, SCRIPT, axe, opened, settled, shown
from tests.clients.test_gateway_explorer import browser as browser
from tests.gateway import serving
from tests.mind.test_item_map import draw
from tests.ports import free_port
from tests.server import test_service
from tests.server.test_store import build

GROUPS = ("Crime", "Drama", "Music", "Space")


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway without a file of titles, before a release whose items have attributes; users of whom three are alike.

    The items are of four groups, whose vectors are far apart: 50 items in each, in the order of their ids.
    """
    directory = tmp_path_factory.mktemp("attributed")
    weights = make_weights(dim=16)
    for item in range(200):
        weights.item_embedding[item + 1] *= 0.2
        weights.item_embedding[item + 1, item // 50] += 3
    weights = replace(weights, bilinear=np.eye(16, dtype=np.float32))
    hyper = hyper_parameters_of(weights, routing_init="history")
    vectors = NumpyEncoder(weights, hyper).encode(weights.golden_hist_index, weights.golden_seq_len)
    weights.golden_interest_vectors[:] = vectors
    write_artifact(directory / "artifacts", hyper, weights, {}, {})
    items = directory / "items.csv"
    rows = (f'{item},"{title_of(item)}",{GROUPS[(item - 1000) // 350]},{item / 100}' for item in range(1000, 2400, 7))
    items.write_text("item_id,title,genre,price\n" + "\n".join(rows) + "\n")
    users = directory / "users.jsonl"
    histories = {"one": [1000, 1007], "two": [1350, 1357], "both": [1000, 1700, 1007, 1707], "three": [1014, 1021]}
    users.write_text("".join(json.dumps({"user_id": user, "hist_item": own}) + "\n" for user, own in histories.items()))
    lite = str(directory / "milvus.db")
    build(lite, directory / "artifacts", "--attributes", str(items))
    endpoint = f"127.0.0.1:{free_port()}"
    options = ("--milvus-uri", lite, "--artifacts", str(directory / "artifacts"), "--metrics-listen", endpoint)
    with test_service.running(*options) as server:
        server.wait_for("serving model")
        metrics = ("--metrics", f"http://{endpoint}/metrics", "--metrics", "http://127.0.0.1:1/metrics")
        own = ("--server", server.address, "--users", str(users), "--map", str(draw(directory)), *metrics)
        with serving(*own, "--timeout-ms", "20000") as url:
            yield url


def title_of(item: int) -> str:
    """Hostile where it is 1014; a word that the items of a group share."""
    return SCRIPT.replace('"', "'") if item == 1014 else f"{GROUPS[(item - 1000) // 350]}land number {item}"


def test_titles_and_attributes_come_from_the_release(browser: Browser, attributed: str) -> None:
    with opened(browser, f"{attributed}/#history=1000,1014&top_k=5&exclude_history=0") as page:
        expect(page.locator("#history li .title")).to_have_text([title_of(1014), title_of(1000)])
        rows = page.locator(".candidates .rows > li")
        for row in rows.all():
            item = int(row.get_attribute("data-item") or 0)
            expect(row.locator(".title")).to_contain_text(title_of(item))
            expect(row.locator(".beside")).to_have_text(f"{GROUPS[(item - 1000) // 350]} · price {item / 100:g}")
        page.get_by_role("checkbox", name="price").uncheck()
        settled(page)
        expect(rows.first.locator(".beside")).to_have_text("Crime")
        page.reload()
        settled(page)
        expect(page.get_by_role("checkbox", name="price")).not_to_be_checked()
        expect(page.locator(".left-out .chip").first).not_to_contain_text("item ")
        assert page.locator("img[src=x]").count() == 0 and page.title() == "mind-recall explorer"


def test_items_are_found_by_the_titles_of_the_release(browser: Browser, attributed: str) -> None:
    with opened(browser, f"{attributed}/#history=") as page:
        box = page.get_by_role("combobox", name="Add an item by title or id")
        box.fill("spaceLAND NUMBER 23")
        page.locator("#found li").first.click()
        settled(page)
        expect(page.locator("#history li .title").first).to_contain_text("Spaceland number 23")


def test_lines_lead_from_the_clicks_to_the_interests_that_they_made(browser: Browser, attributed: str) -> None:
    with opened(browser, f"{attributed}/#history=1000,1700,1007&top_k=8") as page:
        asked = page.evaluate(
            "fetch('/v1/explain', {method: 'POST', headers: {'Content-Type': 'application/json'}, body:"
            " JSON.stringify({user: {hist_item: ['1000', '1700', '1007']}, top_k: 8})}).then((answer) => answer.json())"
        )
        for number, interest in enumerate(asked["interests"]):
            for item, weight in zip(asked["used_hist_item"], interest["weights"], strict=True):
                line = page.locator(f".thread.interest-{number}[data-item='{item}']")
                expect(line).to_have_count(int(weight >= 0.01))
                if weight >= 0.1:
                    assert float(line.get_attribute("stroke-width") or 0) == pytest.approx(16 * weight, abs=0.01)
        expect(page.locator(".thread-clicks li")).to_have_text([title_of(1007), title_of(1700), title_of(1000)])
        page.locator(".thread-clicks li").nth(1).hover()
        expect(page.locator(".thread.lit").first).to_have_attribute("data-item", "1700")


def test_interests_are_told_in_words_and_how_alike_they_are(browser: Browser, attributed: str) -> None:
    with opened(browser, f"{attributed}/#history=1000,1700,1007,1707&top_k=20") as page:
        cards = page.locator(".card.interest")
        about = [words for words in cards.locator(".about").all_inner_texts() if words]
        assert {words.split(" ")[0] for words in about} == {"Crime", "Music"}
        assert any("100 %, catalogue 25 %" in words and "crimeland" in words for words in about)
        expect(cards.first.locator(".alike")).to_have_text(re.compile(r"^cosine -?[01]\.\d\d with 1"))
        expect(page.locator(".thread-interests")).to_contain_text("musicland")


def test_it_opens_with_the_user_whose_interests_differ(browser: Browser, attributed: str) -> None:
    with opened(browser, attributed) as page:
        expect(page.locator("#user")).to_have_value("both")
        expect(page.locator("#lead")).to_have_text(
            re.compile("^The 20 items that the model suggests for user both, best")
        )


def test_the_filter_completes_names_and_values_by_keyboard(browser: Browser, attributed: str) -> None:
    with opened(browser, attributed) as page:
        expect(page.locator(".about").first).to_be_visible()  # the catalogue is known
        page.locator("#filter").press_sequentially("gen")
        expect(page.locator("#filter-choices li")).to_have_text(["genrevarchar"])
        assert axe(page) == []
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#filter")).to_have_value("genre ")
        page.locator("#filter").press_sequentially('== "sp')
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#filter")).to_have_value('genre == "Space"')
        page.keyboard.press("Enter")
        settled(page)
        assert {(int(item) - 1000) // 350 for item in shown(page)} == {3}
        page.locator("#filter").press_sequentially(" an")
        expect(page.locator("#filter-choices li").first).to_contain_text("and")
        page.keyboard.press("Escape")
        expect(page.locator("#filter-choices li")).to_have_count(0)


def test_the_map_is_coloured_by_an_attribute_and_says_what_colours_mean(browser: Browser, attributed: str) -> None:
    with opened(browser, attributed) as page:
        colour = page.get_by_label("Colour by")
        colour.select_option("genre")
        legend = page.locator(".map .legend")
        for group in GROUPS:
            expect(legend).to_contain_text(group)
        expect(page.locator(".map .dots")).to_have_count(4)
        colour.select_option("price")
        expect(legend).to_contain_text("or more")
        expect(page.locator(".map .dots")).to_have_count(5)
        assert axe(page) == []
        page.reload()
        settled(page)
        expect(page.get_by_label("Colour by")).to_have_value("price")


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_the_operations_view(browser: Browser, attributed: str, viewport: dict[str, int], scheme: str) -> None:
    with opened(browser, attributed, viewport=viewport, color_scheme=scheme) as page:
        page.get_by_role("button", name="Operations").click()
        expect(page.locator("#page")).to_be_hidden()
        server, away = page.locator(".server").nth(0), page.locator(".server").nth(1)
        expect(server).to_contain_text("serving")
        expect(server).to_contain_text("items_")
        expect(server).to_contain_text("Sampled recall")
        expect(server).to_contain_text("Refused for load")
        expect(away).to_contain_text("cannot be read")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert axe(page) == []
        page.get_by_role("button", name="Operations").press("Enter")
        expect(page.locator(".candidates")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_with_attributes_axe_finds_nothing_and_nothing_is_wider_than_a_phone(
    browser: Browser, attributed: str, scheme: str
) -> None:
    with opened(browser, attributed, viewport=PHONE, color_scheme=scheme) as page:
        expect(page.locator(".about").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert axe(page) == []


def test_a_search_asks_for_beginnings_where_milvus_knows_no_more(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = recall_pb2.GetServerInfoResponse(
        model_version="ab12",
        collection="items_ab12",
        attributes=[recall_pb2.Attribute(name="title", type="VARCHAR")],
        limits=recall_pb2.Limits(max_users=256, max_top_k=100, max_return_attributes=16),
    )
    monkeypatch.setattr("tests.canned_recall.INFO", info)
    servicer = CannedRecall()
    with canned(servicer) as target, serving("--server", target) as url, opened(browser, url) as page:
        expect(page.locator("#served")).to_contain_text("ab12")
        servicer.calls["Recall"].clear()
        servicer.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "filter: not on 2.3.5", ())]
        page.get_by_role("combobox", name="Add an item").fill("star wars")
        expect(page.locator("#found li").last).to_contain_text("Film 0")
        contained, begins = (request.filter for request, *_ in servicer.calls["Recall"])
        assert contained == 'title like "%star wars%" or title like "%Star wars%" or title like "%Star Wars%"'
        assert begins == contained.replace('"%', '"')

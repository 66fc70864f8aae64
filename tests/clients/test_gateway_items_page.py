"""The items' page in a real browser: one item, its attributes, the items similar to it, and who gets it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from playwright.sync_api import Browser, Page, expect

from mind.artifact import write_artifact
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.canned_recall import CannedRecall
from tests.canned_recall import running as canned
from tests.clients.test_gateway_explorer import DESK, PHONE, SCRIPT, axe, opened
from tests.clients.test_gateway_explorer import browser as browser
from tests.gateway import serving
from tests.mind.test_item_map import draw
from tests.server import test_service
from tests.server.test_store import build

USERS = {"one": [1000, 1007], "two": [1350, 1357], "hostile": [1014]}


def title_of(item: int) -> str:
    return SCRIPT.replace('"', "'") if item == 1014 else f"Title {item}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway before a release of 200 items with title, genre and price; all but the last 20 have neighbours."""
    directory = tmp_path_factory.mktemp("shop")
    weights = with_neighbours(make_weights())
    write_artifact(directory / "artifacts", hyper_parameters_of(weights), weights, {}, {})
    rows = [f'{item},"{title_of(item)}",{"War" if item % 2 else "Peace"},{item / 100}' for item in range(1000, 2400, 7)]
    (directory / "items.csv").write_text("\n".join(["item_id,title,genre,price", *rows, ""]))
    users = directory / "users.jsonl"
    users.write_text("".join(json.dumps({"user_id": user, "hist_item": own}) + "\n" for user, own in USERS.items()))
    lite = str(directory / "milvus.db")
    build(lite, directory / "artifacts", "--attributes", str(directory / "items.csv"))
    with test_service.running("--milvus-uri", lite, "--artifacts", str(directory / "artifacts")) as server:
        server.wait_for("serving model")
        options = ("--server", server.address, "--users", str(users), "--map", str(draw(directory)))
        with serving(*options, "--timeout-ms", "20000") as url:
            yield url


@contextmanager
def shown(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """The items' page, when it has an answer; fails in the end if a script failed."""
    context = browser.new_context(**({"viewport": DESK} | options))
    page = context.new_page()
    page.set_default_timeout(20_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.goto(url)
    settled(page)
    yield page
    context.close()
    assert not faults


def settled(page: Page) -> None:
    expect(page.locator("#item")).to_have_attribute("aria-busy", "false", timeout=20_000)


def similar(page: Page, item: int, by: str) -> list[str]:
    """What the gateway answers for the item."""
    body = json.dumps({"queries": [{"item_ids": [str(item)]}], "top_k": 20, "by": by})
    found: list[str] = page.evaluate(
        "body => fetch('/v1/similar', {method: 'POST', headers: {'Content-Type': 'application/json'}, body})"
        ".then((answer) => answer.json()).then(({ results }) => results[0].item_ids)",
        body,
    )
    return found


def listed(page: Page, name: str) -> list[str]:
    rows = page.get_by_role("region", name=name).locator(".rows > li")
    return [row.get_attribute("data-item") or "" for row in rows.all()]


def test_it_shows_the_item_and_what_is_similar_to_it(browser: Browser, shop: str) -> None:
    with shown(browser, f"{shop}/items#item=1007") as page:
        expect(page.get_by_role("heading", level=2)).to_have_text("Title 1007")
        expect(page).to_have_title("Title 1007 · mind-recall")
        facts = page.locator(".about-item dl > div").all_inner_texts()
        assert [fact.split("\n") for fact in facts] == [
            ["id", "1007"],
            ["genre", "War"],
            ["price", "10.07"],
            ["vector", "the model learned it"],
        ]
        assert listed(page, "Similar to the model") == similar(page, 1007, "embedding")
        assert listed(page, "Clicked soon after") == similar(page, 1007, "neighbours") != []
        row = page.get_by_role("region", name="Clicked soon after").locator(".rows > li").first
        item = int(row.get_attribute("data-item") or 0)
        expect(row.locator(".title")).to_contain_text(title_of(item))
        expect(row.locator(".beside")).to_contain_text(f"price {item / 100:g}")


def test_lists_lead_from_item_to_item_and_back(browser: Browser, shop: str) -> None:
    with shown(browser, f"{shop}/items#item=1007") as page:
        (first, *_) = listed(page, "Similar to the model")
        page.get_by_role("region", name="Similar to the model").get_by_role("link").first.click()
        expect(page.locator("#item-title")).to_have_text(title_of(int(first)))
        assert page.url.endswith(f"#item={first}")
        page.go_back()
        expect(page.locator("#item-title")).to_have_text("Title 1007")


def test_an_item_is_found_by_title_or_id(browser: Browser, shop: str) -> None:
    with shown(browser, f"{shop}/items") as page:
        expect(page.get_by_role("region", name="Popular items").locator("li").first).to_contain_text("Title 1000")
        box = page.get_by_role("combobox", name="Find an item by title or id")
        box.fill("title 1021")
        page.locator("#found li").first.click()
        expect(page.locator("#item-title")).to_have_text("Title 1021")
        box.fill("1028")
        page.keyboard.press("Enter")
        expect(page.locator("#item-title")).to_have_text("Title 1028")


def test_every_item_of_the_explorer_leads_to_its_page(browser: Browser, shop: str) -> None:
    with opened(browser, f"{shop}/#history=1000,1014&top_k=5") as page:
        for place in ("#history", ".candidates", ".card.interest", ".thread-clicks"):
            for row in page.locator(f"{place} li[data-item]").all():
                href = row.locator("a.item").get_attribute("href")
                assert href == f"/items#item={row.get_attribute('data-item')}"
        page.locator("#history a.item").first.click()
        expect(page.locator("#item-title")).to_have_text(title_of(1014))
        assert page.locator("img[src=x]").count() == 0
        page.go_back()
        expect(page.locator("#history li")).to_have_count(2)


def test_who_gets_it_among_the_example_users(browser: Browser, shop: str) -> None:
    with shown(browser, f"{shop}/items#item=1007") as page:
        asked = page.evaluate(
            "users => fetch('/v1/recall', {method: 'POST', headers: {'Content-Type': 'application/json'}, body:"
            " JSON.stringify({users, top_k: 100, exclude_history: true})}).then((answer) => answer.json())",
            [{"hist_item": list(map(str, own))} for own in USERS.values()],
        )
        places = {
            user: result["item_ids"].index("1007") + 1
            for user, result in zip(USERS, asked["results"], strict=True)
            if "1007" in result["item_ids"]
        }
        page.get_by_role("button", name="Ask for 3 example users").click()
        gets = page.get_by_role("region", name="Who gets it")
        expect(gets).to_contain_text(f"{len(places)} of 3 users get it. 1 clicked it already")
        rows = [row.split("\n") for row in gets.locator("li").all_inner_texts()]
        assert rows == [
            [f"user {user}", f"place {place}"] for user, place in sorted(places.items(), key=lambda e: e[1])
        ]


def test_an_item_that_nobody_knows_and_one_without_neighbours(browser: Browser, shop: str) -> None:
    with shown(browser, f"{shop}/items#item=5") as page:
        expect(page.locator(".about-item")).to_contain_text("Neither the model nor the collection knows this item")
        expect(page.locator(".similar")).to_have_count(0)
        page.goto(f"{shop}/items#item=2393")
        expect(page.locator("#item-title")).to_have_text("Title 2393")
        expect(page.get_by_role("region", name="Clicked soon after")).to_contain_text("Nothing is known of what users")


def test_text_ids_and_a_server_that_is_away(browser: Browser) -> None:
    servicer = CannedRecall(keyed=True)
    with canned(servicer) as target, serving("--server", target) as url:
        with shown(browser, f"{url}/items#item=KIT%2B1%26%20%2C") as page:
            expect(page.locator(".about-item")).to_contain_text("KIT+1& ,")
            expect(page.locator(".item-view > *")).to_have_count(2)  # no example users, so nobody to ask for
            expect(page.locator(".item-view")).not_to_contain_text("null")
            assert {request.by for request, *_ in servicer.calls["SimilarItems"]} == {1, 2}
            assert all(list(r.queries[0].item_keys) == ["KIT+1& ,"] for r, *_ in servicer.calls["SimilarItems"])
        servicer.failures = [(grpc.StatusCode.UNAVAILABLE, "away", ())] * 99
        with shown(browser, f"{url}/items#item=KIT-1") as page:
            expect(page.locator("#problem")).to_contain_text("away")
            servicer.failures = []
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#item-title")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    browser: Browser, shop: str, scheme: str, viewport: dict[str, int]
) -> None:
    for path in ("/items", "/items#item=1014", "/items#item=5"):
        with shown(browser, shop + path, viewport=viewport, color_scheme=scheme) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert axe(page) == []

"""The explorer page and the docs page in a real browser, in front of two real servers with different models."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from clients import RecallClient
from tests import browser as browsers
from tests.artifacts import make_artifact
from tests.canned_recall import CannedRecall
from tests.canned_recall import running as canned
from tests.gateway import serving
from tests.mind.test_item_map import draw
from tests.server import test_service
from tests.server.test_store import build

TITLES = {item_id: f"Title {item_id}" for item_id in range(1000, 2400, 7)} | {1700: "<b>Bold</b> & Sons"}
HISTORY = [1007, 1014, 1021]
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1400, "height": 900}


@dataclass(frozen=True)
class Site:
    """Gateways in front of the same server."""

    plain: str
    """With titles, users and map."""
    comparing: str
    """The same with the second server and its map."""
    address: str
    """The recall server's own."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    titles = directory / "titles.csv"
    titles.write_text("".join(f'{item_id},"{title}"\n' for item_id, title in TITLES.items()))
    users = directory / "users.txt"
    users.write_text(
        "user_id:1 target_item:0 hist_item:1700 hist_item:1707 eval_item:1000\n"
        f"user_id:2 target_item:0 {' '.join(f'hist_item:{item}' for item in HISTORY)} eval_item:1000\n"
    )
    with released(directory / "one", seed=0) as one, released(directory / "two", seed=1) as two:
        options = ["--server", one, "--titles", str(titles), "--users", str(users), "--timeout-ms", "20000"]
        options += ["--map", str(draw(directory / "one")), "--map", str(draw(directory / "two"))]
        with serving(*options) as plain, serving(*options, "--compare-with", two) as comparing:
            yield Site(plain, comparing, one)


@contextmanager
def released(directory: Path, seed: int) -> Iterator[str]:
    """A server process on a released model of 200 items; its address."""
    make_artifact(directory / "artifacts", seed=seed)
    lite = str(directory / "milvus.db")
    build(lite, directory / "artifacts")
    with test_service.running("--milvus-uri", lite, "--artifacts", str(directory / "artifacts")) as server:
        server.wait_for("serving model")
        yield server.address


@contextmanager
def opened(browser: Browser, url: str, **options: object) -> Iterator[Page]:
    """A page that has its first answer; fails in the end if a script failed, or anything came from another host."""
    context = browser.new_context(viewport=options.pop("viewport", DESK), **options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    faults: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: hosts.add(re.sub(r"(//[^/]+).*", r"\1", request.url)))
    page.goto(url)
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "false", timeout=20_000)
    yield page
    context.close()
    assert not faults
    assert len({host for host in hosts if not host.startswith("data:")}) == 1


def shown(page: Page, side: int = 0) -> list[str]:
    """Item ids of the candidates on the page."""
    rows = page.locator(".side").nth(side).locator(".candidates .rows > li")
    return [row.get_attribute("data-item") for row in rows.all()]


def recalled(site: Site, history: list[int], **options: object) -> list[str]:
    """What the recall server itself answers."""
    with RecallClient(site.address, timeout_s=20) as client:
        answer = client.recall([history], **{"top_k": 20, "exclude_history": True} | options)
    return list(map(str, answer.results[0].item_ids))


def settled(page: Page) -> None:
    expect(page.locator("#answers")).to_have_attribute("aria-busy", "false")


def axe(page: Page) -> list[str]:
    """What axe-core finds wrong with the page as it is."""
    page.evaluate(browsers.axe_script())
    violations = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes']][:3]}" for one in violations]


def test_it_shows_the_clicks_of_an_example_user_and_the_candidates(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        page.select_option("#user", "1")
        settled(page)
        assert shown(page) == recalled(site, [1700, 1707])
        expect(page.locator("#history li .title")).to_have_text([TITLES[1707], TITLES[1700]])
        expect(page.locator("#served")).to_contain_text("200 items")
        expect(page.locator(".card.interest")).to_have_count(4)
        expect(page.locator(".candidates .rows .hit")).to_have_count(shown(page).count("1000"))
        expect(page.locator("details", has_text="clicked already")).to_have_count(1)


def test_another_user_and_every_question(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        page.select_option("#user", "2")
        settled(page)
        assert shown(page) == recalled(site, HISTORY)
        page.uncheck("#exclude-history")
        page.select_option("#merge", "round_robin")
        page.fill("#top-k", "7")
        page.fill("#exclude", "1028, 1035")
        page.fill("#filter", "item_id < 2000")
        page.keyboard.press("Enter")
        settled(page)
        expected = recalled(
            site, HISTORY, top_k=7, exclude_history=False, merge_strategy="round_robin", filter="item_id < 2000",
            exclude_item_ids=[[1028, 1035]],
        )  # fmt: skip
        expect(page.locator(".candidates .rows > li")).to_have_count(7)
        assert shown(page) == expected
        page.get_by_role("button", name="Another").click()
        settled(page)
        expect(page.locator("#user")).to_have_value("1")


def test_items_are_added_by_id_by_title_and_by_keyboard_alone(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        page.get_by_role("button", name="Clear").click()
        settled(page)
        expect(page.locator(".remark")).to_contain_text("Nothing clicked")
        box = page.get_by_role("combobox", name="Add an item")
        expect(box).to_be_focused()
        page.keyboard.type("1007, 1014 1021")
        page.keyboard.press("Enter")
        settled(page)
        assert shown(page) == recalled(site, HISTORY)
        page.keyboard.type("sons")
        option = page.get_by_role("option", name="<b>Bold</b> & Sons")
        expect(option).to_be_visible()
        page.keyboard.press("ArrowDown")
        expect(option).to_have_attribute("aria-selected", "true")
        expect(box).to_have_attribute("aria-activedescendant", "found-0")
        page.keyboard.press("Enter")
        settled(page)
        assert shown(page) == recalled(site, [*HISTORY, 1700])
        expect(page.locator("#history li .title").first).to_have_text("<b>Bold</b> & Sons")
        page.keyboard.press("Backspace")
        settled(page)
        assert shown(page) == recalled(site, HISTORY)
        page.keyboard.type("nothing has this")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        expect(page.locator("#history li")).to_have_count(3)
        page.get_by_role("button", name=f"Remove {TITLES[1014]}").press("Enter")
        settled(page)
        assert shown(page) == recalled(site, [1007, 1021])


def test_the_skip_link_leads_past_the_form(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the candidates")).to_be_focused()
        page.keyboard.press("Enter")
        clicks = page.locator("#history li").count()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('.candidates .rows .add')"):
                break
        page.keyboard.press("Enter")
        settled(page)
        expect(page.locator("#history li")).to_have_count(clicks + 1)


def test_where_a_candidate_comes_from(browser: Browser, site: Site) -> None:
    with opened(browser, f"{site.plain}/#history=1007,1014,1021&top_k=5&exclude_history=0") as page:
        with RecallClient(site.address, timeout_s=20) as client:
            explained = client.explain(HISTORY, top_k=5)
        for rank, (item_id, interest) in enumerate(
            zip(explained.candidates.item_ids, explained.candidates.interest, strict=True)
        ):
            found_by = [number for number, one in enumerate(explained.interests) if item_id in one.item_ids]
            also = [number for number in found_by if number != interest]
            badges = page.locator(".candidates .rows > li").nth(rank).locator(".badge")
            expect(badges).to_have_text(list(map(str, [interest, *also])))
        duplicates = {hit.item_id for hit in explained.dropped if hit.reason == 1}
        expect(page.locator("summary", has_text="better place")).to_have_text(re.compile(rf"^{len(duplicates)} "))


def test_attributes_that_dropped_a_hit_are_named(browser: Browser, site: Site) -> None:
    def capped(route: Route) -> None:
        response = route.fetch()
        answer = response.json()
        for hit in answer["dropped"]:
            if hit["reason"] == "DROP_REASON_BELOW_TOP_K":
                hit |= {"reason": "DROP_REASON_AT_MOST", "at_most": ["brand", "year"]}
        route.fulfill(response=response, json=answer)

    with opened(browser, site.plain) as page:
        expect(page.locator("summary", has_text="enough candidates")).to_have_count(0)
        page.route("**/v1/explain*", capped)
        page.select_option("#user", "1")
        settled(page)
        expect(page.locator("summary", has_text="enough candidates share its brand and its year")).to_have_count(1)
        page.locator(".interest .more").first.click()  # all hits of an interest
        expect(page.locator(".interest .fate", has_text="at most: brand, year").first).to_be_visible()


def test_the_map_shows_the_user_and_answers_to_the_pointer(browser: Browser, site: Site) -> None:
    with opened(browser, f"{site.plain}/#history=1007,1014,1021&top_k=12") as page:
        drawing = page.locator(".map svg")
        expect(drawing.locator(".candidate")).to_have_count(12)
        expect(drawing.locator(".clicked")).to_have_count(3)
        expect(drawing.locator(".centre")).to_have_count(4)
        expect(drawing.locator(".rays line")).to_have_count(12)
        item_id = shown(page)[0]
        page.locator(".candidates .rows > li").first.hover()
        expect(drawing.locator(f"[data-item='{item_id}']")).to_have_class(re.compile("lit"))
        page.get_by_role("button", name="Zoom in").click()
        drawing.locator(f"[data-item='{item_id}']").hover(force=True)
        expect(page.locator(".note")).to_have_text(TITLES[int(item_id)])
        drawing.locator(f"[data-item='{item_id}']").click(force=True)
        settled(page)
        expect(page.locator("#history li").first).to_have_attribute("data-item", item_id)


def test_two_models_side_by_side(browser: Browser, site: Site) -> None:
    with opened(browser, site.comparing) as page:
        expect(page.locator(".side")).to_have_count(2)
        one, two = set(shown(page, 0)), set(shown(page, 1))
        expect(page.locator("#agreement")).to_have_text(f"{len(one & two)} of 20 candidates are on both lists.")
        for side in (0, 1):
            expect(page.locator(".side").nth(side).locator(".move.only")).to_have_count(20 - len(one & two))
            expect(page.locator(".side").nth(side).locator(".map svg .centre")).to_have_count(4)
        assert page.locator(".side-name").all_inner_texts() == ["This server", "Second server"]
        page.uncheck("#compare")
        settled(page)
        expect(page.locator(".side")).to_have_count(1)
        expect(page.locator("#agreement")).to_be_hidden()


def test_the_address_keeps_the_question_and_no_server_learns_it(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.fill("#top-k", "9")
        page.keyboard.press("Tab")
        page.select_option("#user", "2")
        settled(page)
        page.reload()
        settled(page)
        expect(page.locator("#user")).to_have_value("2")
        expect(page.locator(".candidates .rows > li")).to_have_count(9)
        assert "history=1007%2C1014%2C1021" in page.url
        assert not [url for url in asked if "1014" in url.partition("#")[0]]


@pytest.mark.parametrize("address", ["plain", "comparing"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, site: Site, address: str) -> None:
    with opened(browser, getattr(site, address), viewport=PHONE, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        page.get_by_text("What to ask").click()
        expect(page.get_by_role("button", name="Find candidates")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def lightness(page: Page) -> int:
    return int(re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[0])


def test_dark_and_light_as_the_system_says_or_the_visitor_chooses(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain, color_scheme="dark") as page:
        assert lightness(page) < 60
        toggle = page.get_by_role("button", name="Dark")
        expect(toggle).to_have_attribute("aria-pressed", "true")
        toggle.click()
        assert lightness(page) > 200
        page.reload()
        assert lightness(page) > 200
    with opened(browser, site.plain, color_scheme="light") as page:
        assert lightness(page) > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("address", "viewport"), [("plain", DESK), ("comparing", DESK), ("comparing", PHONE)])
def test_axe_finds_nothing(browser: Browser, site: Site, address: str, viewport: dict[str, int], scheme: str) -> None:
    with opened(browser, getattr(site, address), viewport=viewport, color_scheme=scheme) as page:
        assert axe(page) == []
        page.get_by_role("button", name="Clear").click()
        settled(page)
        page.get_by_role("combobox", name="Add an item").fill("title 1")
        expect(page.locator("#found li").first).to_be_visible()
        assert axe(page) == []


def test_without_files_it_offers_popular_items_and_says_how_to_get_a_map(browser: Browser) -> None:
    with canned(CannedRecall()) as target, serving("--server", target) as url, opened(browser, url) as page:
        expect(page.locator("#user option").nth(1)).to_have_text("clicked item 7")
        expect(page.locator(".no-map")).to_contain_text("python -m mind.item_map")
        assert axe(page) == []


def test_failures_are_told_and_pass(browser: Browser) -> None:
    servicer = CannedRecall()
    with canned(servicer) as target, serving("--server", target) as url, opened(browser, url) as page:
        expect(page.locator("#served")).to_contain_text("ab12")
        refusal = (("error-reason", "FILTER_INVALID"),)
        servicer.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "filter: Milvus cannot use 'x =='", refusal)]
        page.fill("#filter", "x ==")
        page.keyboard.press("Enter")
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text("filter: Milvus cannot use 'x =='")
        expect(problem).to_contain_text("FILTER_INVALID")
        expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
        assert axe(page) == []
        problem.get_by_role("button", name="Try again").click()
        expect(problem).to_be_hidden()
        expect(page.locator("#filter")).to_have_attribute("aria-invalid", "false")
        page.context.set_offline(True)
        page.get_by_role("button", name="Clear").click()
        expect(problem).to_contain_text("The gateway does not answer")
        page.context.set_offline(False)
        problem.get_by_role("button", name="Try again").click()
        expect(problem).to_be_hidden()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Options with titles of the items 1 to 9 and two example users, for a gateway in front of canned answers."""
    titles = tmp_path / "titles.csv"
    titles.write_text("".join(f"{item_id},Title {item_id}\n" for item_id in range(1, 10)))
    users = tmp_path / "users.txt"
    users.write_text(
        "user_id:1 target_item:0 hist_item:1 hist_item:2\nuser_id:2 target_item:0 hist_item:3 hist_item:4\n"
    )
    return ["--titles", str(titles), "--users", str(users), "--timeout-ms", "20000"]


SCRIPT = "<img src=x onerror='document.title=1'><script>document.title = 1</script>"
QUOTES = """a "b" 'c'] & \\, d"""


@pytest.fixture
def of_text(tmp_path: Path) -> list[str]:
    """The same with text ids that would do harm in HTML, in selectors or in an address; and a map of all of them."""
    titles = tmp_path / "titles.csv"
    titles.write_text("item_id,title\nKIT-1,Pan\nKIT-2,Hose\n")
    users = tmp_path / "users.jsonl"
    users.write_text(
        "".join(
            json.dumps({"user_id": user, "hist_item": history, "eval_item": [f"{history[-1]}+1"]}) + "\n"
            for user, history in ((SCRIPT, [QUOTES, SCRIPT]), ("7", ["0042"]))
        )
    )
    drawn = tmp_path / "map.json"
    keys = ["KIT-1", "KIT-2", QUOTES, SCRIPT, *(f"{SCRIPT}+{rank}" for rank in range(1, 5))]
    plane = {"mean": [0] * 8, "axes": [[1, 0]] + [[0, 1]] * 7, "low": [0, 0], "scale": 100, "explained": 0.5}
    places = {"x": [10 * place for place in range(8)], "y": [90 - 10 * place for place in range(8)]}
    drawn.write_text(json.dumps({"model_version": "ab12", "grid": 4096, "item_ids": keys} | places | plane))
    return ["--titles", str(titles), "--users", str(users), "--map", str(drawn), "--timeout-ms", "20000"]


def test_text_ids_are_text_wherever_they_stand(browser: Browser, of_text: list[str]) -> None:
    with (
        canned(CannedRecall(keyed=True)) as target,
        serving("--server", target, *of_text) as url,
        opened(browser, url) as page,
    ):
        assert shown(page) == [f"{SCRIPT}+{rank}" for rank in range(1, 5)]
        expect(page.locator("#history li .title")).to_have_text([f"item {SCRIPT}", f"item {QUOTES}"])
        expect(page.locator("#user")).to_have_value(SCRIPT)
        expect(page.locator(".candidates .rows .hit")).to_have_count(1)
        expect(page.locator(".map svg .clicked")).to_have_count(2)
        page.locator(".candidates .rows > li").first.hover()
        expect(page.locator(".map svg circle.lit")).to_have_count(1)
        page.locator("#history li").last.hover()
        expect(page.locator(".map svg rect.lit")).to_have_count(1)
        page.reload()
        settled(page)
        expect(page.locator("#history li")).to_have_count(2)
        assert [row.get_attribute("data-item") for row in page.locator("#history li").all()] == [SCRIPT, QUOTES]
        assert page.locator("img[src=x]").count() == 0 and page.title() == "mind-recall explorer"
        assert axe(page) == []


def test_items_with_text_ids_are_added_by_id_and_by_title(browser: Browser, of_text: list[str]) -> None:
    servicer = CannedRecall(keyed=True)
    with (
        canned(servicer) as target,
        serving("--server", target, *of_text) as url,
        opened(browser, f"{url}/#history=0042") as page,
    ):
        assert shown(page)[0] == "0042+1"
        expect(page.locator("#served")).to_contain_text("ab12")
        box = page.get_by_role("combobox", name="Add an item")
        for typed, offered, clicks in (
            ("hose", 2, ["Hose", "item 0042"]),  # a title; it may be an id too
            ("KIT-1", 1, ["Pan", "Hose", "item 0042"]),  # an id with a title
            ("007, 7", 1, ["item 7", "item 007", "Pan", "Hose", "item 0042"]),  # ids that nothing is known of
        ):
            box.fill(typed)
            expect(page.locator("#found li")).to_have_count(offered)
            box.press("Enter")
            expect(page.locator("#history li .title")).to_have_text(clicks)
        settled(page)
        page.fill("#exclude", "42, KIT-2")
        page.get_by_role("button", name="Find candidates").click()
        settled(page)
        user = servicer.calls["Explain"][-1][0].user
        assert list(user.hist_item_keys) == ["0042", "KIT-2", "KIT-1", "007", "7"]
        assert list(user.exclude_item_keys) == ["42", "KIT-2"]


def shows_no_answer(page: Page, newest_first: list[str]) -> None:
    """The page has nothing of the user before, and the titles of what this user clicked."""
    expect(page.locator(".candidates, .interest, .left-out, .map, .facts")).to_have_count(0)
    expect(page.locator("#agreement")).to_be_hidden()
    expect(page.locator("#said")).to_be_empty()
    expect(page.locator("#history li .title")).to_have_text(newest_first)  # without a remark such as "too long ago"


def test_no_answer_is_left_under_another_users_name_when_the_server_stops(browser: Browser, files: list[str]) -> None:
    servicer = CannedRecall()
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        target = server.enter_context(canned(servicer))
        page = stack.enter_context(opened(browser, stack.enter_context(serving("--server", target, *files))))
        assert shown(page)[:2] == ["3", "4"]
        server.close()
        page.select_option("#user", "2")
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text(f"no server answers at {target}")
        expect(problem).to_contain_text("python -m server")
        shows_no_answer(page, ["Title 4", "Title 3"])
        assert axe(page) == []


def test_no_answer_is_left_beside_a_filter_that_is_refused(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        page.select_option("#user", "1")
        settled(page)
        page.fill("#filter", "item_id = 1700")
        page.keyboard.press("Enter")
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text("`=` is no operator; use `==`")
        expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
        shows_no_answer(page, [TITLES[1707], TITLES[1700]])
        page.fill("#filter", "item_id == 1028")
        page.keyboard.press("Enter")
        expect(problem).to_be_hidden()
        expect(page.locator(".candidates .rows > li")).to_have_count(1)


def test_an_answer_is_dimmed_while_the_next_is_on_its_way(browser: Browser, files: list[str]) -> None:
    with (
        canned(CannedRecall()) as target,
        serving("--server", target, *files) as url,
        opened(browser, url) as page,
    ):
        held: list[Route] = []
        page.route("**/v1/explain*", lambda route: held.append(route))
        page.select_option("#user", "2")
        expect(page.locator("#sides")).to_have_css("opacity", "0.35")
        expect(page.locator("#history li .title")).to_have_text(["Title 4", "Title 3"])
        held[0].continue_()
        settled(page)
        expect(page.locator("#sides")).to_have_css("opacity", "1")
        assert shown(page)[:2] == ["5", "6"]


@pytest.mark.parametrize("dead", [0, 1])
def test_one_dead_server_does_not_hide_the_answer_of_the_other(browser: Browser, files: list[str], dead: int) -> None:
    with canned(CannedRecall()) as target:
        servers = [target, target]
        servers[dead] = "127.0.0.1:1"
        with (
            serving("--server", servers[0], "--compare-with", servers[1], *files) as url,
            opened(browser, url) as page,
        ):
            alive, failed = page.locator(".side").nth(1 - dead), page.locator(".side").nth(dead)
            expect(alive.locator(".candidates .rows > li")).to_have_count(4)
            expect(alive.locator(".move")).to_have_count(0)
            expect(failed.get_by_role("alert")).to_contain_text("no server answers at 127.0.0.1:1")
            expect(failed.locator(".candidates")).to_have_count(0)
            expect(page.locator("#agreement")).to_be_hidden()
            assert axe(page) == []
            failed.get_by_role("button", name="Try again").click()
            settled(page)
            expect(alive.locator(".candidates .rows > li")).to_have_count(4)


def test_a_silent_server_does_not_hide_the_answer_of_the_other(browser: Browser, files: list[str]) -> None:
    with (
        canned(CannedRecall()) as target,
        serving("--server", target, "--compare-with", target, *files) as url,
        opened(browser, url) as page,
    ):
        held: list[Route] = []
        page.route("**/v1/explain?server=compared", lambda route: held.append(route))
        page.select_option("#user", "2")
        expect(page.locator(".side").nth(1)).to_contain_text("It has not answered yet.")
        assert shown(page)[:2] == ["5", "6"]
        expect(page.locator("#sides")).to_have_css("opacity", "1")
        held[0].continue_()
        settled(page)
        expect(page.locator("#agreement")).to_contain_text("4 of 4")


def test_the_model_on_top_is_told_once_the_server_is_back(browser: Browser, files: list[str]) -> None:
    servicer = CannedRecall()
    with canned(servicer) as target, serving("--server", target, *files) as url:
        servicer.failures = [(grpc.StatusCode.FAILED_PRECONDITION, "no release yet", ())] * 9
        with opened(browser, url) as page:
            expect(page.get_by_role("alert")).to_contain_text("no release yet")
            servicer.failures = []
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#served")).to_contain_text("model ab12")


def test_a_server_that_is_away_is_told(browser: Browser) -> None:
    with serving("--server", "127.0.0.1:1", "--timeout-ms", "300") as url, opened(browser, url) as page:
        expect(page.get_by_role("alert")).to_contain_text("The recall server")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_the_docs_page_tries_recall_out(browser: Browser, site: Site) -> None:
    popular = [1000, 1007, 1014, 1021, 1028]
    best = recalled(site, popular, top_k=10, exclude_history=False)[0]
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{site.plain}/docs")
    for path, expected in (("/v1/recall", '"model_version"'), ("/rec/recall", best)):
        operation = page.locator(".opblock", has_text=path)
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        live = operation.locator(".live-responses-table")
        expect(live.locator("tbody .response-col_status").first).to_contain_text("200")
        expect(live).to_contain_text(expected)
    context.close()


def test_lists_scroll_and_comparing_keeps_them_above_the_fold(browser: Browser, site: Site) -> None:
    with opened(browser, site.comparing) as page:
        for side in (0, 1):
            rows = page.locator(".side").nth(side).locator(".candidates .rows")
            assert rows.evaluate("(list) => list.getBoundingClientRect().top + 200") < DESK["height"]
            assert rows.evaluate("(list) => list.scrollHeight > list.clientHeight")
            assert rows.evaluate("(list) => getComputedStyle(list).overflowY") == "scroll"


def test_without_metrics_there_is_no_operations_view(browser: Browser, site: Site) -> None:
    with opened(browser, site.plain) as page:
        expect(page.get_by_role("button", name="Operations")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_docs_look_like_the_page_and_have_the_users_calls(browser: Browser, site: Site, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{site.plain}/docs")
    expect(page.locator(".opblock", has_text="/v1/users/upsert")).to_be_visible()
    expect(page.get_by_role("link", name="Explorer")).to_be_visible()
    assert (lightness(page) < 60) == (scheme == "dark")
    assert ("dark-mode" in (page.locator("html").get_attribute("class") or "")) == (scheme == "dark")
    context.close()

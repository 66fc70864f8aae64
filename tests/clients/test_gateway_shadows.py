"""The operations view shows what shadow channels answered."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, expect

from tests.canned_recall import CannedRecall
from tests.canned_recall import running as canned
from tests.clients.test_gateway import METRICS
from tests.clients.test_gateway_explorer import DESK, PHONE, axe, opened
from tests.clients.test_gateway_explorer import browser as browser
from tests.gateway import serving


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A gateway that reads metrics with the shadow channels b and c."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metrics) as metrics:
        threading.Thread(target=metrics.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{metrics.server_port}/metrics"
        with canned(CannedRecall()) as target, serving("--server", target, "--metrics", address) as url:
            yield url
        metrics.shutdown()


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_shadow_channels_in_the_operations_view(
    browser: Browser, url: str, viewport: dict[str, int], scheme: str
) -> None:
    with opened(browser, url, viewport=viewport, color_scheme=scheme) as page:
        page.get_by_role("button", name="Operations").click()
        rows = page.get_by_role("table", name="Shadow channels").locator("tbody tr")
        expect(rows).to_have_count(2)
        cells = [[cell.inner_text() for cell in row.locator("td").all()] for row in rows.all()]
        assert cells == [["b", "3 of 5", "0.25", "–", "×1.25"], ["c", "0 of 0", "–", "–", "–"]]
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert axe(page) == []

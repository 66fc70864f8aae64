"""Downloads: what was cut continues, nothing unchecked gets its name, and without a network the user is told how.

The server is one of this process; nothing leaves the machine.
"""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mind.data import download
from mind.data.download import Source, download_url, download_with_pip, fetch
from mind.errors import DataError
from tests.mind.test_movielens import RECBOLE, WHEEL, make_archive

CONTENT = bytes(range(256)) * 20
SIZE = len(CONTENT)  # 5,120


@dataclass
class Web:
    """What the server does, and what it was asked for."""

    content: bytes = CONTENT
    version: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    """Header that names the version of the content."""
    heeds_range: bool = True
    cuts: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off."""
    statuses: list[int] = field(default_factory=list)
    """Statuses of the next answers, instead of content."""
    shift: int = 0
    """How much later than asked for a range begins."""
    ranges: list[str | None] = field(default_factory=list)
    conditions: list[str | None] = field(default_factory=list)
    """Headers Range and If-Range of each request."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        web: Web = self.server.web
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        web.ranges.append(asked)
        web.conditions.append(condition)
        start = 0
        if asked and web.heeds_range and condition in (None, *web.version.values()):
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + web.shift
        if web.statuses:
            self.answer(web.statuses.pop(0))
        elif start and start >= len(web.content):
            self.answer(416, {"Content-Range": f"bytes */{len(web.content)}"})
        else:
            headers = {"Content-Length": str(len(web.content) - start), **web.version}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(web.content) - 1}/{len(web.content)}"
            self.answer(206 if start else 200, headers)
            end = start + web.cuts.pop(0) if web.cuts else None
            self.wfile.write(web.content[start:end])

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server on a free port; `source_of` names it."""
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.web = Web()
        server.web.url = f"http://127.0.0.1:{server.server_port}/file.bin"
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server.web
        server.shutdown()


def source_of(web: Web, content: bytes = CONTENT) -> Source:
    return Source("file.bin", f"md5:{hashlib.md5(content).hexdigest()}", web.url, download_url)  # noqa: S324


def refuse(source: Source, part: Path) -> None:
    raise OSError("no network")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_download_is_kept_and_used_again(tmp_path: Path, web: Web) -> None:
    cache = tmp_path / "downloads"
    assert fetch("it", [source_of(web)], cache) == cache / "file.bin"
    assert (cache / "file.bin").read_bytes() == CONTENT
    assert fetch("it", [replace(source_of(web), download=refuse)], cache) == cache / "file.bin"
    assert names(cache) == ["file.bin"]


@pytest.mark.parametrize(
    ("version", "condition"),
    [
        ({"ETag": '"one"'}, '"one"'),
        ({"ETag": 'W/"one"', "Last-Modified": "Fri, 01 Feb 2019 00:00:00 GMT"}, "Fri, 01 Feb 2019 00:00:00 GMT"),
        ({}, None),
    ],
)
def test_a_download_that_was_cut_continues(
    tmp_path: Path, web: Web, version: dict[str, str], condition: str | None
) -> None:
    web.version, web.cuts = version, [1000, 200]
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert web.ranges == [None, "bytes=1000-", "bytes=1200-"]
    assert web.conditions == [None, condition, condition]
    assert names(tmp_path) == ["file.bin"]


def test_it_continues_however_often_it_is_cut_as_long_as_something_comes(tmp_path: Path, web: Web) -> None:
    web.cuts = [500] * 10
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert len(web.ranges) == 11


def test_it_continues_in_the_next_run(tmp_path: Path, web: Web) -> None:
    web.cuts = [1000, 0, 0, 0]
    with pytest.raises(DataError, match=r"file.bin from http://.*: cut after 1,000 of 5,120 bytes$"):
        fetch("it", [source_of(web)], tmp_path)
    assert names(tmp_path) == [".file.bin.part", ".file.bin.part.version"]
    web.ranges.clear()
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert web.ranges == ["bytes=1000-"]


@pytest.mark.parametrize("change", [{"version": {"ETag": '"two"'}}, {"heeds_range": False}])
def test_it_starts_again_when_it_cannot_continue(tmp_path: Path, web: Web, change: dict[str, object]) -> None:
    (tmp_path / ".file.bin.part").write_bytes(b"another version")
    (tmp_path / ".file.bin.part.version").write_text('"one"')
    for name, value in change.items():
        setattr(web, name, value)
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert web.ranges == ["bytes=15-"]


@pytest.mark.parametrize(
    ("part", "ranges"),
    [
        (CONTENT, [f"bytes={SIZE}-"]),
        (CONTENT + b"more", [f"bytes={SIZE + 4}-", None]),
        (b"damaged", ["bytes=7-", None]),
        (b"x" * SIZE, [f"bytes={SIZE}-", None]),
    ],
    ids=["whole", "too long", "damaged", "whole and damaged"],
)
def test_what_an_earlier_run_left_is_never_trusted(
    tmp_path: Path, web: Web, part: bytes, ranges: list[str | None]
) -> None:
    (tmp_path / ".file.bin.part").write_bytes(part)
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert web.ranges == ranges
    assert names(tmp_path) == ["file.bin"]


def test_another_range_than_asked_for_is_not_appended(tmp_path: Path, web: Web) -> None:
    web.cuts, web.shift = [1000], 1
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert web.ranges == [None, "bytes=1000-", None]


def test_wrong_content_is_asked_for_twice_and_thrown_away(tmp_path: Path, web: Web) -> None:
    web.content = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"the download is not the file with md5:"):
        fetch("it", [source_of(web)], tmp_path)
    assert web.ranges == [None, None]
    assert names(tmp_path) == []


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, download.ATTEMPTS)])
def test_what_may_pass_is_tried_again(tmp_path: Path, web: Web, status: int, requests: int) -> None:
    web.statuses = [status] * 9
    with pytest.raises(DataError, match=rf"HTTP Error {status}"):
        fetch("it", [source_of(web)], tmp_path)
    assert len(web.ranges) == requests
    web.statuses = [503] * (download.ATTEMPTS - 1)
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT


def test_a_damaged_copy_is_downloaded_again(tmp_path: Path, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file.bin").write_bytes(b"cut short")
    assert fetch("it", [source_of(web)], tmp_path).read_bytes() == CONTENT
    assert "file.bin is damaged" in caplog.text


def test_the_next_source_is_tried(tmp_path: Path, web: Web) -> None:
    broken = Source(WHEEL, "sha256:00", "recbole==1.2.1", refuse)
    assert fetch("it", [broken, source_of(web)], tmp_path).name == "file.bin"


def test_without_a_published_checksum_the_first_copy_is_recorded(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    web.content = gzip.compress(CONTENT, mtime=0)
    digest = hashlib.sha256(web.content).hexdigest()
    source = replace(source_of(web), digest=None)
    archive = fetch("it", [source], tmp_path)
    assert (tmp_path / "file.bin.sha256").read_text() == f"{digest}  file.bin\n"  # `sha256sum -c` reads it
    assert f"nobody publishes a checksum; sha256 {digest} is recorded in" in capsys.readouterr().err
    archive.write_bytes(gzip.compress(b"another", mtime=0))
    assert fetch("it", [source], tmp_path).read_bytes() == web.content
    web.content = gzip.compress(b"a third", mtime=0)
    archive.unlink()
    with pytest.raises(DataError, match=rf"the download is not the file with sha256:{digest}, see .*file.bin.sha256$"):
        fetch("it", [source], tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", gzip.compress(CONTENT)[:-4], gzip.compress(CONTENT)[:-9] + b"123456789"]
)
def test_without_a_published_checksum_gzip_has_its_own(tmp_path: Path, web: Web, content: bytes) -> None:
    web.content = content
    with pytest.raises(DataError, match=r"the download is not a complete gzip file"):
        fetch("it", [replace(source_of(web), digest=None)], tmp_path)
    assert names(tmp_path) == []


def test_a_wheel_comes_through_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = make_archive(index / WHEEL, RECBOLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    digest = f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    source = Source(WHEEL, digest, "recbole==1.2.1", download_with_pip)
    assert fetch("it", [source], tmp_path / "cache").read_bytes() == wheel.read_bytes()
    with pytest.raises(DataError, match=r"recbole-1.2.1-py3-none-any.whl from recbole==1.2.1: .*(HASH|hash)"):
        fetch("it", [replace(source, digest="sha256:" + "0" * 64)], tmp_path / "other")


def test_without_a_network_the_user_is_told_what_to_do(tmp_path: Path, web: Web) -> None:
    cache = tmp_path / "downloads"
    wheel = Source(WHEEL, "sha256:00", "recbole==1.2.1", refuse)
    nobody = replace(source_of(web), location="http://127.0.0.1:1/file.bin")
    with pytest.raises(DataError) as error:
        fetch("movielens-100k", [wheel, nobody], cache)
    assert str(error.value).splitlines() == [
        f"movielens-100k: not in {cache} and cannot be downloaded; put one of these files there by hand:",
        f"  {WHEEL} from recbole==1.2.1: no network",
        "  file.bin from http://127.0.0.1:1/file.bin: [Errno 111] Connection refused",
    ]
    assert names(cache) == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, web: Web) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/downloads: cannot be used: .*Not a directory"):
        fetch("it", [source_of(web)], tmp_path / "file" / "downloads")

"""The picture of the demo: what a terminal would show at the end, drawn, small and without traces of a machine."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import recording
from tests.recording import COLUMNS, PICTURE, SHOP_PICTURE, Screen, draw, record


def shown(screen: Screen) -> list[str]:
    return ["".join(character for character, _ in row.cells) for row in screen.rows]


def drawn_lines(picture: str) -> list[str]:
    """The text of every line of a picture, which is thereby known to be well-formed."""
    lines = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314 our own file
    return [" ".join(line.itertext()) for line in lines]


def test_a_progress_bar_is_seen_at_its_end() -> None:
    screen = Screen()
    screen.feed("load\r\n", 0.0)
    screen.feed("\x1b[1m10%\x1b[0m", 1.0)
    screen.feed("\r\x1b[2K\x1b[32m100%\x1b[0m\r\n", 2.0)
    screen.feed("two\r\nthree\x1b[1A\r\x1b[2Kover", 3.0)
    assert shown(screen) == ["load", "100%", "over", "three"]
    assert [row.at_s for row in screen.rows] == [0.0, 2.0, 3.0, 3.0]


def test_a_long_line_goes_on_in_the_next() -> None:
    screen = Screen()
    screen.feed("x" * COLUMNS + "yz", 0.0)
    assert shown(screen) == ["x" * COLUMNS, "yz"]


def test_a_program_is_recorded_with_its_colours_and_drawn() -> None:
    program = """
from rich.console import Console
from rich.progress import track
for _ in track(range(3), "work"):
    pass
Console().print("[red]a < b[/] [bold]é●[/]")
"""
    picture = draw(record([sys.executable, "-c", program]))
    lines = drawn_lines(picture)
    assert lines[-1] == "a < b é●"
    assert "work" in lines[0] and "100%" in lines[0]
    assert f'style="fill:{recording.COLOURS[1]}">a &lt; b<' in picture
    assert 'class="b">é●<' in picture


def test_what_names_this_machine_is_not_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def recorded(command: list[str]) -> list[recording.Row]:
        screen = Screen()
        screen.feed(f"written to {recording.ROOT}/build", 0.0)
        return screen.rows

    monkeypatch.setattr(recording, "record", recorded)
    monkeypatch.setattr(recording, "PICTURE", tmp_path / "demo.svg")
    with pytest.raises(ValueError, match="the picture is not written"):
        recording.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "page", "link"), [(PICTURE, "demo.md", "../tests/demo.svg"), (SHOP_PICTURE, "tutorial.md", "shop.svg")]
)
def test_pictures_are_whole_and_small(file: Path, page: str, link: str) -> None:
    picture = file.read_text(encoding="utf-8")
    assert len(picture.encode()) < 200_000
    text = "\n".join(drawn_lines(picture))
    for step in ("Train MIND", "Index: build", "SERVING", "MIND, served", "Go on with"):
        assert step in text
    assert not re.search(r"(^|[\s'\"=])/\w+/|~/|://(?!127)", text)
    assert f"]({link})" in (recording.ROOT / "docs" / page).read_text(encoding="utf-8")

"""`make recording`: the demo in a terminal, drawn as an animated SVG. Needs no service and no recorder.

It draws two pictures: the demo on MovieLens, and on the files of the shop of the tutorial.

A line of the picture is what the terminal showed there last, so a finished progress bar stands for all its updates.
"""

import fcntl
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from tests import ROOT
from tests.shop import write_shop

PICTURE = ROOT / "tests" / "demo.svg"
SHOP_PICTURE = ROOT / "docs" / "shop.svg"
SHOP = Path("build/shop")
COLUMNS, SHOWN_ROWS = 104, 34
LINE_S, LONGEST_PAUSE_S, END_S = 0.08, 1.2, 8.0
"""Seconds that every line gets at least, that the demo's own waiting is cut to, and that the end stays."""

FONT_PX, CHARACTER_PX, ROW_PX, MARGIN_PX = 14, 8.4, 17, 16
COLOURS = ["#484f58", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#c9d1d9"]
BACKGROUND, FOREGROUND = "#0d1117", "#e6edf3"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


THEME = TerminalTheme(_rgb(BACKGROUND), _rgb(FOREGROUND), [_rgb(colour) for colour in COLOURS])


@dataclass
class Row:
    """One line of the terminal: characters with the escape sequences of their looks, and when it was last new."""

    cells: list[tuple[str, str]] = field(default_factory=list)
    at_s: float = 0.0

    def put(self, column: int, text: str, look: str) -> None:
        """Write over what is there."""
        self.cells += [(" ", "")] * (column - len(self.cells))
        self.cells[column : column + len(text)] = [(character, look) for character in text]

    @property
    def ansi(self) -> str:
        """The line as a terminal would be sent it."""
        runs = groupby(self.cells, key=itemgetter(1))
        return "".join(f"\x1b[0m{look}{''.join(character for character, _ in run)}" for look, run in runs)


class Screen:
    """As much of a terminal as our commands use: returns, line feeds, the cursor up, erasing a line, and looks."""

    _TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")

    def __init__(self) -> None:
        self.rows = [Row()]
        self._row = self._column = 0
        self._look = ""

    def feed(self, text: str, at_s: float) -> None:
        """Show what a program printed."""
        for token in self._TOKEN.finditer(text):
            numbers, letter = token[1], token[2]
            if token[0] == "\r":
                self._column = 0
            elif token[0] == "\n":
                self._row += 1
                if self._row == len(self.rows):
                    self.rows.append(Row(at_s=at_s))
            elif letter == "A":
                self._row = max(0, self._row - int(numbers or 1))
            elif letter == "K":
                self.rows[self._row].cells.clear()
            elif letter == "m":
                self._look = "" if numbers in ("", "0") else f"{self._look}{token[0]}"
            elif letter is None:
                self._print(token[0], at_s)

    def _print(self, text: str, at_s: float) -> None:
        while text:
            if self._column == COLUMNS:
                self.feed("\r\n", at_s)
            row, fits = self.rows[self._row], text[: COLUMNS - self._column]
            row.at_s = row.at_s if row.cells else at_s
            row.put(self._column, fits, self._look)
            self._column += len(fits)
            text = text[len(fits) :]


def record(command: list[str]) -> list[Row]:
    """What a command shows in a terminal of its own. Raises CalledProcessError if it fails."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", SHOWN_ROWS, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    started, screen = time.monotonic(), Screen()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=kept | {"TERM": "xterm-256color"}
    ) as process:
        os.close(follower)
        for text in _read(leader):
            screen.feed(text, time.monotonic() - started)
            sys.stdout.write(text)
            sys.stdout.flush()
    os.close(leader)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return screen.rows


def _read(leader: int) -> Iterator[str]:
    """Text from the terminal in whole lines or sequences, until the last program has closed it."""
    rest = b""
    while True:
        try:
            read = os.read(leader, 65536)
        except OSError:  # what Linux says when nobody holds the other end
            break
        if not read:
            break
        rest += read
        cut = re.search(rb"(\x1b\[?[\d;?]*|[\xc0-\xff][\x80-\xbf]{0,2})$", rest)  # half a sequence or character
        end = cut.start() if cut else len(rest)
        yield rest[:end].decode(errors="replace")
        rest = rest[end:]
    yield rest.decode(errors="replace")


def draw(rows: list[Row]) -> str:
    """The picture: all lines in one long column that is pushed up under a window, and a cover over what comes later."""
    while rows and not "".join(character for character, _ in rows[-1].cells).strip():
        rows = rows[:-1]
    seconds, end_s = _schedule(rows)
    pushed = [max(0, shown - SHOWN_ROWS) for shown in range(1, len(rows) + 1)]
    covered = [min(shown, SHOWN_ROWS) for shown in range(1, len(rows) + 1)]
    width = round(COLUMNS * CHARACTER_PX) + 2 * MARGIN_PX
    height = SHOWN_ROWS * ROW_PX + 2 * MARGIN_PX
    decoder, console = AnsiDecoder(), Console(width=COLUMNS, color_system="256", force_terminal=True)
    lines = [
        _line(number, [(piece.text, piece.style) for piece in decoder.decode_line(row.ansi).render(console)])
        for number, row in enumerate(rows)
    ]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 aria-label="make demo: data, training, indexing, serving, evaluation and calls in a terminal">
<style>
text {{ font: {FONT_PX}px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre;
 fill: {FOREGROUND} }}
.b {{ font-weight: bold }}
.d {{ opacity: .65 }}
#lines {{ transform: translateY({-pushed[-1] * ROW_PX}px); animation: push {end_s:.1f}s step-end infinite }}
#later {{ transform: translateY({covered[-1] * ROW_PX}px); animation: uncover {end_s:.1f}s step-end infinite }}
@keyframes push {{ {_keyframes(seconds, end_s, [-rows * ROW_PX for rows in pushed])} }}
@keyframes uncover {{ {_keyframes(seconds, end_s, [rows * ROW_PX for rows in covered])} }}
@media (prefers-reduced-motion) {{ #lines, #later {{ animation: none }} }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}" stroke="#30363d"/>
<svg x="{MARGIN_PX}" y="{MARGIN_PX}" width="{width - 2 * MARGIN_PX}" height="{SHOWN_ROWS * ROW_PX}">
<g id="lines">
{"".join(lines)}</g>
<rect id="later" width="100%" height="100%" fill="{BACKGROUND}"/>
</svg>
</svg>
"""


def _schedule(rows: list[Row]) -> tuple[list[float], float]:
    """Seconds at which each line appears, and those of the whole; long waits are cut short."""
    seconds = [0.0]
    latest = rows[0].at_s
    for row in rows[1:]:
        seconds.append(seconds[-1] + min(max(row.at_s - latest, LINE_S), LONGEST_PAUSE_S))
        latest = max(latest, row.at_s)
    return seconds, seconds[-1] + END_S


def _keyframes(seconds: list[float], end_s: float, offsets: list[int]) -> str:
    """One keyframe for every change of the offset."""
    frames, before = [], None
    for at_s, offset in zip(seconds, offsets, strict=True):
        if offset != before:
            frames.append(f"{100 * at_s / end_s:.2f}%{{transform:translateY({offset}px)}}")
        before = offset
    return "".join(frames)


def _line(number: int, pieces: list[tuple[str, Style | None]]) -> str:
    spans, column = [], 0
    for text, style in pieces:
        if text.strip():
            start = column + len(text) - len(text.lstrip())
            spans.append(_span(start, text.strip(), style or Style.null()))
        column += len(text)
    return f'<text y="{number * ROW_PX + FONT_PX - 1}">{"".join(spans)}</text>\n' if spans else ""


def _span(column: int, text: str, style: Style) -> str:
    looks = " ".join(name for name, worn in (("b", style.bold), ("d", style.dim)) if worn)
    colour = style.color.get_truecolor(THEME).hex if style.color and not style.color.is_default else ""
    return (
        f'<tspan x="{column * CHARACTER_PX:.1f}" textLength="{len(text) * CHARACTER_PX:.1f}"'
        + (f' class="{looks}"' if looks else "")
        + (f' style="fill:{colour}"' if colour else "")
        + f">{escape(text, quote=False)}</tspan>"
    )


def main() -> None:
    """Record the demo on both data sets and replace the pictures."""
    write_picture(PICTURE)
    write_shop(ROOT / SHOP)
    write_picture(SHOP_PICTURE, f"--data={SHOP}/clicks.csv", f"--items={SHOP}/items.csv", f"--directory={SHOP}")


def write_picture(file: Path, *options: str) -> None:
    """Record the demo and replace a picture. Raises ValueError if it would show something of this machine."""
    picture = draw(record([sys.executable, "-m", "tests.demo", *options]))
    for private in (str(ROOT), str(Path.home()), socket.gethostname()):
        if private in picture:
            raise ValueError(f"the demo printed {private!r}; the picture is not written")
    file.write_text(picture, encoding="utf-8")
    print(f"written to {file.name}, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

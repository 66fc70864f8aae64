"""Draws plots as SVG text for a page. The colours are CSS variables of the page, so that plots follow its theme.

This module gets the numbers to draw and knows nothing of their meaning. Each plot is about as wide as a phone, and the
page shows several side by side if there is room.
"""

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

SIZE_INCHES = (4.1, 2.7)
COLOURS = 8
"""Number of colours of the page, `--s0` to `--s7`."""
DASHES = ("", "7 3", "2 2", "7 2 2 2", "4 2", "1 3", "9 2", "5 2 1 2")
"""A line style for each colour, as SVG's stroke-dasharray."""

_PAGE = {"#0a0b01": "var(--fg)", "#0a0b02": "var(--muted)", "#0a0b03": "var(--line)"} | {
    f"#0a0c{number:02x}": f"var(--s{number})" for number in range(COLOURS)
}
_FOREGROUND, _MUTED, _LINE = list(_PAGE)[:3]
_STYLE: Any = {  # its type differs between releases of matplotlib
    "svg.fonttype": "none",
    "svg.hashsalt": "mind",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _FOREGROUND,
    "text.parse_math": False,
    "axes.labelcolor": _MUTED,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "savefig.bbox": None,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Style:
    """The appearance of one method, interest or curve in every plot and legend."""

    colour: int
    """The number of the colour on the page."""
    dashes: str = ""
    """SVG's stroke-dasharray, a pattern for readers who cannot distinguish the colours."""
    width: float = 1.6


@dataclass(frozen=True)
class Series:
    """One line: x and y of equal length, with half the height of the error bars if there are any."""

    style: Style
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    marker: str = ""


def lines(
    name: str,
    title: str,
    x_label: str,
    series: Sequence[Series],
    *,
    percent: bool = True,
    mark: float | None = None,
    x_names: Sequence[str] = (),
) -> Markup:
    """Draw lines over numbers, or over named groups in their order.

    Args:
        name: the name of the plot, unique on the page.
        title: the label of y.
        x_label: the label of x.
        series: the lines to draw.
        percent: whether y is a share.
        mark: an x to mark with a vertical line.
        x_names: the names of x = 0, 1, ...
    """
    with _figure() as (figure, axes):
        if mark is not None:
            axes.axvline(mark, color=_MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for one in series:
            colour, dashes = _colour(one.style.colour), _dashes(one.style)
            axes.plot(one.x, one.y, color=colour, linestyle=dashes, linewidth=one.style.width, marker=one.marker, ms=4)
            if one.error is not None:
                axes.errorbar(one.x, one.y, one.error, fmt="none", ecolor=colour, elinewidth=1, capsize=3, alpha=0.6)
        _label(axes, title, x_label, percent)
        if x_names:
            axes.set_xticks(range(len(x_names)), x_names)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if percent:
            axes.set_ylim(0, 1.06 * max(_top(one) for one in series) or 1)
        return _svg(figure, name, title)


def bars(
    name: str, title: str, x_label: str, groups: Sequence[str], series: Sequence[tuple[Style, Sequence[float]]]
) -> Markup:
    """Draw bars of shares, with the series side by side in each group. Each series: [groups]."""
    with _figure() as (figure, axes):
        width = 0.8 / len(series)
        for number, (style, values) in enumerate(series):
            offset = (number - (len(series) - 1) / 2) * width
            axes.bar([x + offset for x in range(len(groups))], values, 0.92 * width, color=_colour(style.colour))
        _label(axes, title, x_label, percent=True)
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(visible=False, axis="x")
        return _svg(figure, name, title)


def single_bars(
    name: str, title: str, x_label: str, groups: Sequence[str], values: Sequence[float], styles: Sequence[Style]
) -> Markup:
    """Draw one bar of a share for each group, in its own colour, with the share written above."""
    with _figure() as (figure, axes):
        axes.bar(range(len(groups)), values, 0.7, color=[_colour(style.colour) for style in styles])
        for x, value in enumerate(values if len(values) <= 8 else ()):
            axes.annotate(f"{100 * value:.0f} %", (x, value), (0, 2), textcoords="offset points", ha="center")
        _label(axes, title, x_label, percent=True)
        if len(groups) <= 8:
            axes.set_xticks(range(len(groups)), groups)
        axes.set_ylim(0, 1.15 * max(max(values), 0.01))
        axes.grid(visible=False, axis="x")
        return _svg(figure, name, title)


def histogram(
    name: str, title: str, x_label: str, edges: Sequence[float], counts: Sequence[int], style: Style
) -> Markup:
    """Draw the counts in bins. `edges`: [B + 1]; `counts`: [B]."""
    with _figure() as (figure, axes):
        widths = [right - left for left, right in itertools.pairwise(edges)]
        axes.bar(edges[:-1], counts, [0.92 * width for width in widths], align="edge", color=_colour(style.colour))
        _label(axes, title, x_label, percent=False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(edges[0], edges[-1])
        axes.grid(visible=False, axis="x")
        return _svg(figure, name, title)


def matrix(name: str, title: str, x_label: str, values: Sequence[Sequence[float]], style: Style) -> Markup:
    """Draw a square of shares, darker if higher, with numbers if there is room. `values`: [K, K]."""
    count = len(values)
    with _figure() as (figure, axes):
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                axes.bar(
                    column, 0.94, 0.94, row - 0.47, color=_colour(style.colour), alpha=max(0.0, min(value, 1.0)) * 0.55
                )
                if count <= 8:
                    axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center")
        _label(axes, title, x_label, percent=False)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, name, title)


@contextmanager
def _figure() -> Iterator[tuple[Figure, Axes]]:
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the measuring font lacks
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _top(series: Series) -> float:
    return max(y + error for y, error in zip(series.y, series.error or [0.0] * len(series.y), strict=True))


def _label(axes: Axes, title: str, x_label: str, percent: bool) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    if percent:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _colour(number: int) -> str:
    return f"#0a0c{number % COLOURS:02x}"


def _dashes(style: Style) -> str | tuple[float, list[float]]:
    return (0, [float(part) / style.width for part in style.dashes.split()]) if style.dashes else "-"


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """Return the SVG of a drawing for the page, without prolog and fixed size, with unique ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', lambda match: f"{match[1]}{name}-", text)
    for placeholder, variable in _PAGE.items():
        text = text.replace(placeholder, variable)
    width, height = (72 * inches for inches in SIZE_INCHES)
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">{escape(title)}</title>'
    )
    return Markup(opening + text[text.index(">") + 1 :])  # noqa: S704  what matplotlib wrote is escaped

"""A load test as one HTML page without other files: figures, a histogram, and percentiles up to the longest latency."""

import math
from collections.abc import Sequence
from html import escape

from clients.bench.latency import PERCENTS, Latency
from clients.bench.summary import Row, Summary, described, own_limit

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 260, 64, 34
_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --ink: #1f6feb; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; } .note { color: #b35900; font-weight: 600; } .dim { opacity: .7; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.axis { stroke: currentColor; opacity: .25; } .bar { fill: var(--ink); } .line { stroke: var(--ink); fill: none; }
"""


def page(summary: Summary) -> str:
    """Return the HTML document."""
    outcome, total = summary.outcome, summary.total
    info = outcome.info
    models = ", ".join(sorted(outcome.model_versions)) or "none answered"
    limit = own_limit(summary)
    parts = [
        f"<h1>Load test of {escape(info.collection)}</h1>",
        f"<p>{escape(described(summary))}</p>",
        f"<p class=dim>Histories: {escape(outcome.users_from)}. Server {escape(info.server_version)}, model "
        f"{escape(models)}. Latency counts from when a request was due.</p>",
        f"<p class=note>{escape(limit)}</p>" if limit else "",
        _table(summary),
        _counts("Failed requests", total.failed),
        _counts("Answered users", total.statuses),
    ]
    if len(total.latency):
        parts += ["<h2>Latency</h2>", _histogram(total.latency), "<h2>Percentiles</h2>", _spectrum(total.latency)]
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Load test</title><style>{_STYLE}</style>\n" + "\n".join(part for part in parts if part) + "\n</html>\n"
    )


def _table(summary: Summary) -> str:
    headings = ["Requests of", "requests", "failed", "users/s", *(f"p{each:g} ms" for each in PERCENTS), "max ms"]
    rows = summary.shapes if len(summary.shapes) == 1 else [*summary.shapes, summary.total]
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><tr>{head}</tr>{''.join(map(_table_row, rows))}</table>"


def _table_row(row: Row) -> str:
    latencies = [row.latency.percentile_ms(percent) for percent in PERCENTS] + [row.latency.max_ms]
    shown = [f"{ms:,.1f}" if len(row.latency) else "" for ms in latencies]
    cells = [escape(row.title), f"{row.requests:,}", f"{row.failed_percent:.2g} %", f"{row.users_per_s:,.0f}", *shown]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _counts(title: str, counts: dict[str, int]) -> str:
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return f"<p>{title}: {', '.join(f'{number:,} {escape(name)}' for name, number in ordered)}</p>"


def _histogram(latency: Latency) -> str:
    """Draw requests by latency. A bucket that is not empty is always visible."""
    buckets = latency.buckets()
    most = max(bucket.count for bucket in buckets)
    step = (_WIDTH - _LEFT - 20) / len(buckets)
    marks = []
    for number, bucket in enumerate(buckets):
        height = max((_HEIGHT - _BOTTOM - 10) * bucket.count / most, 1.5 if bucket.count else 0)
        x = _LEFT + number * step
        marks.append(
            f"<rect class=bar x={x:.1f} y={_HEIGHT - _BOTTOM - height:.1f} width={max(step - 1, 1):.1f} "
            f"height={height:.1f}><title>up to {bucket.to_ms:g} ms: {bucket.count:,} requests</title></rect>"
        )
        if number % (len(buckets) // 12 + 1) == 0:
            marks.append(_label(x + step, _HEIGHT - _BOTTOM + 14, f"{bucket.to_ms:.3g}", "middle"))
    return _picture("Requests by latency", "latency, ms", [(most, 1.0)], marks)


def _spectrum(latency: Latency) -> str:
    """Draw latency by percentile. Each further nine has the same width, as in plots of HdrHistogram."""
    points = [(_nines(min(percent, _last(latency))), ms) for percent, ms in latency.spectrum()]
    widest, most = max(x for x, _ in points) or 1.0, latency.max_ms
    width, height = _WIDTH - _LEFT - 20, _HEIGHT - _BOTTOM - 10
    path = " ".join(
        f"{_LEFT + width * x / widest:.1f},{_HEIGHT - _BOTTOM - height * ms / most:.1f}" for x, ms in points
    )
    marks = [f'<polyline class=line stroke-width=2 points="{path}"/>']
    for nines in range(math.floor(widest) + 1):
        x = _LEFT + width * nines / widest
        marks.append(_label(x, _HEIGHT - _BOTTOM + 14, f"{100 - 100 / 10**nines:.{max(nines - 2, 0)}f}", "middle"))
        marks.append(f"<line class=axis x1={x:.1f} x2={x:.1f} y1=10 y2={_HEIGHT - _BOTTOM} />")
    return _picture("Latency by percentile", "percent of the requests", [(most, 1.0), (most / 2, 0.5)], marks)


def _last(latency: Latency) -> float:
    """Return the percentage of all samples but the longest, where the axis ends."""
    return 100 - 100 / max(len(latency), 2)


def _nines(percent: float) -> float:
    """Count nines: 90 is 1, 99 is 2, 99.9 is 3."""
    return -math.log10(max(1 - percent / 100, 1e-12))


def _picture(title: str, below: str, heights: Sequence[tuple[float, float]], marks: Sequence[str]) -> str:
    """Draw an SVG picture with an axis, labels at shares of its height, and marks."""
    floor = _HEIGHT - _BOTTOM
    labels = [_label(_LEFT - 6, floor - (floor - 10) * share + 4, f"{value:,.3g}", "end") for value, share in heights]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{title}">'
        f"<line class=axis x1={_LEFT} x2={_WIDTH} y1={floor} y2={floor} />"
        f"{''.join(labels)}{_label(_WIDTH / 2, _HEIGHT - 4, below, 'middle')}{''.join(marks)}</svg>"
    )


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{escape(text)}</text>"

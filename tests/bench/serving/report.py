"""What the serving benchmark shows: tables, and latency against load as a picture."""

from pathlib import Path

from rich import box
from rich.table import Table

from tests.bench.serving.bench import Row


def closed(rows: list[Row]) -> Table:
    """Callers that wait for their answer, with both ratios."""
    table = _table("Closed loop", "callers", "x article", "of floor")
    cells: dict[tuple[int, str], dict[str, Row]] = {}
    for row in rows:
        cells.setdefault((row.users, row.load), {})[row.subject] = row
    for cell in cells.values():
        for number, row in enumerate(cell.values()):
            article, floor = (row.users_per_s / cell[name].users_per_s for name in ("article", "floor"))
            table.add_row(*_cells(row), f"{article:.2f}", f"{floor:.0%}", end_section=number == len(cell) - 1)
    return table


def opened(rows: list[Row]) -> Table:
    """Requests that come at random."""
    table = _table("Open loop: Poisson arrivals at a share of what the closed loop gave", "load")
    for number, row in enumerate(rows):
        table.add_row(*_cells(row), end_section=number % 2 == 1)
    return table


def overload(rows: list[Row], deadline_s: float) -> Table:
    """Goodput when far too much is asked."""
    title = f"Overload, deadline {deadline_s * 1000:.0f} ms: users/s and latency of what was answered in time"
    table = _table(title, "load", "of peak")
    table.add_column("statuses")
    for peak, flood in zip(rows[::2], rows[1::2], strict=True):
        for row in (peak, flood):
            outcomes = "\n".join(f"{status} {calls:,}" for status, calls in sorted(row.outcomes.items()))
            share = f"{row.users_per_s / peak.users_per_s:.0%}"
            table.add_row(*_cells(row), share, outcomes, end_section=row is flood)
    return table


def tuned(rows: list[Row]) -> Table:
    """What a chosen way to search serves, beside the other one, which comes first in each pair of rows."""
    table = _table(f"{rows[0].subject} and {rows[1].subject}, closed loop", "callers", f"x {rows[0].subject}")
    for other, chosen in zip(rows[::2], rows[1::2], strict=True):
        for row in (other, chosen):
            ratio = row.users_per_s / other.users_per_s
            table.add_row(*_cells(row), f"{ratio:.2f}", end_section=row is chosen)
    return table


def sweep(rows: list[Row]) -> Table:
    """What a change of the request costs."""
    table = _table("Single-user requests, 64 callers", "request")
    for row in rows:
        table.add_row(*_cells(row)[:-1], "")  # recall was measured at another top_k
    return table


def mixed(rows: list[Row], shapes: int) -> Table:
    """What requests cost that differ; the first of so many `shapes` under each load are alike."""
    table = _table("Single-user requests that differ", "requests; load", "of alike", "p99")
    table.columns[2].no_wrap = True
    for number, row in enumerate(rows):
        alike = rows[number // shapes * shapes]
        ratios = f"{row.users_per_s / alike.users_per_s:.0%}", f"{row.p99_ms / alike.p99_ms:.2f}"
        table.add_row(*_cells(row)[:-1], "", *ratios, end_section=number % shapes == shapes - 1)
    return table


def _table(title: str, load: str, *ratios: str) -> Table:
    """CPU is processor time per 1,000 users: of the service, of Milvus, of the load generator."""
    table = Table(title=f"{title}; CPU in s per 1,000 users", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    numbers = ["users", load, "users/s", "p50 ms", "p95 ms", "p99 ms"]
    numbers += ["CPU", "Milvus", "load", "busy", "recall", *ratios]
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _cells(row: Row) -> list[str]:
    latency = [f"{value:.1f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms)]
    cost = [f"{value:.2f}" for value in (row.service_cpu, row.milvus_cpu, row.load_cpu)]
    rates = [f"{row.users_per_s:,.0f}", *latency, *cost, f"{row.load_busy:.0%}", f"{row.recall:.4f}"]
    return [row.subject, str(row.users), row.load, *rates]


def plot(rows: list[Row], file: Path) -> None:
    """Latency against load: p50 as a line, up to p99 as a band, one colour a subject."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for colour, subject in zip(("#1f6feb", "#d1622b"), dict.fromkeys(row.subject for row in rows), strict=True):
        own = [row for row in rows if row.subject == subject]
        load = [row.users_per_s for row in own]
        axes.plot(load, [row.p50_ms for row in own], "o-", color=colour, label=f"{subject}: p50, band to p99")
        axes.fill_between(load, [row.p50_ms for row in own], [row.p99_ms for row in own], color=colour, alpha=0.2, lw=0)
    axes.set(yscale="log", xlabel="users/s, single-user requests at random", ylabel="latency, ms")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})


def pairs(title: str, what: str, rows: list[Row]) -> Table:
    """Pairs of rows under each load: one without `what`, or with the plain kind of it, and one with it."""
    shown = Table(title=title, title_justify="left")
    spent_on = "cpu s / 1,000: server", "with Milvus", "of the first"
    for heading in ("users", "callers", what, "users/s", "of the first", "p50 ms", "p99 ms", *spent_on):
        shown.add_column(heading, justify="right")
    for plain, other in zip(rows[::2], rows[1::2], strict=True):
        for row in (plain, other):
            cells = f"{row.users}", row.load, row.subject, f"{row.users_per_s:,.0f}"
            ratio = f"{row.users_per_s / plain.users_per_s:.1%}"
            spent = row.service_cpu + row.milvus_cpu
            more = f"{spent / (plain.service_cpu + plain.milvus_cpu):.1%}"
            took = f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}"
            shown.add_row(*cells, ratio, *took, f"{row.service_cpu:.3f}", f"{spent:.3f}", more)
    return shown

"""What a terminal shows of a load test: a progress bar, then tables and a histogram."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from clients.bench.latency import PERCENTS, Latency
from clients.bench.load import Plan, Report
from clients.bench.summary import Row, Summary, described, own_limit

_BAR = 40
"""Characters of the longest bar of the histogram."""


@contextmanager
def load_bar(plan: Plan) -> Iterator[Report]:
    """Show a progress bar on a terminal. Yield the function that the load test reports to."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[says]}"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("connecting", total=plan.warm_up_s + plan.duration_s, says="")

        def report(passed_s: float, ended: int, failed: int) -> None:
            says = f"{ended:,} requests" + (f", {failed:,} failed" if failed else "")
            stage = "warming up" if passed_s < plan.warm_up_s else "measuring"
            progress.update(task, completed=passed_s, description=stage, says=says)

        yield report


def summary_view(summary: Summary) -> RenderableType:
    """Show the load, its results, and figures that may not be those of the service."""
    outcome, total = summary.outcome, summary.total
    models = ", ".join(sorted(outcome.model_versions)) or "none answered"
    remarks = [
        Text(described(summary)),
        Text(f"histories: {outcome.users_from}; model {models}", style="dim"),
    ]
    notes = [Text(f"failed: {_counted(total.failed, 'requests')}", style="red")] if total.failed else []
    if total.statuses:
        notes.append(Text(f"users: {_counted(total.statuses)}"))
    if limit := own_limit(summary):
        notes.append(Text(limit, style="bold yellow"))
    return Group(*remarks, _table(summary), *notes, *([_histogram(total.latency)] if len(total.latency) else []))


def _table(summary: Summary) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption="latency in ms", caption_justify="right"
    )
    table.add_column("", min_width=16)
    for heading in ("requests", "failed", "users/s", *(f"p{percent:g}" for percent in PERCENTS), "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = summary.shapes if len(summary.shapes) == 1 else [*summary.shapes, summary.total]
    for row in rows:
        table.add_row(Text(row.title), *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    latencies = [row.latency.percentile_ms(percent) for percent in PERCENTS] + [row.latency.max_ms]
    shown = [f"{ms:,.1f}" for ms in latencies] if len(row.latency) else [""] * len(latencies)
    failed = f"{row.failed_percent:.2g} %" if row.failed else "0"
    return [f"{row.requests:,}", failed, f"{row.users_per_s:,.0f}", *shown]


def _histogram(latency: Latency) -> Table:
    """Draw a row for each bucket. A bucket that is not empty has a mark."""
    buckets = latency.buckets()
    most = max(bucket.count for bucket in buckets)
    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading in ("up to ms", "requests", "of all"):
        table.add_column(heading, justify="right", no_wrap=True, header_style="")
    table.add_column("", no_wrap=True)
    for bucket in buckets:
        length = max(round(_BAR * bucket.count / most), 1) if bucket.count else 0
        bar = Text("■" * length, style="cyan")
        table.add_row(f"{bucket.to_ms:,.3g}", f"{bucket.count:,}", f"{bucket.share:.3%}", bar)
    return table


def _counted(names: Counter[str], unit: str = "") -> str:
    return ", ".join(f"{number:,} {name}" for name, number in names.most_common()) + (f" ({unit})" if unit else "")

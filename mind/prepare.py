"""The command that prepares data: `python -m mind.prepare movielens-100k --output data/movielens-100k`."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from mind.extras import missing

if line := missing("train", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mind.command import Version, run
from mind.data.ages import ages_of, forget_ages, write_ages
from mind.data.clicks import OnProgress, read_interactions
from mind.data.datasets import DATASETS, check_no_name
from mind.data.days import count_days, write_days
from mind.data.download import fetch
from mind.data.heavy_users import heavy_users
from mind.data.held import Held
from mind.data.ids import IdKind, KeyTable
from mind.data.interactions import Interactions, Report
from mind.data.left_out import FEW, add_few, without_old, without_users
from mind.data.losses import parts_of
from mind.data.prepared import write_split
from mind.data.quotes import Quote
from mind.data.split import Split, SplitKind
from mind.data.tables import CsvOptions
from mind.data.targets import Assigned
from mind.data.time_units import TimeUnit
from mind.events import Events
from mind.prepare_kinds import (
    KINDS,
    EventOption,
    EventsFile,
    ExcludeOption,
    HistoryOption,
    OncePerOption,
    TargetOption,
    assigned,
    events_of,
    record_of,
)
from mind.prepare_report import summary, tell_dropped_users, tell_fresh_users, tell_heavy_users
from mind.spark.task import Task

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)

FILES, NAMES, SPLIT = "For a file", "For data by name", "For all but amazon-book, which comes split"
CLUSTER = "On a cluster"


class Engine(StrEnum):
    """What prepares the data."""

    LOCAL = "local"
    SPARK = "spark"


EPILOG = """Examples:

python -m mind.prepare movielens-1m --output data/movielens-1m

python -m mind.prepare amazon-book --output data/amazon-book --archive ~/Downloads/AmazonBook.tar.gz

python -m mind.prepare clicks.csv --output data/mine

python -m mind.prepare 'clicks/2026-*.jsonl.gz' --output data/mine

python -m mind.prepare clicks.csv --output data/mine --user who --item what --time since

python -m mind.prepare ratings.tsv --output data/mine --header user_id,item_id,rating,timestamp

python -m mind.prepare clicks.csv --output data/mine --event kind --target buy=3,cart=1 --exclude return --once-per 30m

python -m mind.prepare movielens-100k --output data/liked --event rating --target '>=4'"""


@app.command(epilog=EPILOG)
def main(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILES|NAME",
            help="CSV, JSON lines (both may be compressed) or Parquet with one row per interaction: a file, a "
            "directory, a pattern in quotes, or a URL such as s3://bucket/clicks/. Or the name of a public data set, "
            "which is downloaded: movielens-100k, movielens-1m, amazon-book.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Directory that receives train/, valid/ and test/.")],
    user: Annotated[
        str | None,
        typer.Option(
            help="Column of user ids. By default, a column with a usual name such as customer_id.",
            rich_help_panel=FILES,
        ),
    ] = None,
    item: Annotated[
        str | None,
        typer.Option(
            help="Column of item ids. By default, a column with a usual name such as sku.", rich_help_panel=FILES
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Column of times (integers, floats or ISO 8601). By default, a column with a usual name such as "
            "created_at.",
            rich_help_panel=FILES,
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="Delimiter of a CSV file: `tab`, one character, or several such as `::`. By default, it is detected.",
            rich_help_panel=FILES,
        ),
    ] = None,
    header: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,..",
            help="Names of all columns, for a CSV file without a header line.",
            rich_help_panel=FILES,
        ),
    ] = None,
    quote: Annotated[
        Quote,
        typer.Option(
            help='How to read `"` in a CSV file. auto: it quotes values, which may span lines; a value that contains '
            "lines that look like rows is refused. always: it quotes values. none: it is an ordinary character.",
            rich_help_panel=FILES,
        ),
    ] = Quote.AUTO,
    time_unit: Annotated[
        TimeUnit | None,
        typer.Option(
            help="Unit of times that are numbers since 1970. By default, it is detected, and a column that mixes two "
            "units is refused.",
            rich_help_panel=FILES,
        ),
    ] = None,
    ids: Annotated[
        IdKind,
        typer.Option(
            help="Type of ids. auto: text if a column has values that are no integers or have leading zeros, otherwise "
            "64-bit integers.",
            rich_help_panel=FILES,
        ),
    ] = IdKind.AUTO,
    max_malformed: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Maximum share of rows that may be malformed or lack a value.",
            rich_help_panel=FILES,
        ),
    ] = 0.01,
    cache_dir: Annotated[
        Path,
        typer.Option(help="Directory for downloads. An interrupted download continues.", rich_help_panel=NAMES),
    ] = Path("data/downloads"),
    archive: Annotated[
        Path | None,
        typer.Option(
            help="Copy of the archive, to read instead of a download: ml-100k.zip or "
            "recbole-1.2.1-py3-none-any.whl, ml-1m.zip, AmazonBook.tar.gz.",
            rich_help_panel=NAMES,
        ),
    ] = None,
    min_interactions: Annotated[
        int, typer.Option(min=2, help="Leave out users with fewer interactions.", rich_help_panel=SPLIT)
    ] = 5,
    max_user_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Leave out users with more than this share of all interactions. A share above a half is warned of.",
            rich_help_panel=SPLIT,
        ),
    ] = 1,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW|DATE",
            help="Leave out older interactions: 90d (h, d, w) counts back from the newest interaction; or a date. The "
            "popular fallback then counts only this window.",
            rich_help_panel=SPLIT,
        ),
    ] = None,
    keep_ages: Annotated[
        bool,
        typer.Option(
            "--keep-ages",
            help="Also write the age of each click, for hyper_parameters.half_life_days and trending_days.",
            rich_help_panel=SPLIT,
        ),
    ] = False,
    split_by: Annotated[
        SplitKind,
        typer.Option(
            "--split",
            help="Data held out for validation and test. users: a tenth of the users for each. time: all interactions "
            "from --valid-from and from --test-from on. last-out: the last clicks of every user.",
            rich_help_panel=SPLIT,
        ),
    ] = SplitKind.USERS,
    valid_from: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="With --split time: the first day of validation, such as 2014-06-01.",
            rich_help_panel=SPLIT,
        ),
    ] = None,
    test_from: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="With --split time: the first day of the test.", rich_help_panel=SPLIT),
    ] = None,
    last: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --split last-out: how many clicks of each user are held out for the test, and for validation.",
            rich_help_panel=SPLIT,
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="With --split users: the seed of the shuffle.", rich_help_panel=SPLIT)
    ] = 2024,
    event: EventOption = None,
    history: HistoryOption = None,
    target: TargetOption = None,
    exclude: ExcludeOption = None,
    once_per: OncePerOption = None,
    config: EventsFile = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="local: this process. spark: a Spark cluster, or Spark on this machine, for more clicks than one "
            "machine can hold. It needs Java and the extra spark.",
            rich_help_panel=CLUSTER,
        ),
    ] = Engine.LOCAL,
    master: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine spark: the cluster, such as spark://host:7077, or local[2]. By default, that of "
            "spark-submit, or else all cores of this machine.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    version: Version = False,
) -> None:
    """Turn interactions into training and evaluation data.

    Users are shuffled and split 8:1:1 into train, valid and test (the protocol of ComiRec). The first 80 % of a
    held-out user's items are the history, and the model must find the rest. amazon-book keeps the split of ComiRec.
    --split time and --split last-out hold out clicks instead of users: training uses no later click of anybody, and the
    history of a test user is everything before the held-out clicks.

    Interactions are sorted by time. Duplicates are dropped. Malformed rows are skipped and reported with their lines.
    The printed numbers add up to the lines of the file, and a table counts what the model never learns from, and why.
    """
    how = Held(split_by, valid_from, test_from, last, seed)
    _check_split(context, how)
    events = events_of(config, event, history, target, exclude, once_per)
    options = CsvOptions("\t" if delimiter == "tab" else delimiter, header.split(",") if header else None, quote)
    if engine is Engine.SPARK:
        _refuse_on_spark(context, source, output, events)
        held = (how, min_interactions, max_user_share, since, events.once_per)
        _on_spark(Task(source, (user, item, time), options, time_unit, ids, max_malformed, *held), output, master)
        return
    if master is not None:
        raise typer.BadParameter("belongs to --engine spark", param_hint="--master")
    items = None
    keys: tuple[KeyTable | None, KeyTable | None] = None, None
    left_out: dict[str, Interactions] = {}
    recorded: dict[str, Any] = {}
    days: dict[str, int] = {}
    if dataset := DATASETS.get(source):
        _refuse(context, source, [FILES, SPLIT, KINDS] if dataset.comes_split else [FILES])
        data = dataset.read(archive or fetch(source, dataset.sources, cache_dir), events)
        if isinstance(data, Split):
            parts = data
            forget_ages(output)
        else:
            items, interactions, report = data.items, data.interactions, data.report
    else:
        _refuse(context, "a file", [NAMES])
        check_no_name(source)
        with _progress() as on_progress:
            interactions, report = read_interactions(
                source,
                user,
                item,
                time,
                delimiter=options.delimiter,
                header=options.header,
                quote=quote,
                time_unit=time_unit,
                max_malformed=max_malformed,
                ids=ids,
                events=events,
                on_progress=on_progress,
            )
        keys = interactions.user_keys, interactions.item_keys
    if not (dataset and dataset.comes_split):
        days = count_days(interactions.timestamp, report.time_unit)
        given = assigned(interactions, report, events, console)
        parts, left_out, interactions = _split(given, report, how, since, min_interactions, max_user_share)
        recorded = record_of(report, events, given)
        _write_ages(output, interactions, report, how, min_interactions, left_out, keep_ages)
        del interactions, given  # before files are written
    few = next((lost for cause, lost in left_out.items() if cause.startswith(FEW)), None)
    write_split(output, parts, items, keys, few.sequences() if few else None, recorded)
    write_days(output, days)
    console.print(summary(parts_of(parts, left_out)))
    console.print(f"written to {output}", markup=False, soft_wrap=True)


def _write_ages(
    output: Path,
    interactions: Interactions,
    report: Report,
    how: Held,
    min_interactions: int,
    left_out: Mapping[str, Interactions],
    wanted: bool,
) -> None:
    """Write the ages of the clicks that were split and of users with too few clicks, or delete old files of ages."""
    if not wanted:
        forget_ages(output)
        return
    newest = interactions.timestamp.max()
    ages = how.split(ages_of(interactions, newest, report.time_unit), report.time_unit, min_interactions)
    few = [ages_of(lost, newest, report.time_unit) for cause, lost in left_out.items() if cause.startswith(FEW)]
    write_ages(output, ages, few[0].sequences() if few else None)


def _on_spark(task: Task, output: Path, master: str | None) -> None:
    if line := missing("spark", "pyspark"):
        sys.exit(line)
    from mind.spark.job import prepare  # Spark is an extra of its own

    parts = prepare(task, output, master, console)
    console.print(summary(parts))
    console.print(f"written to {output}", markup=False, soft_wrap=True)


def _refuse_on_spark(context: typer.Context, source: str, output: Path, events: Events) -> None:
    """Refuse what only one machine prepares."""
    where = "--engine spark"
    _refuse(context, where, [NAMES])
    if source in DATASETS:
        raise typer.BadParameter(f"{source} is small; prepare it without this option", param_hint=where)
    if events.column:
        raise typer.BadParameter("does not read kinds of interactions; prepare them on one machine", param_hint=where)
    if context.params["keep_ages"]:
        raise typer.BadParameter("does not write ages; prepare them on one machine", param_hint="--keep-ages")
    since = context.params["since"]
    if events.once_per and since and not since[:4].isdigit():
        raise typer.BadParameter(
            f"takes a date beside --once-per, not {since}, because the newest interaction may be a repeat",
            param_hint=f"--since with {where}",
        )
    if re.match("[a-z0-9+]+:/", str(output)):
        raise typer.BadParameter(
            f"is {output}, must be a directory that all machines of the cluster share", param_hint="--output"
        )
    check_no_name(source)


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Show a progress bar of the bytes that were read, on a terminal."""
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


def _refuse(context: typer.Context, source: str, panels: Sequence[str]) -> None:
    """Refuse options of the command line that would be ignored."""
    for option in context.command.params:
        if _is_given(context, option.name or "") and getattr(option, "rich_help_panel", None) in panels:
            raise typer.BadParameter(f"does not apply to {source}", param_hint=option.opts[0])


def _check_split(context: typer.Context, how: Held) -> None:
    """Refuse options of other kinds of splits, and dates that are missing."""
    own = {"valid_from": SplitKind.TIME, "test_from": SplitKind.TIME, "last": SplitKind.LAST_OUT}
    for name, kind in (own | {"seed": SplitKind.USERS}).items():
        if _is_given(context, name) and kind is not how.kind:
            option = "--" + name.replace("_", "-")
            raise typer.BadParameter(f"belongs to --split {kind}, not to --split {how.kind}", param_hint=option)
    if how.kind is SplitKind.TIME and not (how.valid_from and how.test_from):
        raise typer.BadParameter("needs --valid-from and --test-from", param_hint="--split time")


def _is_given(context: typer.Context, name: str) -> bool:
    origin = context.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


def _split(
    given: Assigned,
    report: Report,
    how: Held,
    since: str | None,
    min_interactions: int,
    max_user_share: float,
) -> tuple[Split, dict[str, Interactions], Interactions]:
    """Return the split, the interactions that are left out of it by cause, and those that were split."""
    interactions, left_out = given.interactions, dict(given.left_out)
    if since is not None:
        interactions = without_old(interactions, since, interactions.timestamp.max(), report.time_unit, left_out)
    heavy, keys = heavy_users(interactions, min(max_user_share, 0.5)), interactions.user_keys
    tell_heavy_users(console, heavy, keys.name if keys else lambda user: user, max_user_share)
    dropped = [user.user_id for user in heavy if user.share > max_user_share]
    interactions = without_users(interactions, dropped, max_user_share, left_out)
    parts = how.split(interactions, report.time_unit, min_interactions)
    if parts.dropped_users:
        least = how.least(min_interactions)
        tell_dropped_users(console, parts.dropped_users, least)
        add_few(interactions, least, left_out)
    if parts.aside is not None and len(parts.aside):
        left_out["held out, no target"] = parts.aside
    if parts.histories_are_trained:
        tell_fresh_users(console, int((parts.test.history.lengths == 0).sum()), len(parts.test))
    return parts, left_out, interactions


if __name__ == "__main__":
    run(app)

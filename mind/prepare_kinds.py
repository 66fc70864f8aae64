"""The parts of `mind.prepare` for kinds of interactions: its options, the rules they make, and a table."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mind.config import explain, load_config
from mind.data.interactions import Interactions, Report
from mind.data.targets import Assigned, KindCount, assign
from mind.data.time_units import span_of
from mind.errors import ConfigError
from mind.events import Events

KINDS = "Kinds of interactions, such as views and purchases, or ratings"

EventOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column with the kind of each interaction (text) or its rating (a number).",
        rich_help_panel=KINDS,
    ),
]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND,KIND,..",
        help="Kinds that count as history, such as view,cart,buy, or conditions such as '>=3'. By default, all kinds "
        "that are not excluded.",
        rich_help_panel=KINDS,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=WEIGHT,..",
        help="Kinds that the model learns to predict, with weights, such as buy=3,cart=1, or conditions such as '>=4'. "
        "Evaluation counts them, too. Without a weight, a kind has 1. By default, the kinds of the history. Kinds "
        "that are neither history nor target are left out of the data.",
        rich_help_panel=KINDS,
    ),
]
ExcludeOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND,KIND,..",
        help="Kinds such as return,dislike, or conditions such as '<2'. Their items are never targets of the same "
        "user.",
        rich_help_panel=KINDS,
    ),
]
OncePerOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPAN",
        help="Time such as 30m (s, m, h, d, w) within which repeats of a user with the same item and kind count once. "
        "The first one counts. It also works without --event.",
        rich_help_panel=KINDS,
    ),
]
EventsFile = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--config",
        metavar="FILE",
        help="YAML configuration with a section `events` (column, history, target, exclude, once_per). These options "
        "override it.",
        rich_help_panel=KINDS,
    ),
]


def events_of(config: Path | None, *options: str | None) -> Events:
    """Return the use of kinds from the options, or else from the section `events` of the configuration.

    Raises ConfigError.
    """
    section = load_config(config).events.model_dump() if config else {}
    given = {name: option for name, option in zip(Events.model_fields, options, strict=True) if option is not None}
    try:
        return Events.model_validate(section | given)
    except ValidationError as error:
        said = explain(error, Events).removeprefix("configuration: ")
        raise ConfigError(
            re.sub(
                r"^(history|target|exclude)(?=[:.])|^once_per",
                lambda found: "--" + found[0].replace("_", "-"),
                said,
                flags=re.MULTILINE,
            )
        ) from error


def assigned(interactions: Interactions, report: Report, events: Events, console: Console) -> Assigned:
    """Print the report about a file and the result for each kind, and assign roles to the interactions."""
    console.print(str(report), markup=False, soft_wrap=True)
    span = span_of(events.once_per, report.time_unit) if events.once_per else 0
    found = assign(interactions, report.kinds, events.once_per, span)
    if found.counts:
        console.print(_table(report, found.counts))
    return found


def record_of(report: Report, events: Events, given: Assigned) -> dict[str, Any]:
    """Return what the prepared data record about kinds; empty if there is nothing."""
    if report.rules and given.interactions.roles:
        return report.rules.model_dump(mode="json") | {"roles": given.interactions.roles.rows()}
    return {"once_per": events.once_per} if events.once_per else {}


def _table(report: Report, counts: Sequence[KindCount]) -> Table:
    caption = "Repeats are left out. Excluded targets are of items that --exclude takes from the user's targets."
    table = Table(caption=caption if any(one.folded or one.kind.excludes for one in counts) else None)
    table.add_column(report.rules.column if report.rules else "kind")
    for heading in ("rows", "repeats", "history", "targets", "weight", "excluded"):
        table.add_column(heading, justify="right")
    for one in counts:
        kind, left = one.kind, one.clicks - one.folded
        history = f"{left:,}" if kind.is_history else "-"
        targets = (f"{one.targets:,}", f"{kind.weight:g}", f"{one.excluded:,}") if kind.weight else ("-", "-", "-")
        name = f"{kind.name} (excludes)" if kind.excludes else kind.name
        table.add_row(escape(name), f"{one.clicks:,}", f"{one.folded:,}", history, *targets)
    return table

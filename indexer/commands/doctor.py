"""The command `doctor`: its options and its output."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from indexer import display
from indexer.commands.status import Format
from indexer.doctor.diagnosis import Diagnosis, Result, Step
from indexer.doctor.examine import examine
from mind.milvus.connection import Connection

_STYLES = {Result.OK: "green", Result.NOTE: "yellow", Result.FAILED: "bold red", Result.SKIPPED: "dim"}


def doctor_command(
    connection: Connection,
    form: Annotated[
        Format, typer.Option("--format", help="Output format: a table for people or JSON for programs.")
    ] = Format.TABLE,
) -> None:
    """Check a Milvus: what it is, and whether builds, releases and searches work.

    The command connects, shows the version and whether our tests run on it, the
    edition and the difference of the clocks. Then it builds, searches, filters,
    changes, releases and drops a collection of 2,000 rows, and shows the time of
    each step. A step that fails says what to do next.

    It makes a database of its own for that; on Milvus Lite, or if it may not
    create one, collections with names of their own (doctor_...). It touches
    nothing else, and removes all that it made, also after Ctrl-C.

    Exit codes: 0 everything works; 1 a step failed.
    """
    diagnosis = Diagnosis(connection.shown)
    try:
        with display.progress() as on_progress:
            examine(connection, lambda name: on_progress(name, 0, 0), diagnosis)
    except KeyboardInterrupt:
        for step in diagnosis.steps[-2:]:  # of `drop` and `drop database`
            if step.result is Result.FAILED:
                display.err.print(f"{step.name}: {step.detail}", markup=False)
        raise
    if form is Format.JSON:
        print(json.dumps(_plain(diagnosis), indent=2))
    else:
        _show(diagnosis)
    if not diagnosis.ok:
        raise typer.Exit(1)


def _show(diagnosis: Diagnosis) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step", no_wrap=True)
    table.add_column("result")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    for step in diagnosis.steps:
        found = "\n".join(filter(None, (step.detail, step.next and f"-> {step.next}")))
        table.add_row(step.name, step.result, _time(step), found, style=_STYLES[step.result])
    display.line("milvus", diagnosis.milvus)
    display.out.print(table, markup=False)
    display.line("result", _summary(diagnosis))


def _time(step: Step) -> str:
    return "" if step.result is Result.SKIPPED else f"{step.seconds:.2f} s"


def _summary(diagnosis: Diagnosis) -> str:
    failed = [step.name for step in diagnosis.steps if step.result is Result.FAILED]
    says = f"failed: {', '.join(failed)}" if failed else "everything works"
    if diagnosis.version.text and not diagnosis.version.is_tested:
        says += f"; no test of ours has run on {diagnosis.version}: please send this table to the project, in an issue"
    return says


def _plain(diagnosis: Diagnosis) -> dict[str, Any]:
    steps = [vars(step) | {"seconds": round(step.seconds, 3)} for step in diagnosis.steps]
    version = {"version": diagnosis.version.text, "tested": diagnosis.version.is_tested}
    return {"milvus": diagnosis.milvus, **version, "ok": diagnosis.ok, "steps": steps}

"""The command `nightly`: its options, its output and its exit codes."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from indexer import display
from indexer.errors import IndexerError, LockedError
from indexer.nightly.config import load_nightly
from indexer.nightly.lock import locked
from indexer.nightly.metrics import write_metrics
from indexer.nightly.programs import in_words
from indexer.nightly.run import OUTCOMES, Exit, run_night
from indexer.nightly.shift import (
    FINAL,
    MODELS,
    Shift,
    build_command,
    final_command,
    prepare_command,
    train_command,
)
from indexer.nightly.state import Night, open_night
from indexer.nightly.steps import STEPS
from indexer.options import Milvus, milvus_options
from mind.errors import ConfigError, MindError
from mind.extras import missing
from mind.milvus.connection import Connection
from mind.options import variable

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers

_LIVE = "LIVE_MODEL"
"""The placeholder for the live model in commands that are only shown."""


def nightly_command(
    connection: Connection,
    servers: "Servers | None",
    config: Annotated[Path, typer.Option(help="YAML file, such as indexer/nightly.yaml, which explains every key.")],
    night: Annotated[
        datetime | None,
        typer.Option(
            "--date",
            formats=["%Y-%m-%d"],
            help="Date of the night. The default is today (UTC), or that of an unfinished night of the last 12 hours.",
            show_default=False,
        ),
    ] = None,
    from_step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP", help=f"Do this step and all later ones again: {', '.join(STEPS)}.", show_default=False
        ),
    ] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the night's figures for the textfile collector of Prometheus' node exporter.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps and their commands, and do nothing.")
    ] = False,
) -> None:
    """Prepare new clicks, train, compare with the live model, release, watch, and roll back if needed.

    One command for a scheduler. The steps: prepare the data; check them; train, from the live model's weights if
    possible; evaluate the candidate and the live model on the same newest users; gate; final (train on all clicks, if
    wanted); push the model to where servers load it; build; verify; publish and wait for every --server; watch their
    metrics; rollback, if these fall; prune.

    The gate refuses data that are too few, lack a day or name other items, and a candidate that is worse than the live
    model. Nothing is released then.

    The night releases in the channel live; it moves no other channel, and its prune keeps what others have.

    Each step prints one line of JSON. What was done is kept in the night's directory: after a kill, the same command
    goes on with the step it was in. A night that ended stays ended; --from-step does a part of it again. The directory
    has report.html, which shows what changed since the last release.

    Exit codes: 0 released; 1 a step failed, and the same command goes on with it; 2 wrong usage or configuration; 3 the
    gate refused; 4 rolled back; 5 another run holds the lock; 130 interrupted.

    [bold]Examples[/bold]

        python -m indexer nightly --config indexer/nightly.yaml --dry-run

        python -m indexer nightly --config indexer/nightly.yaml
            --milvus-uri http://127.0.0.1:19530 --server localhost:50051
    """
    try:
        settings = load_nightly(config)
    except ConfigError as error:
        _fail(str(error), Exit.USAGE)
    if from_step is not None and from_step not in STEPS:
        _fail(f"--from-step {from_step}: no such step; they are {', '.join(STEPS)}", Exit.USAGE)
    if connection.is_lite:
        _fail(
            f"--milvus-uri is {connection.shown}: one process at a time can use a Milvus Lite file, and the night "
            "shift has several beside the servers; use a Milvus server",
            Exit.USAGE,
        )
    if line := missing("train,cpu", "jinja2", "scipy", "paddle"):
        _fail(line.removeprefix("error: "), Exit.USAGE)
    wanted = night.date() if night else None
    if dry_run:
        today = open_night(settings.work_dir, wanted)
        _show(Shift(settings, today, connection, servers, {}))
        return
    try:
        with locked(settings.work_dir) as lock:
            tonight = open_night(settings.work_dir, wanted)
            if from_step:
                tonight.forget_from(from_step, list(STEPS))
            code = _run(Shift(settings, tonight, connection, servers, _environment(connection), lock), metrics_file)
    except LockedError as error:
        _fail(str(error), Exit.LOCKED)
    raise typer.Exit(code.value)


def _run(shift: Shift, metrics_file: Path | None) -> Exit:
    """Run the remaining steps. Then write report and metrics, whatever the outcome."""
    why: dict[str, str] = {}
    code = Exit.FAILED

    def on_line(line: dict[str, Any]) -> None:
        print(json.dumps(_short(line)), flush=True)
        if line["outcome"] in ("refused", "failed"):
            why["why"] = line["why"]
            display.err.print(f"{line['step']} {line['outcome']}: {line['why']}", markup=False)

    was_over = bool(shift.night.state.outcome)
    try:
        code = run_night(shift, on_line, _told(shift.night))
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
        raise
    finally:
        if not was_over:
            report = _attempt(lambda: _report(shift, code, why.get("why", "")))
            if metrics_file:
                _attempt(lambda: write_metrics(metrics_file, shift.config.work_dir, shift.night, code))
            print(json.dumps(_last_line(shift.night, code, report)), flush=True)
    if was_over:
        print(json.dumps(_last_line(shift.night, code, None) | {"note": "this night had ended before"}), flush=True)
    return code


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with each check shortened to its value and its limit. The night's directory has the full text."""
    short = {name: value for name, value in line.items() if name != "days"}
    if "checks" in line:
        short["checks"] = {one["name"]: [one["value"], one["limit"]] for one in line["checks"]}
    return short


def _last_line(night: Night, code: Exit, report: Path | None) -> dict[str, Any]:
    return {
        "night": str(night.state.date),
        "step": "night",
        "outcome": OUTCOMES.get(code, code.name.lower()),
        "exit_code": code.value,
        "seconds": round(sum(step.seconds for step in night.state.steps.values()), 1),
        "model_version": night.released_version or None,
        "report": str(report) if report else None,
    }


def _told(night: Night) -> Callable[[str], None]:
    """Return a function that prints on a terminal which step begins."""

    def on_step(name: str) -> None:
        if display.err.is_terminal:
            display.err.print(f"{night.state.date}  {name:<9} [dim]{night.directory / name}.log[/]")

    return on_step


def _report(shift: Shift, code: Exit, why: str) -> Path:
    from indexer.nightly.report import write_report  # jinja2, which no other command needs

    return write_report(shift, code, why)


def _attempt(write: Callable[[], Path | None]) -> Path | None:
    """Call a function that writes a file.

    Only print a warning if it fails, so that the outcome of the night stays the same.
    """
    try:
        return write()
    except (IndexerError, MindError, OSError) as error:
        display.err.print(f"warning: {error}", markup=False)
        return None


def _show(shift: Shift) -> None:
    """Print what each step would do."""
    commands = {
        "prepare": prepare_command(shift),
        "train": train_command(shift, _LIVE),
        "final": final_command(shift, _LIVE) if shift.config.train.final else None,
        "build": build_command(shift, shift.directory / (FINAL if shift.config.train.final else MODELS)),
    }
    display.line("night", f"{shift.night.state.date}, in {shift.directory}")
    for name, step in STEPS.items():
        done = "  (done)" if name in shift.night.state.steps else ""
        display.line(name, f"{(step.__doc__ or '').splitlines()[0]}{done}")
        if command := commands.get(name):
            more = milvus_options(shift.connection) if name == "build" else ""
            display.out.print(f"{'':<11}{in_words(command)}{more}", markup=False)


def _environment(connection: Connection) -> dict[str, str]:
    """Return variables by which the commands of the night find the same Milvus.

    Variables with an empty value are removed.
    """
    values = {
        "milvus_uri": connection.uri,
        "milvus_token": connection.token,
        "milvus_token_file": "",
        "milvus_db_name": connection.db_name,
        "milvus_ca_cert": connection.ca_cert,
        "milvus_client_cert": connection.client_cert,
        "milvus_client_key": connection.client_key,
        "milvus_server_name": connection.server_name,
        "timeout_s": connection.timeout_s,
        "wait_s": connection.wait_s,
    }
    assert values.keys() == Milvus.model_fields.keys()  # noqa: S101 - a new option must be passed on too
    return {variable(name): "" if value is None else str(value) for name, value in values.items()}


def _fail(message: str, code: Exit) -> NoReturn:
    display.err.print("[bold red]error:[/]", end=" ")
    display.err.print(message, markup=False)
    raise typer.Exit(code.value)

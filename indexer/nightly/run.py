"""Runs the steps of a night that are left, one line of what was found after each, and tells how the night ended."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from indexer.errors import IndexerError
from indexer.nightly.shift import Shift
from indexer.nightly.state import Done
from indexer.nightly.steps import STEPS, Refused
from mind.errors import MindError

Line = Callable[[dict[str, Any]], None]


class Exit(IntEnum):
    """How a night ends, by its exit code."""

    RELEASED = 0
    """A new release is live, and the watch found nothing against it."""
    FAILED = 1
    """A step failed; the same command goes on with it."""
    USAGE = 2
    """Wrong usage, or a configuration that cannot be used."""
    REFUSED = 3
    """The gate refused the data or the candidate; the live release is what it was."""
    ROLLED_BACK = 4
    """The release was published, and rolled back because of what the servers measured."""
    LOCKED = 5
    """Another run holds the lock."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; the same command goes on."""


OUTCOMES = {Exit.RELEASED: "released", Exit.REFUSED: "refused", Exit.ROLLED_BACK: "rolled back"}
"""The ends of a night; after another end it is not over."""


def run_night(shift: Shift, on_line: Line, on_step: Callable[[str], None]) -> Exit:
    """Do the steps that are left.

    Args:
        shift: the night. If it has ended before, nothing is done.
        on_line: called with what is known of each step when it ends.
        on_step: called with the name of each step when it begins.
    """
    state, night = shift.night.state, shift.night
    if state.outcome:
        return Exit(state.exit_code)
    night.save()
    for name, step in STEPS.items():
        if name in state.steps:
            continue
        on_step(name)
        started = time.monotonic()
        line: dict[str, Any] = {"night": str(state.date), "step": name}
        try:
            figures = step(shift)
        except Refused as error:
            seconds = round(time.monotonic() - started, 1)
            state.steps[name] = Done(seconds=seconds, figures=error.figures)
            on_line(line | {"outcome": "refused", "seconds": seconds, "why": str(error)} | error.figures)
            return _end(shift, Exit.REFUSED)
        except (IndexerError, MindError) as error:
            on_line(line | {"outcome": "failed", "seconds": round(time.monotonic() - started, 1), "why": str(error)})
            return Exit.FAILED
        seconds = round(time.monotonic() - started, 1)
        state.steps[name] = Done(seconds=seconds, figures=figures)
        night.save()
        on_line(line | {"outcome": "skipped" if "skipped" in figures else "done", "seconds": seconds} | figures)
    return _end(shift, Exit.ROLLED_BACK if state.fell else Exit.RELEASED)


def _end(shift: Shift, code: Exit) -> Exit:
    state = shift.night.state
    state.outcome, state.exit_code, state.ended_at = OUTCOMES[code], code.value, datetime.now(UTC)
    shift.night.save()
    return code

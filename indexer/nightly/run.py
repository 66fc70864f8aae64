"""Runs the remaining steps of a night, reports what each step found, and returns how the night ended."""

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
    """The outcome of a night. Its value is the exit code."""

    RELEASED = 0
    """A new release is live, and the watch found no fault."""
    FAILED = 1
    """A step failed. The same command continues with this step."""
    USAGE = 2
    """The usage is wrong, or the configuration cannot be used."""
    REFUSED = 3
    """The gate refused the data or the candidate. The live release did not change."""
    ROLLED_BACK = 4
    """The release was published, and then rolled back because of the servers' metrics."""
    LOCKED = 5
    """Another run holds the lock."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM stopped the night. The same command continues it."""


OUTCOMES = {Exit.RELEASED: "released", Exit.REFUSED: "refused", Exit.ROLLED_BACK: "rolled back"}
"""The outcomes after which a night is over. After any other outcome the same command continues the night."""


def run_night(shift: Shift, on_line: Line, on_step: Callable[[str], None]) -> Exit:
    """Run the remaining steps of a night.

    Args:
        shift: the shift of the night. If the night has ended before, no step is run.
        on_line: called with the line of each step when the step ends.
        on_step: called with the name of each step when the step begins.
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

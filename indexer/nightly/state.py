"""The state of a night, in the night's directory. It is written after every step, so a killed night continues."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.errors import NightlyError
from mind.config import explain

STATE = "state.json"
RESUMED_HOURS = 12
"""Hours after its begin for which an unfinished night is continued, if no date is given."""


class Done(BaseModel):
    """A step that ended well."""

    model_config = ConfigDict(extra="forbid")

    seconds: float
    figures: dict[str, Any] = {}
    """What the step found, as in its printed line."""


class State(BaseModel):
    """The state of a night."""

    model_config = ConfigDict(extra="forbid")

    date: date
    began_at: datetime
    steps: dict[str, Done] = {}
    """The steps that ended well, in the order of the night."""
    outcome: str = ""
    """How the night ended; empty while it has not ended. A failed step does not end it: the same command continues."""
    exit_code: int = 0
    ended_at: datetime | None = None
    fell: str = ""
    """Why the release must be rolled back; empty if it need not be."""


class Night:
    """A night's directory and its state."""

    def __init__(self, directory: Path, state: State) -> None:
        """Use a directory and its state. Call `open_night` to find or make a night."""
        self.directory = directory
        self.state = state

    def figures(self, step: str) -> dict[str, Any]:
        """Return the figures of a step; empty if the step did not end well."""
        done = self.state.steps.get(step)
        return done.figures if done else {}

    @property
    def released_version(self) -> str:
        """Return the version of the model that the night released; empty if it released none, or rolled it back."""
        watched = "rollback" in self.state.steps and not self.state.fell
        return str(self.figures("push").get("model_version", "")) if watched else ""

    def forget_from(self, step: str, order: list[str]) -> None:
        """Forget a step and all later steps, so that they are run again."""
        later = order[order.index(step) :]
        self.state.steps = {name: done for name, done in self.state.steps.items() if name not in later}
        self.state.outcome, self.state.exit_code, self.state.ended_at, self.state.fell = "", 0, None, ""
        self.save()

    def save(self) -> None:
        """Write the state, whole or not at all. It is on the disk when this function returns."""
        self.directory.mkdir(parents=True, exist_ok=True)
        temporary = self.directory / f".{STATE}.incomplete"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(self.state.model_dump_json(indent=2))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / STATE)


def open_night(work_dir: Path, wanted: date | None, now: datetime | None = None) -> Night:
    """Return the night of a date.

    Without a date, return an unfinished night that began within the last 12 hours, else today's (UTC).

    Raises:
        NightlyError: the state of the night cannot be read.
    """
    now = now or datetime.now(UTC)
    if wanted is None:
        newest = next(nights(work_dir), None)
        if newest and not newest.state.outcome and now - newest.state.began_at < timedelta(hours=RESUMED_HOURS):
            return newest
    day = wanted or now.date()
    directory = work_dir / str(day)
    if (directory / STATE).exists():
        return _read(directory)
    return Night(directory, State(date=day, began_at=now))


def nights(work_dir: Path) -> Iterator[Night]:
    """Yield all nights, the newest first. Raises NightlyError."""
    for file in sorted(work_dir.glob(f"????-??-??/{STATE}"), reverse=True):
        yield _read(file.parent)


def last_released(work_dir: Path, before: date) -> Night | None:
    """Return the last night before a date that released a model; None if there is none."""
    return next((one for one in nights(work_dir) if one.state.date < before and one.released_version), None)


def _read(directory: Path) -> Night:
    file = directory / STATE
    try:
        return Night(directory, State.model_validate(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        why = explain(error) if isinstance(error, ValidationError) else str(error)
        raise NightlyError(f"{file}: cannot be used: {why}; remove the directory to start this night again") from error

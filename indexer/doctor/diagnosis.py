"""What `doctor` finds out about a Milvus, as plain values, and how a step becomes one of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from mind.errors import MindError
from mind.milvus.errors import FileInUseError, StoreDeniedError, StoreTimeoutError, StoreUnavailableError
from mind.milvus.version import Version


class Result(StrEnum):
    """How a step ended."""

    OK = "ok"
    NOTE = "note"
    """There is something to know, but nothing is wrong."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """The step was left out, because it needs a step that failed or because Milvus does not answer any more."""


@dataclass(frozen=True)
class Step:
    """One step and how it ended."""

    name: str
    result: Result
    seconds: float
    detail: str
    """What was found, or why it failed."""
    next: str = ""
    """What the user can do next; empty unless the step failed."""


class NoteError(Exception):
    """A step found something that the user should know and that is not a fault."""


class WrongAnswerError(Exception):
    """Milvus answered, but its answer is wrong."""


@dataclass
class Diagnosis:
    """What was found about a Milvus."""

    milvus: str
    """The address, without credentials."""
    version: Version = field(default_factory=lambda: Version(""))
    steps: list[Step] = field(default_factory=list)
    silent: bool = False
    """Whether Milvus has stopped answering, so that no further step is tried."""

    @property
    def ok(self) -> bool:
        """Return whether no step failed or was skipped."""
        return all(step.result in (Result.OK, Result.NOTE) for step in self.steps)

    def is_ok(self, name: str) -> bool:
        """Return whether a step was run and did not fail."""
        return any(step.name == name and step.result in (Result.OK, Result.NOTE) for step in self.steps)

    def add(self, name: str, work: Callable[[], str], needs: Sequence[str] = ()) -> bool:
        """Run a step, unless it needs one that failed, and add how it ended.

        Args:
            name: the name of the step.
            work: returns what was found. It may raise NoteError, WrongAnswerError or an error of ours.
            needs: the names of the steps that it needs.

        Returns:
            Whether the step ended well and without a note.
        """
        lacking = [need for need in needs if not self.is_ok(need)]
        if self.silent or lacking:
            why = "Milvus does not answer any more" if self.silent else f"needs the step {lacking[0]}"
            self.steps.append(Step(name, Result.SKIPPED, 0, why))
            return False
        began = time.monotonic()
        result, detail, advice = Result.OK, "", ""
        try:
            detail = work()
        except NoteError as note:
            result, detail = Result.NOTE, str(note)
        except (MindError, WrongAnswerError) as error:
            result, detail, advice = Result.FAILED, str(error), _advice(error)
            self.silent = isinstance(error, StoreUnavailableError)
        self.steps.append(Step(name, result, time.monotonic() - began, detail, advice))
        return result is Result.OK


def _advice(error: Exception) -> str:
    """Return what to do about an error."""
    match error:
        case StoreDeniedError():
            return "grant the privilege that the message names to the user of --milvus-token-file"
        case FileInUseError():
            return "stop the process that holds the file, or copy the file and examine the copy"
        case StoreTimeoutError():
            return "look into the log of Milvus and at its load; --timeout-s and --wait-s are the limits"
        case StoreUnavailableError():
            return "check --milvus-uri, the credentials, the network, and that Milvus runs"
        case WrongAnswerError():
            return "do not release with this Milvus; send this table to the project"
    return "look into the log of Milvus; if it does not explain it, send this table to the project"

"""Runs a command of ours in its own process, so that its memory is freed at its end and a crash is an exit code."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from indexer.errors import NightlyError

_SHOWN = 400
"""Number of characters of a failed command's last line that are shown."""


def in_words(command: Sequence[str]) -> str:
    """Return a command as a user would type it."""
    return shlex.join(["python", "-m", *command])


def run_program(command: Sequence[str], log: Path, environment: Mapping[str, str], lock: int | None = None) -> None:
    """Run `python -m COMMAND` and wait for its end. Its output is appended to a file.

    The command gets SIGTERM if this process ends, and it holds the lock until it has ended.

    Args:
        command: the module and its arguments.
        log: the file that gets the output.
        environment: variables to set besides those of this process. A variable with an empty value is removed.
        lock: the file descriptor of the lock.

    Raises:
        NightlyError: the exit code of the command is not 0.
    """
    variables = {name: value for name, value in (os.environ | environment).items() if value}
    with log.open("ab") as output:
        output.write(f"$ {in_words(command)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "indexer.nightly.child", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables | {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            pass_fds=[] if lock is None else [lock],
        )
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise NightlyError(f"`{in_words(command)}` {how}: {_last_line(log)} ({log})")


def _last_line(log: Path) -> str:
    """Return the last line that a command printed, which is its error if it failed with one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines or ["it said nothing"])[-1].removeprefix("error: ")[:_SHOWN]

"""Lets one night shift run at a time, by a lock on a file. The system frees the lock when its process ends.

The commands that a night starts hold the lock too, so the next run waits until those of a killed run have ended.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from indexer.errors import LockedError, NightlyError

LOCK = "lock"
PATIENCE_S = 10
"""Time in seconds to wait for a command that a killed night left. Such a command gets SIGTERM when its night ends."""


@contextmanager
def locked(work_dir: Path, patience_s: float = PATIENCE_S) -> Iterator[int]:
    """Hold the lock of a working directory, and yield its file descriptor, which commands of the night inherit.

    Raises:
        LockedError: another run holds the lock.
        NightlyError: the directory cannot be written.
    """
    path = work_dir / LOCK
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise NightlyError(f"work_dir {work_dir}: cannot be written: {error.strerror}") from error
    try:
        _take(descriptor, path, patience_s)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            holder = _holder(descriptor)
            if _lives(holder) or time.monotonic() > deadline:
                raise LockedError(f"{path}: another run holds the lock: {_in_words(holder)}") from error
        time.sleep(0.1)


def _holder(descriptor: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _lives(holder: dict[str, object]) -> bool:
    """Return whether the process that took the lock may still run. On another machine this cannot be known."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(str(holder.get("pid"))), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        return True
    return True


def _in_words(holder: dict[str, object]) -> str:
    if not holder:
        return "it does not say who"
    text = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return text if _lives(holder) else f"a command that was started by {text}, and has not ended yet"

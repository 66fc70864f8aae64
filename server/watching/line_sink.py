"""Writes JSON lines to a file or to standard output from a thread of its own, so that no call waits for a disk.

What waits has a limit; beyond it lines are dropped and counted. A file is opened again once it was replaced, so that
logrotate can move it. Knows nothing of what the lines say.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

STDOUT = "-"
"""The path that means standard output."""
MAX_WAITING = 200_000
"""Most lines that wait: about 40 MB."""
REOPEN_S = 1.0
"""How often to look whether the file was replaced."""
CLOSE_S = 2.0
"""Longest wait for the last lines when the server stops."""

Lines = Callable[[], Iterable[dict[str, Any]]]
"""Makes the lines; called by the thread."""


class LineSink:
    """A bounded queue of lines, and the thread that writes them."""

    def __init__(self, path: str, on_lines: Callable[[int, int], None] = lambda written, dropped: None) -> None:
        """Open the file. `on_lines`: told how many lines were written and dropped.

        Raises:
            OSError: the file cannot be opened.
        """
        self._path = path
        self._on_lines = on_lines
        self._file = self._open()
        self._looked_at = time.monotonic()
        self._failing = False
        self._waiting = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[int, Lines] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def offer(self, count: int, lines: Lines) -> bool:
        """Have so many lines written later; false, and nothing is written, if too many wait already."""
        with self._lock:
            room = self._waiting + count <= MAX_WAITING
            self._waiting += count * room
        if room:
            self._queue.put((count, lines))
        else:
            self._on_lines(0, count)
        return room

    def close(self) -> None:
        """Write what waits, as far as that does not take long."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (offered := self._queue.get()) is not None:
            count, lines = offered
            try:
                written = self._write("".join(map(_text, lines())).encode())
            except Exception:
                logger.exception("%d lines for %s could not be made", count, self._path)
                written = False
            with self._lock:
                self._waiting -= count
            self._on_lines(count * written, count * (not written))

    def _write(self, text: bytes) -> bool:
        """Write whole lines at once, so that processes that share a file do not mix them; whether that worked."""
        try:
            self._follow()
            while text:
                text = text[os.write(self._file, text) :]
        except OSError as error:
            if not self._failing:
                logger.warning("lines for %s are dropped: %s", self._path, error)
            self._failing = True
            return False
        self._failing = False
        return True

    def _follow(self) -> None:
        """Open the file again if another one is at its path now, or none."""
        now = time.monotonic()
        if self._path == STDOUT or now - self._looked_at < REOPEN_S:
            return
        self._looked_at = now
        with suppress(FileNotFoundError):
            if os.path.samestat(Path(self._path).stat(), os.fstat(self._file)):
                return
        opened = self._open()
        os.close(self._file)
        self._file = opened

    def _open(self) -> int:
        if self._path == STDOUT:
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"

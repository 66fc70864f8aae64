"""A value that is read from files, and read again when they change, such as certificates and tokens."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from mind.errors import ConfigError

logger = logging.getLogger(__name__)

T = TypeVar("T")


OnRead = Callable[[bool], None]
"""A callback with one argument: whether the files could be used, after each reading."""


class Reloaded(Generic[T]):
    """A value read from files.

    If a reading fails, the value stays as it was, a warning is logged once per reason, and the next look tries again.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T], on_read: OnRead = lambda _: None) -> None:
        """Read the value for the first time. Raises ConfigError if `read` does."""
        self._files = files
        self._read = read
        self._on_read = on_read
        self._seen = self._stamps()  # taken before reading, so that a change during the reading is noticed
        self._warned = ""
        self.value = read()
        on_read(True)

    def look(self) -> bool:
        """Read the files again if they changed since the last reading. Return whether the value changed."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        try:
            value = self._read()
        except ConfigError as error:
            self._on_read(False)
            if str(error) != self._warned:
                logger.warning("%s; what was read before stays in use", error)
            self._warned = str(error)
            return False
        self._seen = stamps
        self._warned = ""
        self._on_read(True)
        if value == self.value:
            return False
        self.value = value
        logger.info("read again: %s", ", ".join(map(str, self._files)))
        return True

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Return values that change with a file, or with the file that a link points to; None without a file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

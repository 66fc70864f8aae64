"""What some files hold, read anew when they change: certificates and tokens are renewed under a running server."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from mind.errors import ConfigError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Reloaded(Generic[T]):
    """A value read from files. A reading that fails leaves the value of before, with one warning for each reason."""

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        """Reads once. `read` raises ConfigError, and so does this."""
        self._files = files
        self._read = read
        self._seen = self._stamps()  # before reading: what changes meanwhile is read again
        self._warned = ""
        self.value = read()

    def look(self) -> bool:
        """Read the files anew if they changed since the last look; whether the value is another now."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            value = self._read()
        except ConfigError as error:
            if str(error) != self._warned:
                logger.warning("%s; what was read before stays in use", error)
            self._warned = str(error)
            return False
        self._warned = ""
        if value == self.value:
            return False
        self.value = value
        logger.info("read anew: %s", ", ".join(map(str, self._files)))
        return True

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self._files]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Another after every change of the file, also when a link leads to another file; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

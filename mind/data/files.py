"""Writes files whole or not at all. Knows nothing of their contents."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mind.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces `path` once it is written whole. The directory is created.

    Raises:
        DataError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.incomplete")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_outputs(*paths: Path | None) -> list[Path]:
    """Check before hours of work that files can be written. Return those that are not None.

    Raises:
        DataError: a file cannot be written, or two are the same.
    """
    files = [path for path in paths if path is not None]
    if len({path.absolute() for path in files}) < len(files):
        raise DataError(f"{files[0]}: given for two outputs")
    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise DataError(f"{path}: cannot be written: it is a directory")
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error
    return files

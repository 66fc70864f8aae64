"""Files that are written whole or not at all. Knows nothing of what is in them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mind.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place once it is written whole; makes the directory.

    Raises:
        DataError: the disk refused it.
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
    """Those that are not None, after making sure, before hours of evaluation, that they can be written.

    Raises:
        DataError: one cannot, or two are the same file.
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

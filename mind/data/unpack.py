"""Unpacks members of a zip or tar.gz archive into a temporary directory. Knows nothing of their contents.

Archives come from other people, so only the wanted regular files are written, under our names, up to a size limit.
"""

import gzip
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from mind.errors import DataError

MAX_MEMBER_BYTES = 1 << 30

# The last two are for encrypted members, and for packing methods that zipfile lacks.
_FAULTS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError, NotImplementedError)

Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A member of an archive: its name, its size according to the archive, and a function that opens it."""


@contextmanager
def unpacked(path: Path, members: Sequence[str]) -> Iterator[Path]:
    """Yield a directory with those members that the archive has, by the last part of their names.

    A member may be in a deeper directory: `data/book_data/a.txt` is found as `book_data/a.txt`. Errors about files in
    the directory are raised as errors of the archive.

    Raises:
        DataError: the file is not such an archive, is damaged, or has a member larger than `MAX_MEMBER_BYTES`.
    """
    with tempfile.TemporaryDirectory(prefix="mind-") as name:
        directory = Path(name)
        try:
            _unpack(path, members, directory)
        except _FAULTS as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise DataError(f"{path}: cannot be unpacked: {reason or error}") from error
        try:
            yield directory
        except DataError as error:
            raise DataError(str(error).replace(f"{directory}/", f"{path}: ", 1)) from error


def _unpack(path: Path, members: Sequence[str], directory: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(2)
    if magic not in (b"PK", b"\x1f\x8b"):
        raise DataError(f"{path}: is neither a zip nor a tar.gz archive")
    for name, size, open_member in _zip_members(path) if magic == b"PK" else _tar_members(path):
        wanted = next((member for member in members if f"/{name}".endswith(f"/{member}")), None)
        if wanted is None:
            continue
        if size > MAX_MEMBER_BYTES:
            raise DataError(f"{path}: {name} has {size:,} bytes, the limit is {MAX_MEMBER_BYTES:,}")
        with open_member() as source, (directory / Path(wanted).name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, info.file_size, partial(archive.open, info)


def _tar_members(path: Path) -> Iterator[Member]:
    with gzip.open(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as archive:
            for info in archive:
                if info.isreg():
                    yield info.name, info.size, partial(cast(Callable[..., IO[bytes]], archive.extractfile), info)
        while stream.read(1 << 20):  # gzip's checksum stands at the end
            pass

"""Finds the files of an input, which is a file, a directory, a pattern of names or a URL, and opens them.

This module knows nothing of the contents of files, except their formats.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pyarrow as pa

from mind.errors import DataError

MAGIC = b"PAR1"
"""The first and the last bytes of a Parquet file."""
_PATTERN = re.compile(r"[*?\[]")
_PACKED = {"gz", "bz2", "lz4", "zst"}
_ENDINGS = {"csv": "csv", "tsv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}

OnBytes = Callable[[int], None]
"""A callback with one argument: how many more bytes of the files have been read."""


class Format(StrEnum):
    """The format of a file."""

    CSV = "CSV"
    JSON_LINES = "JSON lines"
    PARQUET = "Parquet"


@dataclass(frozen=True)
class File:
    """One of the files that an input names."""

    name: str
    """The name of the file in messages, without credentials."""
    path: str
    size: int
    """Size of the stored file in bytes; 0 if the place does not tell it."""
    format: Format
    remote: Any = None
    """The file system of fsspec that has the file; None for a local file."""

    def open(self, on_bytes: OnBytes | None = None) -> IO[bytes]:
        """Open the stored file as it is, without Arrow. Raises OSError."""
        raw = self.remote.open(self.path, "rb") if self.remote else Path(self.path).open("rb")  # noqa: SIM115
        return raw if on_bytes is None else io.BufferedReader(_Counted(raw, on_bytes), 1 << 20)

    def text(self, on_bytes: OnBytes = lambda count: None) -> Any:
        """Open the file as a stream of text bytes, decompressed if its name says so. Raises OSError."""
        raw = pa.PythonFile(self.open(on_bytes), "r")
        packed = _ending(self.path)[1]
        return pa.CompressedInputStream(raw, {"gz": "gzip", "zst": "zstd"}.get(packed, packed)) if packed else raw


@dataclass(frozen=True)
class Files:
    """All files of an input, ordered by their paths. All have the same format."""

    name: str
    """The name of the input in messages."""
    files: tuple[File, ...]
    root: str | None = None
    """The directory whose folders may be named after values (`day=2024-01-31`); None for a file."""

    @property
    def format(self) -> Format:
        """Return the format of all files."""
        return self.files[0].format

    @property
    def size(self) -> int:
        """Return the size of all stored files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def are_several(self) -> bool:
        """Return whether messages about a line need the name of its file."""
        return len(self.files) > 1


class _Counted(io.RawIOBase):
    """A stream of bytes that reports how many were read, and turns the errors of all file systems into OSError."""

    def __init__(self, raw: IO[bytes], on_bytes: OnBytes) -> None:
        self._raw, self._on_bytes = raw, on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._raw.read(len(buffer))
        except OSError:
            raise
        except Exception as error:  # every file system has its own errors
            raise OSError(_in_one_line(error)) from error
        buffer[: len(content)] = content
        self._on_bytes(len(content))
        return len(content)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Url(str):
    """A URL, which messages show without its credentials and its query."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Return the URL as it is shown in messages."""
        return format(_without_secrets(str(self)), spec)

    @property
    def name(self) -> str:
        """Return the last part of the URL, as for a path."""
        return Path(f"{self}").name


Source = Path | Url
"""An input of a command: a local file, or a URL."""


def source_of(given: str) -> Source:
    """Return the input that an option of a command names."""
    return Url(given) if is_url(given) else Path(given)


def is_url(where: str | Path) -> bool:
    """Return whether an input is a URL that fsspec opens."""
    return "://" in str(where)


def cells_are_text(where: str | Path) -> bool:
    """Return whether all values of an input are text because it is CSV, by the names of its files."""
    if is_url(where):
        return find_files(where).format is Format.CSV
    path = Path(where)
    first = next(iter(_below(path)), path) if path.is_dir() else path
    return _ENDINGS.get(_ending(str(first))[0]) == "csv"


def find_files(where: str | Path) -> Files:
    """Find the files that an input names.

    Args:
        where: a file, a directory, a pattern such as `clicks/2026-*.csv.gz`, or a URL of one of these. Files and
            folders whose names begin with `.` or `_` are left out of directories.

    Raises:
        DataError: there are no files, they cannot be listed, they have several formats, or a package is missing.
    """
    if is_url(where):
        return _of_one_format(_remote(str(where)))
    path = Path(where)
    try:
        if path.is_dir():
            found = _below(path)
            return _of_one_format(Files(str(path), tuple(map(_local, found)), str(path)))
        if _PATTERN.search(str(where)) and not path.exists():
            return _of_one_format(_matching(str(where)))
        return Files(str(path), (_local(path),))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _below(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path for path in found if not _is_hidden(path.relative_to(directory).parts)]


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _matching(pattern: str) -> Files:
    """Return the files that a pattern matches, and those below directories that it matches."""
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if _PATTERN.search(part))
    root = Path(*parts[:first])
    found: list[Path] = []
    for path in sorted(root.glob(str(Path(*parts[first:])))):
        if not _is_hidden(path.relative_to(root).parts):
            found += _below(path) if path.is_dir() else [path]
    return Files(pattern, tuple(map(_local, dict.fromkeys(found))), str(root))


def _local(path: Path) -> File:
    with path.open("rb") as file:
        return File(str(path), str(path), path.stat().st_size, _format(str(path), file.read(len(MAGIC))))


def _remote(url: str) -> Files:
    """Return the files that a URL names."""
    shown = _without_secrets(url)
    with _asking(shown):
        import fsspec  # most data are in local files

        system, path = fsspec.core.url_to_fs(url)
        if _PATTERN.search(path.partition("?")[0]) and not url.startswith("http"):
            paths = sorted(system.glob(path))
            root = path[: path.rindex("/", 0, _first_of(path)) + 1]
        elif not url.startswith("http") and system.isdir(path):
            paths, root = sorted(system.find(path)), path
        else:
            return Files(shown, (_remote_file(system, path, shown),))
        prefix = url.partition("://")[0] + "://"
        relative = {found: found.removeprefix(root).strip("/") for found in paths if system.isfile(found)}
        files = [
            _remote_file(system, found, _without_secrets(prefix + found.removeprefix(prefix)))
            for found, below in relative.items()
            if not _is_hidden(below.split("/"))
        ]
        return Files(shown, tuple(files), root)


def _first_of(path: str) -> int:
    found = _PATTERN.search(path)
    return found.start() if found else len(path)


def _remote_file(system: Any, path: str, name: str) -> File:
    with system.open(path, "rb") as file:
        start = file.read(len(MAGIC))
    return File(name, path, int(system.info(path).get("size") or 0), _format(name, start), system)


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Raise DataError if a place cannot list its files."""
    try:
        yield
    except ImportError as error:
        raise DataError(f"{name}: {_missing(name, error)}") from error
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: cannot be read: there is no such file") from error
    except Exception as error:  # every file system has its own errors
        raise DataError(f"{name}: cannot be read: {_in_one_line(error)}") from error


_PACKAGES = {
    "s3fs": ("s3", "s3a"),
    "gcsfs": ("gs", "gcs"),
    "adlfs": ("az", "abfs", "abfss"),
    "aiohttp": ("http", "https"),
    "paramiko": ("sftp", "ssh"),
}
"""The package that each kind of URL needs besides fsspec."""


def _missing(name: str, error: ImportError) -> str:
    protocol = name.partition("://")[0]
    package = next((name for name, protocols in _PACKAGES.items() if protocol in protocols), None)
    if error.name == "fsspec":
        package = "fsspec" + (f" {package}" if package else "")
    return f"{protocol}:// needs a package: pip install {package}" if package else _in_one_line(error)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _of_one_format(found: Files) -> Files:
    if not found.files:
        what = "the directory has no files to read" if found.root == found.name else "no file matches"
        raise DataError(f"{found.name}: {what}")
    first = found.files[0]
    for file in found.files:
        if file.format is not first.format:
            raise DataError(
                f"{found.name}: has files of two formats: {first.name} is {first.format} and {file.name} is "
                f"{file.format}; name those of one format with a pattern such as '*.{first.path.rpartition('.')[2]}'"
            )
    return found


def _ending(path: str) -> tuple[str, str]:
    """Return the ending that gives the format, and the ending that gives the compression; "" if there is none."""
    name, _, last = path.rpartition("/")[2].partition("?")[0].rpartition(".")
    if last.lower() in _PACKED and name:
        return name.rpartition(".")[2].lower(), last.lower()
    return last.lower(), ""


def _format(path: str, start: bytes) -> Format:
    ending = _ENDINGS.get(_ending(path)[0])
    if ending == "parquet" or start == MAGIC:
        return Format.PARQUET
    return Format.JSON_LINES if ending == "jsonl" else Format.CSV

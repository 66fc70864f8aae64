"""The titles, example users and maps that the explorer shows.

They are read once, when the gateway starts. It does not know then which kind of item ids the release has, so all ids
are text here.
"""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from clients.gateway.settings import Settings
from clients.titles import read_titles
from clients.user_files import FileError, check_own_ids, read_users

MAX_USERS = 200
"""Maximum number of example users."""


class Catalogue:
    """The titles, example users and maps from the files that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Read the files. Raises FileError or OSError if a file cannot be used."""
        column = settings.titles_id_column
        self._titles = read_titles(settings.titles, text=True, id_column=column) if settings.titles else {}
        self._searched = [(title.casefold(), item_id) for item_id, title in self._titles.items()]
        self.users = _read_example_users(settings.users) if settings.users else []
        self.maps = dict(map(_read_map, settings.map))

    @property
    def has_titles(self) -> bool:
        """Whether there are titles to show and to search."""
        return bool(self._titles)

    def titles_of(self, item_ids: Iterable[str]) -> dict[str, str]:
        """Return the titles of items, by id. Items without a title are left out."""
        return {item_id: self._titles[item_id] for item_id in item_ids if item_id in self._titles}

    def search(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Find items: first the one with this id, then titles that begin with the text, then those that contain it."""
        wanted = text.casefold().strip()
        if not wanted:
            return []
        exact = [text.strip()] if text.strip() in self._titles else []
        begin = (item_id for title, item_id in self._searched if title.startswith(wanted))
        within = (item_id for title, item_id in self._searched if title.find(wanted) > 0)
        found = itertools.islice(dict.fromkeys(itertools.chain(exact, begin, within)), limit)
        return [(item_id, self._titles[item_id]) for item_id in found]


def catalogue_of(request: Request) -> Catalogue:
    """Return the catalogue of the application, for `Depends`."""
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue


CatalogueOf = Annotated[Catalogue, Depends(catalogue_of)]


def _read_example_users(path: Path) -> list[dict[str, Any]]:
    """Read the first users of a file: id, history, and the later clicks if the file has them. All ids are text."""
    check_own_ids(path)
    with path.open("rb") as file:
        users = itertools.islice(read_users(file, str(path), None), MAX_USERS)
        return [vars(user) | {"user_id": str(user.user_id)} for user in users]


def _read_map(path: Path) -> tuple[str, bytes]:
    """Read the file of a map. Return the model version and the content."""
    content = path.read_bytes()
    try:
        version = json.loads(content)["model_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"--map {path}: not a map; `python -m mind.item_map` makes one") from error
    return str(version), content

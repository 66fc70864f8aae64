"""What the explorer knows beside the servers: titles, example users, maps. Read once, when the gateway starts."""

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from clients.gateway.settings import Settings
from clients.user_files import FileError, read_titles, read_users

MAX_USERS = 200
_EVAL_ITEM = re.compile(rb"\beval_item:(-?\d+)")


class Catalogue:
    """Read from the files that the settings name."""

    def __init__(self, settings: Settings) -> None:
        """Raises FileError or OSError: a file cannot be used."""
        self._titles = read_titles(settings.titles) if settings.titles else {}
        self._searched = [(title.casefold(), item_id) for item_id, title in self._titles.items()]
        self.users = _read_example_users(settings.users) if settings.users else []
        self.maps = dict(map(_read_map, settings.map))

    @property
    def has_titles(self) -> bool:
        """Whether titles can be searched."""
        return bool(self._titles)

    def titles_of(self, item_ids: Iterable[int]) -> dict[str, str]:
        """Titles of those items that have one."""
        return {str(item_id): self._titles[item_id] for item_id in item_ids if item_id in self._titles}

    def search(self, text: str, limit: int) -> list[tuple[int, str]]:
        """Items whose title has the text, those that begin with it first, then in the order of the file."""
        wanted = text.casefold().strip()
        if not wanted:
            return []
        begin = (item_id for title, item_id in self._searched if title.startswith(wanted))
        within = (item_id for title, item_id in self._searched if title.find(wanted) > 0)
        found = itertools.islice(itertools.chain(begin, within), limit)
        return [(item_id, self._titles[item_id]) for item_id in found]


def catalogue_of(request: Request) -> Catalogue:
    """The application's catalogue, for `Depends`."""
    catalogue: Catalogue = request.app.state.catalogue
    return catalogue


CatalogueOf = Annotated[Catalogue, Depends(catalogue_of)]


def _read_example_users(path: Path) -> list[dict[str, Any]]:
    """The first users of the file: id, history, and what they clicked afterwards where the file says so."""
    with path.open("rb") as file:
        lines = list(itertools.islice(filter(bytes.strip, file), MAX_USERS))
    return [
        {
            "user_id": str(user_id),
            "hist_item": list(map(str, hist_item)),
            "eval_item": [item_id.decode() for item_id in _EVAL_ITEM.findall(line)],
        }
        for line, (user_id, hist_item) in zip(lines, read_users(lines, str(path)), strict=True)
    ]


def _read_map(path: Path) -> tuple[str, bytes]:
    """Model version and content of a map's file."""
    content = path.read_bytes()
    try:
        version = json.loads(content)["model_version"]
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"--map {path}: not a map; python -m mind.item_map makes one") from error
    return str(version), content

"""Figures of a night's prepared data: numbers of rows, users and items, interactions by day, and clicks by item."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mind.data.days import read_days
from mind.data.files import replacing
from mind.data.paddlerec import read_eval, read_train
from mind.data.prepared import REST
from mind.errors import DataError
from mind.sequences import Int64, distinct, first_of, joined

ITEMS = "items.npz"


@dataclass(frozen=True)
class Catalogue:
    """The items of a night and their clicks: `item_id` and `clicks`, [N] int64 each, ids ascending."""

    item_id: Int64
    clicks: Int64

    @classmethod
    def of(cls, item_id: Int64) -> "Catalogue":
        """Count the clicks of each item. `item_id`: [n] int64, the item of each click."""
        ordered = np.sort(item_id)
        ids = distinct(ordered)
        return cls(ids, np.diff(np.append(np.searchsorted(ordered, ids), len(ordered))))

    @classmethod
    def read(cls, directory: Path) -> "Catalogue | None":
        """Read the items of an earlier night. Return None if they were not kept. Raises DataError."""
        file = directory / ITEMS
        try:
            with np.load(file, allow_pickle=False) as found:
                return cls(found["item_id"], found["clicks"])
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{file}: cannot be read: {error}") from error

    def write(self, directory: Path) -> None:
        """Write the items to a night's directory, for later nights. Raises DataError."""
        with replacing(directory / ITEMS) as file, file.open("wb") as content:
            np.savez(content, allow_pickle=False, item_id=self.item_id, clicks=self.clicks)

    def unknown_to(self, before: "Catalogue") -> float:
        """Return the share of these items that an earlier night did not have, 0 to 1."""
        return float(np.mean(~np.isin(self.item_id, before.item_id)))

    def overlap(self, before: "Catalogue") -> float:
        """Return the overlap of two nights, 0 to 1: the sum over items of the smaller of their shares of the clicks."""
        _, here, there = np.intersect1d(self.item_id, before.item_id, assume_unique=True, return_indices=True)
        mine, theirs = self.clicks[here] / self.clicks.sum(), before.clicks[there] / before.clicks.sum()
        return float(np.minimum(mine, theirs).sum())


@dataclass(frozen=True)
class DataFigures:
    """The numbers of rows, users, items and interactions by day of a night's data."""

    rows: int
    users: int
    items: int
    days: dict[str, int]
    """Number of interactions by date; empty if the data have no dates."""

    @classmethod
    def of(cls, figures: dict[str, Any]) -> "DataFigures | None":
        """Return the figures that a night's state holds, or None if it holds none."""
        return cls(**{name: figures[name] for name in ("rows", "users", "items", "days")}) if figures else None


def read_figures(prepared: Path) -> tuple[DataFigures, Catalogue]:
    """Read the figures of prepared data. They count every user once, with all clicks.

    Raises:
        DataError: the data cannot be read.
    """
    parts = [*(joined(read_eval(prepared / part)) for part in ("test", "valid")), read_train(prepared / "train")]
    if (prepared / REST / f"{REST}.txt").exists():
        parts.append(read_train(prepared / REST))
    every = first_of(parts)  # a test user may be a training user too, with the clicks before the test
    catalogue = Catalogue.of(every.item_id)
    return DataFigures(len(every.item_id), len(every), len(catalogue.item_id), read_days(prepared)), catalogue

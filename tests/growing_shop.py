"""Clicks of a shop that grows from day to day, with known truth: every user likes two groups of items."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

Row = tuple[int, int, int]
"""User, item, time in seconds since 1970."""


@dataclass(frozen=True)
class Shop:
    """A shop. The clicks of a day are the same whenever they are asked for."""

    opened: date
    groups: int = 10
    first_items: int = 20
    """Items of a group on the first day."""
    items_every_days: int = 4
    """A group gets another item after so many days."""
    visitors: int = 150
    """Users of a day."""
    new_users: int = 4
    """Users who come for the first time, each day."""
    first_users: int = 300

    def day(self, day: date) -> list[Row]:
        """The clicks of a day."""
        age = (day - self.opened).days
        rng = np.random.default_rng([1, age])
        midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        users = rng.choice(self.first_users + age * self.new_users, self.visitors, replace=False)
        items = self.first_items + age // self.items_every_days
        rows = []
        for user in users.tolist():
            liked = np.random.default_rng([2, user]).choice(self.groups, 2, replace=False)
            for click in range(int(rng.integers(3, 8))):
                group, number = int(rng.choice(liked)), int(items * rng.random() ** 1.5)
                rows.append((user + 1, 1000 * (group + 1) + number, midnight + 600 * (user % 100) + click))
        return rows

    def until(self, night: date) -> list[Row]:
        """All clicks before the day of a night."""
        days = range((night - self.opened).days)
        return [row for ago in days for row in self.day(self.opened + timedelta(days=ago))]


def write(file: Path, rows: list[Row], renamed: Callable[[int], int] = lambda item: item) -> None:
    """Write clicks as CSV, with other item ids if wanted."""
    lines = [f"{user},{renamed(item)},{time}" for user, item, time in rows]
    file.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n", encoding="utf-8")

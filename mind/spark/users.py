"""The tasks that sort and split all clicks of a range of users with the code of `mind.data`. Knows nothing of Spark.

Users ascend from range to range. `sort_clicks` sorts a range and counts what the driver needs to know about all ranges:
the users with a large share of all clicks, and the number of users to shuffle. `write_parts` then splits the range and
writes its files.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mind.data.days import count_days
from mind.data.files import replacing
from mind.data.gathered import Clicks
from mind.data.heavy_users import heavy_users
from mind.data.held import Held
from mind.data.interactions import Interactions
from mind.data.left_out import FEW, add_few, without_old, without_users
from mind.data.losses import columns_of
from mind.data.ordering import in_order
from mind.data.paddlerec import write_eval, write_train
from mind.data.prepared import ITEM_KEYS, REST, USER_KEYS, part_file, write_users
from mind.data.split import Split, SplitKind, able_users
from mind.data.targets import assign
from mind.data.time_units import TimeUnit
from mind.events import Role
from mind.sequences import Int64, distinct
from mind.spark import rows
from mind.spark.keys import keys_of

_NO_IDS = np.zeros(0, np.int64)
_NOTHING = Interactions(_NO_IDS, _NO_IDS, _NO_IDS)
TEST_USERS = "test_users"
"""The directory of the lines of `test_users.jsonl` until the driver joins them."""


@dataclass(frozen=True)
class Choice:
    """What is left out of the data, and how the rest is split."""

    how: Held
    unit: TimeUnit | None
    min_interactions: int
    max_user_share: float
    since: str | None
    once_per: str | None
    span: int
    """`once_per` in the unit of the times."""
    newest: float
    """The last time of the data."""

    @property
    def least(self) -> int:
        """Return the number of interactions that a user must have."""
        return self.how.least(self.min_interactions)

    def keep(self, interactions: Interactions) -> tuple[Interactions, dict[str, Interactions]]:
        """Return the interactions without repeats and without old ones, and those that are left out, by cause."""
        given = assign(interactions, (), self.once_per, self.span)
        kept, left_out = given.interactions, dict(given.left_out)
        if self.since is not None:
            kept = without_old(kept, self.since, self.newest, self.unit, left_out)
        return kept, left_out

    def check(self) -> None:
        """Raise DataError or ConfigError for dates and numbers that make no sense, before hours of work."""
        kept, _ = self.keep(_NOTHING)
        self.how.split(kept, self.unit, self.min_interactions, np.zeros(0, np.uint8))

    def causes(self, has_heavy: bool) -> tuple[str, ...]:
        """Return the names of all parts and of the causes for which interactions may be left out, in their order."""
        kept, left_out = self.keep(_NOTHING)
        without_users(kept, [0] if has_heavy else [], self.max_user_share, left_out)
        add_few(kept, self.least, left_out)
        return ("train", "valid", "test", *left_out)


@dataclass
class Sorted:
    """What the driver must know about a range of users, as plain data."""

    part: int
    rows: int
    """Number of interactions that are not left out."""
    users: int
    longest: int
    """The most interactions of a user."""
    able: int
    """Number of users who can be shuffled."""
    heavy: list[list[int]]
    """User and number of interactions of the users that may have a large share of all interactions."""
    days: dict[str, int]
    duplicates: int
    duplicate_places: list[list[int]]
    unsorted: int
    unsorted_places: list[list[int]]


def sort_clicks(choice: Choice, time_is_float: bool, found: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sort the clicks of a range of users, drop repeats, and count.

    Yield the summary, and the clicks with the number of the range as their file.
    """
    batches = list(found)
    if not batches:
        return
    part, interactions, told = _sorted(batches)
    del batches
    kept, _ = choice.keep(interactions)
    users = kept.sequences()
    by_users = choice.how.kind is SplitKind.USERS
    share = min(choice.max_user_share, 0.5)
    summary = Sorted(
        part,
        rows=len(kept),
        users=len(users),
        longest=int(users.lengths.max(initial=0)),
        able=able_users(kept, choice.min_interactions) if by_users else 0,
        heavy=[[user.user_id, user.interactions] for user in heavy_users(kept, share)] if len(kept) else [],
        days=count_days(interactions.timestamp, choice.unit),
        **told,
    )
    yield from rows.batches(rows.SUMMARY, time_is_float, text=pa.array([json.dumps(asdict(summary))]))
    yield from rows.batches(
        rows.CLICK,
        time_is_float,
        user_id=interactions.user_id,
        item_id=interactions.item_id,
        time=interactions.timestamp,
        file=np.full(len(interactions), part),
    )


def _sorted(batches: list[pa.RecordBatch]) -> tuple[int, Interactions, dict[str, Any]]:
    """Return the number of the range, its interactions in order, and the rows that repeat or moved."""
    part = batches[0].column("part")[0].as_py()
    file, line = (rows.integers_of(batches, name) for name in ("file", "line"))
    order = np.lexsort((line, file))  # as one machine reads them
    user, item = (rows.integers_of(batches, name)[order] for name in ("user_id", "item_id"))
    clicks = Clicks(user, item, rows.times_of(batches)[order], np.arange(len(order), dtype=np.uint32))
    (user_id, item_id, timestamp, _), duplicates, unsorted = in_order([clicks])
    told: dict[str, Any] = {}
    for name, (count, some) in (("duplicate", duplicates), ("unsorted", unsorted)):
        told["duplicates" if name == "duplicate" else name] = count
        told[f"{name}_places"] = [[int(file[order[row]]), int(line[order[row]])] for row in some]
    return part, Interactions(user_id, item_id, timestamp), told


@dataclass(frozen=True)
class Writing:
    """What the tasks need to write their files."""

    choice: Choice
    directory: Path
    """The directory of the files until all are written. It has the text ids."""
    heavy: tuple[int, ...]
    """The users who are left out because they have more than a share of all interactions."""
    causes: tuple[str, ...]
    """The names of parts and causes, train first."""
    first: tuple[int, ...]
    """[R + 1]: the position of the first user who can be shuffled of each range."""
    parts: Role
    """[users who can be shuffled] uint8: the part of each, as for `split_users`; empty for other splits."""
    users_are_text: bool
    items_are_text: bool


@dataclass
class Written:
    """What a task wrote, as plain data."""

    part: int
    how: dict[str, Any]
    users: dict[str, int]
    """Number of users by the name of a part or a cause."""
    rows: dict[str, int]
    """Number of interactions by the name of a part or a cause."""
    untrained: int
    """Number of users in a part or a cause that are not in train."""
    dropped_users: int
    fresh: int
    """Number of test users without a history."""
    files: list[str] = field(default_factory=list)
    """The names of the directories with a file of this range."""


def write_parts(writing: Writing, found: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Split the clicks of a range of users and write its files.

    Yield the summary, and each item with a number whose bits say which parts and causes have the item.
    """
    batches = list(found)
    if not batches:
        return
    part = batches[0].column("file")[0].as_py()
    user_id, item_id = (rows.integers_of(batches, name) for name in ("user_id", "item_id"))
    interactions = Interactions(user_id, item_id, rows.times_of(batches))
    del batches
    choice = writing.choice
    kept, left_out = choice.keep(interactions)
    heavy = [user for user in writing.heavy if (kept.user_id == user).any()]
    kept = without_users(kept, heavy, choice.max_user_share, left_out)
    parts = writing.parts
    if len(parts):
        parts = parts[writing.first[part] : writing.first[part + 1]]
    split = choice.how.split(kept, choice.unit, choice.min_interactions, parts)
    if split.dropped_users:
        add_few(kept, choice.least, left_out)
    columns = columns_of(split, left_out)
    users = np.concatenate([ids for name, (ids, _) in columns.items() if name != "train"])
    summary = Written(
        part,
        split.how,
        {name: len(ids) for name, (ids, _) in columns.items()},
        {name: len(items) for name, (_, items) in columns.items()},
        len(distinct(users[~np.isin(users, split.train.user_id)])),
        split.dropped_users,
        int((split.test.history.lengths == 0).sum()) if split.histories_are_trained else 0,
        _write(writing, part_file(part), split, left_out.get(f"{FEW} {choice.least}")),
    )
    yield from rows.batches(rows.SUMMARY, False, text=pa.array([json.dumps(asdict(summary))]))
    yield from rows.batches(rows.ITEM, False, **_masks(writing, columns))


def _write(writing: Writing, name: str, split: Split, few: Interactions | None) -> list[str]:
    """Write the files of a range of users. Return the names of their directories."""
    directory, done = writing.directory, []
    for where, sequences in (("train", split.train), (REST, few.sequences() if few else None)):
        if sequences is not None and len(sequences):
            write_train(directory / where / name, sequences)
            done.append(where)
    for where, cases in (("valid", split.valid), ("test", split.test)):
        if len(cases):
            write_eval(directory / where / name, cases)
            done.append(where)
    if len(split.test) and (writing.users_are_text or writing.items_are_text):
        test = split.test
        users = keys_of(directory / USER_KEYS, test.history.user_id) if writing.users_are_text else None
        clicked = distinct(np.concatenate([test.history.item_id, test.target.item_id]))
        items = keys_of(directory / ITEM_KEYS, clicked) if writing.items_are_text else None
        with replacing(directory / TEST_USERS / name) as file:
            write_users(file, test, users, items)
    return done


def _masks(writing: Writing, columns: Mapping[str, tuple[Int64, Int64]]) -> dict[str, Int64]:
    """Return each item once, and a number whose bits are the positions of the causes that have it."""
    items = {writing.causes.index(name): distinct(item_id) for name, (_, item_id) in columns.items()}
    item_id = np.concatenate(list(items.values()))
    bit = np.concatenate([np.full(len(ids), 1 << position) for position, ids in items.items()])
    order = np.argsort(item_id, kind="stable")
    item_id, bit = item_id[order], bit[order]
    start = np.flatnonzero(np.append(True, item_id[1:] != item_id[:-1])[: len(item_id)])
    return {"item_id": item_id[start], "line": np.bitwise_or.reduceat(bit, start) if len(start) else bit}

"""Divides training users among processes: each reads all users in a range of ids, with all their clicks.

The ranges are found from lines of all files, so that each has about as many clicks in any order of the lines.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mind.errors import DataError
from mind.sequences import Int64, Mask

_SAMPLED = 4_096
"""Number of lines that are read to find the borders between ranges."""
_LINE_BYTES = 256


@dataclass(frozen=True)
class UserRange:
    """The user ids from `low` up to and without `high`. None means no limit."""

    low: int | None = None
    high: int | None = None

    def below(self, user_id: Int64) -> Mask:
        """Return which of some users have a smaller id than all users of the range, [U] bool."""
        return np.zeros(len(user_id), np.bool_) if self.low is None else user_id < self.low

    def holds(self, user_id: Int64) -> Mask:
        """Return which of some users are in the range, [U] bool."""
        inside = ~self.below(user_id)
        return inside if self.high is None else inside & (user_id < self.high)


ALL = UserRange()


def range_of(files: list[Path], rank: int, world: int) -> UserRange:
    """Return the range of users that a process reads from training data. It is always the same for the same files.

    Args:
        files: the training files.
        rank: the number of the process, from 0.
        world: the number of processes.

    Raises:
        DataError: the files cannot be read, or they have too few users.
    """
    if world == 1:
        return ALL
    users = _sampled_users(files)
    borders = users[np.arange(1, world) * len(users) // world]
    distinct = np.unique(users)
    if len(distinct) < world:
        raise DataError(f"{files[0].parent}: has users for {len(distinct)} processes at most, and {world} were started")
    if len(np.unique(borders)) < world - 1 or borders[0] == distinct[0]:  # one user has many of the clicks
        borders = distinct[np.arange(1, world) * len(distinct) // world]
    ends = [None, *borders.tolist(), None]
    return UserRange(ends[rank], ends[rank + 1])


def _sampled_users(files: list[Path]) -> Int64:
    """Return the users of lines that are evenly spread over the files, in ascending order."""
    sizes = [file.stat().st_size for file in files]
    step = max(1, sum(sizes) // _SAMPLED)
    found = []
    for file, size in zip(files, sizes, strict=True):
        with file.open("rb") as content:
            for start in range(0, size, step):
                content.seek(start)
                lines = content.read(2 * _LINE_BYTES).split(b"\n")
                user = lines[bool(start)].partition(b",")[0].strip() if len(lines) > 1 else b""
                if user.removeprefix(b"-").isdigit():  # another fault of the line is reported where all lines are read
                    found.append(int(user))
    return np.sort(np.array(found, np.int64))

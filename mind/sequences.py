"""Users' item sequences in columns. Data files, sampler and evaluation exchange histories in this form."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.events import Role, Roles

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


PART_ITEMS = 1 << 22
"""Approximate number of items that are processed at a time where all of them would need much memory."""


@dataclass(frozen=True)
class Sequences:
    """The item sequences of U users, oldest item first, user by user.

    `user_id`: [U] int64. `offsets`: [U + 1] int64; user u's items are `item_id[offsets[u]:offsets[u + 1]]`.
    `item_id`: [offsets[U]] int64, external ids.
    """

    user_id: Int64
    offsets: Int64
    item_id: Int64
    role: Role | None = None
    """[offsets[U]] uint8, position in `roles`; None if every item is both history and target, with weight 1."""
    roles: Roles | None = None
    """The roles that items may have."""

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.user_id)

    def __getitem__(self, user: int) -> Int64:
        """Return the items of the user at position `user`, [n] int64."""
        return self.item_id[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> Int64:
        """Return the number of items of each user, [U] int64."""
        return np.diff(self.offsets)

    def take(self, users: Int64, start: Int64 | None = None, end: Int64 | None = None) -> "Sequences":
        """Return some of the users, in the order of `users`.

        Args:
            users: [V] int64, positions of users.
            start, end: [V] int64, positions in `item_id`. Only items between them are kept; None keeps all items.
        """
        start = self.offsets[users] if start is None else start
        end = self.offsets[users + 1] if end is None else end
        offsets = np.append(0, np.cumsum(end - start))
        item_id = np.empty(offsets[-1], self.item_id.dtype)
        role = None if self.role is None else np.empty(offsets[-1], self.role.dtype)
        for some in _parts(offsets):  # the positions of all rows would need as much memory as the rows
            first, last = offsets[some.start], offsets[some.stop]
            rows = np.arange(first, last) + np.repeat((start - offsets[:-1])[some], (end - start)[some])
            np.take(self.item_id, rows, out=item_id[first:last])
            if self.role is not None and role is not None:
                np.take(self.role, rows, out=role[first:last])
        return Sequences(self.user_id[users], offsets, item_id, role, self.roles)

    def parts(self) -> Iterator["Sequences"]:
        """Yield all users in parts of about `PART_ITEMS` items."""
        for some in _parts(self.offsets):
            first, last = self.offsets[some.start], self.offsets[some.stop]
            offsets = self.offsets[some.start : some.stop + 1] - first
            role = None if self.role is None else self.role[first:last]
            yield Sequences(self.user_id[some], offsets, self.item_id[first:last], role, self.roles)

    @property
    def is_history(self) -> Mask | None:
        """Return which items belong to histories, [offsets[U]] bool; None if all do."""
        return None if self.role is None or self.roles is None else self.roles.is_history[self.role]

    @property
    def weight(self) -> Float32 | None:
        """Return the weight of each item as a target, [offsets[U]] float32, 0 for no target; None if all are 1."""
        return None if self.role is None or self.roles is None else self.roles.weight[self.role]

    def where(self, mask: Mask | None) -> "Sequences":
        """Return all users, with only some of their items. `mask`: [offsets[U]] bool; None keeps all."""
        if mask is None:
            return self
        role = None if self.role is None else self.role[mask]
        return Sequences(
            self.user_id, np.append(0, np.cumsum(mask))[self.offsets], self.item_id[mask], role, self.roles
        )


@dataclass(frozen=True)
class EvalCases:
    """Held-out users, with the history and the later clicks of each.

    `history` and `target` have the same users in the same order. A target sequence is never empty.
    """

    history: Sequences
    target: Sequences

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.history)

    def take(self, users: Int64) -> "EvalCases":
        """Return some of the users, in the order of `users`, [V] int64 positions."""
        return EvalCases(self.history.take(users), self.target.take(users))


def joined(cases: EvalCases) -> Sequences:
    """Return all items of each held-out user, history and target."""
    history, target = cases.history, cases.target
    offsets = history.offsets + target.offsets
    item_id = np.empty(offsets[-1], np.int64)
    for part, start in ((history, offsets[:-1]), (target, offsets[:-1] + history.lengths)):
        item_id[np.arange(len(part.item_id)) + np.repeat(start - part.offsets[:-1], part.lengths)] = part.item_id
    return Sequences(history.user_id, offsets, item_id)


def first_of(parts: list[Sequences]) -> Sequences:
    """Return each user once, ascending, with the items in the first part that has the user."""
    user_id = np.concatenate([part.user_id for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    roles = [part.role for part in parts if part.role is not None]
    every = Sequences(
        user_id,
        np.append(0, np.cumsum(lengths)),
        np.concatenate([part.item_id for part in parts]),
        np.concatenate(roles) if len(roles) == len(parts) else None,
        parts[0].roles,
    )
    return every.take(np.unique(user_id, return_index=True)[1])


def distinct(values: Int64) -> Int64:
    """Return the different values in ascending order: [n] int64.

    The result is that of `np.unique`. Since NumPy 2.3 `np.unique` uses a hash table, which takes 17 s for 20 million
    values; this function takes 2 s.
    """
    starts = range(0, len(values), PART_ITEMS)
    parts = [_distinct(values[start : start + PART_ITEMS]) for start in starts]  # a copy of all would need much memory
    return parts[0] if len(parts) == 1 else _distinct(np.concatenate([np.zeros(0, np.int64), *parts]))


def _distinct(values: Int64) -> Int64:
    ordered: Int64 = np.sort(values)
    first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    return np.compress(first, ordered)


def _parts(offsets: Int64) -> Iterator[slice]:
    """Yield slices of users, each with about `PART_ITEMS` items."""
    start, users = 0, len(offsets) - 1
    while start < users:
        stop = int(np.searchsorted(offsets, offsets[start] + PART_ITEMS, side="right")) - 1
        stop = min(max(stop, start + 1), users)
        yield slice(start, stop)
        start = stop


def pad_last(values: Int64, offsets: Int64, maxlen: int) -> tuple[Int64, Int64]:
    """Keep the newest `maxlen` values of every row.

    Args:
        values: [N] int64, the values of all rows, row by row.
        offsets: [B + 1] int64, where each row starts.
        maxlen: L, the maximum number of values of a row.

    Returns:
        rows: [B, L] int64, oldest first from the left, 0-padded on the right.
        seq_len: [B] int64, the number of values of each row.
    """
    end = offsets[1:, None]
    seq_len = np.minimum(offsets[1:] - offsets[:-1], maxlen)
    position = end - seq_len[:, None] + np.arange(maxlen)
    valid = position < end
    if not len(values):
        return np.zeros(valid.shape, np.int64), seq_len
    return np.where(valid, values[np.where(valid, position, 0)], 0), seq_len

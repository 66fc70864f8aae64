"""The users of a batch as arrays: their histories as rows of the model, and the items to leave out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mind.sequences import Int64
from server.release import Release
from server.serving.answer import Status
from server.serving.merge import Exclusions, Fate
from server.serving.question import UserQuery

NOTHING = np.zeros(0, np.int64)
NO_EXCLUSIONS = Exclusions(NOTHING, NOTHING, NOTHING)
USUAL = Fate.HISTORY, Fate.EXCLUDED


@dataclass(frozen=True)
class Inputs:
    """The users of a batch; those whose history the model can encode are its B active users."""

    users: list[UserQuery]
    """All users of the batch."""
    status: list[Status]
    """Status of each user; OK for the active ones."""
    unknown: list[Int64]
    """History entries of each user that the model does not know, repeats included."""
    active: Int64
    """[B] int64, positions of the active users in `users`."""
    hist_index: Int64
    """[B, L] int64, 0-padded, rows of the item table."""
    seq_len: Int64
    """[B] int64, history entries that are not padding."""


def look_up(release: Release, users: list[UserQuery]) -> Inputs:
    """Look all histories up at once, drop unknown ids, and keep the newest `maxlen` known ones."""
    lengths = [len(user.hist_item) for user in users]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    hist_item = np.concatenate([user.hist_item for user in users])
    hist_index, seq_len, known = release.vocabulary.look_up(hist_item, offsets, release.hyper_parameters.maxlen)
    status = [status_of(user, length > 0) for user, length in zip(users, seq_len.tolist(), strict=True)]
    if known.all():
        unknown = [hist_item[:0]] * len(users)
    else:
        unknown = [hist_item[start:end][~known[start:end]] for start, end in pairwise(offsets.tolist())]
    active = np.flatnonzero(seq_len)
    # Always maxlen wide: a narrower batch would round differently, and an answer must not depend on its neighbours.
    return Inputs(users, status, unknown, active, hist_index[active], seq_len[active])


def status_of(user: UserQuery, known: bool) -> Status:
    """Return the status of a user. `known`: whether the model knows an item of the history."""
    if user.invalid:
        return Status.INVALID
    if user.unread:
        return Status.DEGRADED
    if user.unknown:
        return Status.UNKNOWN_USER
    if known:
        return Status.OK
    return Status.ALL_UNKNOWN if len(user.hist_item) else Status.EMPTY_HISTORY


def exclusions(inputs: Inputs, exclude_history: list[bool], sizes: list[int], pins: Sequence[Int64] = ()) -> Exclusions:
    """The items that active users must not get by their rank.

    An item that is in several of history, excluded ids, shown ones and pins counts as being in the first of these.

    Args:
        inputs: the users of all requests of a batch, request by request.
        exclude_history: for each request, whether its users do not get items of their histories.
        sizes: for each request, its number of users.
        pins: for each request, the items that come first; none if no request has any.
    """
    without_history = np.repeat(exclude_history, sizes)[inputs.active].tolist()
    asked = [inputs.users[position] for position in inputs.active.tolist()]
    fates = [*USUAL]
    if any(len(user.shown) for user in asked):
        fates.append(Fate.SHOWN)
    if any(map(len, pins)):
        fates.append(Fate.PINNED)
    if len(fates) == len(USUAL) and not any(without_history) and not any(len(user.exclude) for user in asked):
        return NO_EXCLUSIONS
    histories = [user.hist_item if without else NOTHING for user, without in zip(asked, without_history, strict=True)]
    lists = histories + [user.exclude for user in asked]
    if Fate.SHOWN in fates:
        lists += [user.shown for user in asked]
    if Fate.PINNED in fates:
        request = np.repeat(np.arange(len(sizes)), sizes)[inputs.active].tolist()
        lists += [pins[number] for number in request]
    number = np.arange(len(lists))
    lengths = np.array([len(ids) for ids in lists], np.int64)
    user = np.repeat(number % max(len(asked), 1), lengths)
    fate = np.repeat(np.array(fates).repeat(len(asked)), lengths)
    return Exclusions(user, np.concatenate([NOTHING, *lists]), fate)

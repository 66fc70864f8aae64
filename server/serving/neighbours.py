"""The second source of candidates: neighbours of the newest clicks, scored with the user's own interests.

They come from the model. What the collection has not any more, or what does not match a user's filter, is left out.
"""

from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.nearest import Rows
from mind.neighbours import ItemNeighbours, Near
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.inputs import Inputs
from server.serving.matching import Matches
from server.serving.merge import MAX_INTERESTS, NOTHING_NEAR, NearHits


def near_hits(
    release: Release,
    inputs: Inputs,
    vectors: Float32,
    wanted: Mask,
    gone: Rows,
    matches: Sequence[Matches | None],
) -> NearHits:
    """The neighbours that users may get, each with the interest that scores it best.

    Args:
        release: whose neighbours.
        inputs: the users.
        vectors: [B, K, D] float32, the interests of the B active users.
        wanted: [B] bool, who gets neighbours.
        gone: [G] int32, ascending, the rows that the collection has not any more.
        matches: for each active user, the items that match the filter; None without a filter.
    """
    users = np.flatnonzero(wanted & np.any(vectors, axis=(1, 2)))
    if release.neighbours is None or not len(users):
        return NOTHING_NEAR
    near = _there(release.neighbours, inputs, users, gone, matches)
    if not len(near.user):
        return NOTHING_NEAR
    scores = _scores(release.item_embedding, near, vectors)
    interest = scores.argmax(axis=1)
    score = scores[np.arange(len(interest)), interest]
    query = near.user * MAX_INTERESTS + interest
    order = (query * 2**33 + falling(score + near.bonus)).argsort(kind="stable")  # equal ones by row, so by item
    queries, lengths = np.unique(query, return_counts=True)
    hits = Hits(release.vocabulary.item_id[near.row[order] - 1], score[order], lengths)
    return NearHits(hits, *np.divmod(queries, MAX_INTERESTS), near.bonus[order])


def _there(
    neighbours: ItemNeighbours, inputs: Inputs, users: Int64, gone: Rows, matches: Sequence[Matches | None]
) -> Near:
    """The neighbours of users that the collection has and that match their filters."""
    near = neighbours.near(inputs.hist_index[users], inputs.seq_len[users])
    kept = ~is_among(near.row, gone)
    starts = np.searchsorted(near.user, np.arange(len(users) + 1))
    for number, user in enumerate(users.tolist()):
        if (own := matches[user]) is not None:
            part = slice(starts[number], starts[number + 1])
            kept[part] &= is_among(near.row[part], own.rows)
    return Near(users[near.user[kept]], near.row[kept], near.bonus[kept])


def is_among(row: Int64, rows: Rows | Int64) -> Mask:
    """Whether each of [P] rows, or ids, is among `rows`, which ascend."""
    if not len(rows):
        return np.zeros(len(row), bool)
    found: Mask = rows[np.minimum(np.searchsorted(rows, row), len(rows) - 1)] == row
    return found


def _scores(item_embedding: Float32, near: Near, vectors: Float32) -> Float32:
    """The inner product of each neighbour with each interest of its user, [P, K]; -inf for interests that are zero."""
    embedding = item_embedding[near.row]
    scores = np.empty((len(near.row), vectors.shape[1]), np.float32)
    users, starts = np.unique(near.user, return_index=True)
    ends = [*starts[1:].tolist(), len(near.user)]
    for user, start, end in zip(users.tolist(), starts.tolist(), ends, strict=True):
        scores[start:end] = embedding[start:end] @ vectors[user].T  # one by one: the same bits in any batch
    scores[~np.any(vectors, axis=2)[near.user]] = -np.inf
    return scores

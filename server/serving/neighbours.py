"""The second source of candidates: neighbours of the newest clicks, scored with the user's own interests.

They come from the model, and from the journal of the collection for items that were added since its build. What the
collection has not any more, or what does not match a user's filter, is left out.
"""

from collections.abc import Sequence

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits, falling
from mind.neighbours import Near
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.added import ItemRows, is_among
from server.serving.inputs import Inputs
from server.serving.local import Known
from server.serving.matching import Matches
from server.serving.merge import MAX_INTERESTS, NOTHING_NEAR, Exclusions, NearHits
from server.serving.search import Found

NO_ITEMS = Matches(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
ROUNDING = 1e-4
"""The share by which the score of an item may differ between the search and here, rounded up."""


def near_hits(
    release: Release,
    inputs: Inputs,
    vectors: Float32,
    wanted: Mask,
    known: Known | None,
    matches: Sequence[Matches | None],
    least: Float32,
) -> NearHits:
    """The neighbours that users may get, each with the interest that scores it best.

    Args:
        release: whose neighbours.
        inputs: the users.
        vectors: [B, K, D] float32, the interests of the B active users.
        wanted: [B] bool, whether each user gets neighbours.
        known: what is known of the collection. None is enough if all users have filters; then items that were added
            since the build are not neighbours.
        matches: for each active user, the items that match the filter; None without a filter.
        least: [B] float32, the score plus bonus from which a neighbour can be a candidate (`least_scores`).
    """
    users = np.flatnonzero(wanted & np.any(vectors, axis=(1, 2)))
    if release.neighbours is None or not len(users):
        return NOTHING_NEAR
    rows = ItemRows(release, known.items if known else NO_ITEMS)
    near = _there(rows, inputs, users, known, matches)
    if not len(near.user):
        return NOTHING_NEAR
    interest, score = best_of(_scores(rows.embeddings(near.row), near, vectors))
    rank = score + near.bonus
    kept = np.flatnonzero(rank >= least[near.user])
    query = near.user[kept] * MAX_INTERESTS + interest[kept]
    order = (query * 2**33 + falling(rank[kept])).argsort(kind="stable")
    kept = kept[order]
    queries, lengths = np.unique(query, return_counts=True)
    hits = Hits(rows.item_ids(near.row[kept]), score[kept], lengths)
    return NearHits(hits, *np.divmod(queries, MAX_INTERESTS), near.bonus[kept])


def least_scores(found: Found, top_k: Int64, round_robin: Mask, excluded: Exclusions, explain: bool) -> Float32:
    """Return the rank from which neighbours can be candidates, [B] float32: `top_k` hits have it, whatever is excluded.

    It is -inf for users whose neighbours all count: with too few hits, with interests in turn, or for Explain.

    Args:
        found: what the search found.
        top_k, round_robin, excluded, explain: as of `merge`.
    """
    least = np.full(len(top_k), -np.inf, np.float32)
    if explain:
        return least
    needed = (top_k + np.bincount(excluded.user, minlength=len(top_k)))[found.user]
    lengths = found.hits.lengths
    there = lengths >= needed
    score = found.hits.scores[(np.cumsum(lengths) - lengths + needed - 1)[there]]
    np.maximum.at(least, found.user[there], score - ROUNDING * np.abs(score))
    least[round_robin] = -np.inf
    return least


def best_of(scores: Float32) -> tuple[Int64, Float32]:
    """Return the first best interest of each of [P, K] scores, and its score. This is faster than `argmax`."""
    interest, best = np.zeros(len(scores), np.int64), scores[:, 0].copy()
    for number in range(1, scores.shape[1]):
        interest[scores[:, number] > best] = number
        np.maximum(best, scores[:, number], out=best)
    return interest, best


def _there(
    rows: ItemRows, inputs: Inputs, users: Int64, known: Known | None, matches: Sequence[Matches | None]
) -> Near:
    """Return the neighbours of users that the collection has and that match their filters."""
    neighbours, added = rows.release.neighbours, known.added if known else None
    assert neighbours is not None  # noqa: S101 - the caller looked
    near = neighbours.near(inputs.hist_index[users], inputs.seq_len[users], added=added)
    kept = ~is_among(near.row, known.gone) if known else np.ones(len(near.row), bool)
    starts = np.searchsorted(near.user, np.arange(len(users) + 1))
    for number, user in enumerate(users.tolist()):
        if (own := matches[user]) is not None:
            part = slice(starts[number], starts[number + 1])
            kept[part] &= rows.among(near.row[part], own)
    return Near(users[near.user[kept]], near.row[kept], near.bonus[kept])


def _scores(embedding: Float32, near: Near, vectors: Float32) -> Float32:
    """The inner product of each neighbour with each interest of its user, [P, K]; -inf for interests that are zero.

    `embedding`: [P, D] float32, of the neighbours.
    """
    scores = np.empty((len(near.row), vectors.shape[1]), np.float32)
    starts = np.flatnonzero(np.append(True, near.user[1:] != near.user[:-1])).tolist()
    for user, start, end in zip(near.user[starts].tolist(), starts, [*starts[1:], len(near.user)], strict=True):
        scores[start:end] = embedding[start:end] @ vectors[user].T  # one by one: the same bits in any batch
    scores[~np.any(vectors, axis=2)[near.user]] = -np.inf
    return scores

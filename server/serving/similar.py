"""Finds the items most similar to given ones: by the cosine of embeddings, by what users clicked soon after, or by
both.

Inner products would prefer the items with the longest embeddings, which are the popular ones, for every query. An index
for inner products does not find the nearest by cosine, so all items are compared, exactly. This blocks the caller, so
`server.serving.similar_batches` runs it in a thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.nearest import inverse_norms, nearest
from mind.neighbours import AddedNeighbours, Near
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.added import ItemRows, is_among
from server.serving.filtered import with_fresh
from server.serving.inputs import NO_EXCLUSIONS
from server.serving.matching import Matches
from server.serving.merge import NOTHING_NEAR, Merged, NearHits, Source, merge
from server.serving.search import NO_HITS

UNKNOWN = "neither the model nor the collection knows one of the items"
NO_DIRECTION = "the embeddings of the items are zero, or cancel each other out, so no direction is left to compare"


class ItemStatus(IntEnum):
    """How a query was answered; the numbers are those of recall.v1.ItemStatus."""

    OK = 1
    UNKNOWN = 2
    INVALID = 3
    DEGRADED = 4


@dataclass(frozen=True)
class ItemQuery:
    """One query for similar items."""

    item_ids: Int64
    """[n] int64 external ids of what the answer must be similar to; the answer does not have them."""
    exclude: Int64
    """[m] int64 external ids that must not be in the answer."""
    top_k: int
    by: Source
    """What finds similar items."""
    invalid: str = ""
    """Which limit the query breaks; empty if none."""

    @property
    def left_out(self) -> Int64:
        """Ids that are not in the answer."""
        return np.concatenate([self.item_ids, self.exclude])


@dataclass(frozen=True)
class SimilarResult:
    """The items most similar to those of a query, best first; the arrays are parallel."""

    item_ids: Int64
    """[n] int64 external ids."""
    scores: Float32
    """[n] float32, cosines."""
    source: Int64
    """[n] int64, the `Source` of each."""
    weights: Float32
    """[n] float32, of the items as neighbours; 0 for others. Empty if no neighbours were asked for."""
    status: ItemStatus
    unknown: Int64
    """Places of the query's ids that neither the model nor the collection knows, ascending."""
    detail: str = ""
    """What a person may want to know about the status, or about a short list; may be empty."""


@dataclass(frozen=True)
class _Asked:
    """The queries of a batch, and what is known of their items."""

    queries: Sequence[ItemQuery]
    query: Int64
    """[n] int64, the query of each item."""
    row: Int64
    """[n] int64, the row of each item; 0 for one that the model does not know."""
    known: Mask
    """[n] bool, whether the model or the collection knows the item."""
    directions: Float32
    """[Q, D] float32, the mean of the directions of each query's items, of length 1; zero where there is none."""


def similar_items(
    release: Release,
    known: Matches,
    matches: Matches | None,
    queries: Sequence[ItemQuery],
    added: AddedNeighbours | None = None,
) -> list[SimilarResult]:
    """The similar items of each query, in their order. What a query gets does not depend on the others.

    Args:
        release: has the embeddings and neighbours.
        known: all items of the collection.
        matches: those of them that match the filter, which all queries share; None without a filter.
        queries: what is asked.
        added: the added ones of them as neighbours.
    """
    rows = ItemRows(release, known)
    among = known if matches is None else matches
    asked = _look_up(release, known, queries)
    searched = np.array([query.by is not Source.NEIGHBOURS for query in queries], bool) & asked.directions.any(axis=1)
    user = np.flatnonzero(searched)
    near = _neighbours(rows, among, asked, added)
    in_turns = np.array([query.by is not Source.SEARCH for query in queries])  # so in the order that the lists have
    merged = merge(
        _nearest(release, among, asked, user),
        user,
        np.zeros_like(user),
        np.array([query.top_k for query in queries]),
        in_turns,
        NO_EXCLUSIONS,  # what is excluded would take turns
        near=_hits_of(rows, near, asked.directions),
    )
    return _results(asked, merged, _weights(rows, near, merged), matches)


def _look_up(release: Release, known: Matches, queries: Sequence[ItemQuery]) -> _Asked:
    item_ids = np.concatenate([query.item_ids for query in queries])
    query = np.repeat(np.arange(len(queries)), [len(each.item_ids) for each in queries])
    row = release.vocabulary.item_index(item_ids)
    units = release.item_embedding[row] * release.inverse_norms[row, None]
    is_fresh = (row == 0) & is_among(item_ids, known.fresh_ids)
    fresh = known.fresh_vectors[np.searchsorted(known.fresh_ids, item_ids[is_fresh])]
    units[is_fresh] = fresh * inverse_norms(fresh)[:, None]
    total = np.zeros((len(queries), units.shape[1]), np.float32)
    np.add.at(total, query, units)
    return _Asked(queries, query, row, (row > 0) | is_fresh, total * inverse_norms(total)[:, None])


def _nearest(release: Release, among: Matches, asked: _Asked, searched: Int64) -> Hits:
    """Return the nearest items by cosine for each of [S] queries, at least `top_k` besides those to leave out."""
    if not len(searched):
        return NO_HITS
    queries, directions = [asked.queries[number] for number in searched], asked.directions[searched]
    limits = np.array([query.top_k + len(query.left_out) for query in queries], np.int64)
    most = int(limits.max())
    rows, scores = nearest(directions, release.item_embedding, among.rows, most, release.inverse_norms)
    units = among.fresh_vectors * inverse_norms(among.fresh_vectors)[:, None]
    item_ids, scores = with_fresh(release, directions, replace(among, fresh_vectors=units), rows, scores, most)
    hits = Hits(item_ids.ravel(), scores.ravel(), np.full(len(queries), item_ids.shape[1])).first(limits)
    query = np.arange(len(queries)).repeat(hits.lengths)
    kept = ~_left_out(queries, query, hits.item_ids)
    return Hits(hits.item_ids[kept], hits.scores[kept], np.bincount(query[kept], minlength=len(queries)))


def _neighbours(rows: ItemRows, among: Matches, asked: _Asked, added: AddedNeighbours | None) -> Near | None:
    """Return the neighbours that may be in answers to queries that want some, by query and row; None without any."""
    release = rows.release
    wanted = np.array([query.by is not Source.SEARCH for query in asked.queries], bool)
    chosen = asked.known & wanted[asked.query]
    if release.neighbours is None or not chosen.any():
        return None
    near = release.neighbours.following(asked.query[chosen], asked.row[chosen], added)
    kept = rows.among(near.row, among)
    kept &= ~_left_out(asked.queries, near.user, rows.item_ids(near.row))
    return Near(near.user[kept], near.row[kept], near.bonus[kept])


def _left_out(queries: Sequence[ItemQuery], query: Int64, item_ids: Int64) -> Mask:
    """Return which items their queries leave out, [n] bool. `query` (ascending) and `item_ids`: parallel, [n] int64."""
    ends = np.searchsorted(query, np.arange(len(queries) + 1)).tolist()
    parts = zip(queries, pairwise(ends), strict=True)
    return np.concatenate([np.isin(item_ids[start:end], own.left_out) for own, (start, end) in parts])


def _hits_of(rows: ItemRows, near: Near | None, directions: Float32) -> NearHits:
    """Return the neighbours of each query by falling weight, ties by row, with their cosines as scores."""
    if near is None or not len(near.user):
        return NOTHING_NEAR
    order = np.lexsort((near.row, -near.bonus, near.user))
    user, row = near.user[order], near.row[order]
    scores = np.einsum("nd,nd->n", rows.embeddings(row), directions[user]) * rows.inverse_norms(row)
    users, lengths = np.unique(user, return_counts=True)
    hits = Hits(rows.item_ids(row), scores, lengths)
    return NearHits(hits, users, np.zeros_like(users), np.zeros(len(row), np.float32))


def _weights(rows: ItemRows, near: Near | None, merged: Merged) -> Float32:
    """Return the weight of each item of the answers as a neighbour, [M] float32; 0 for others."""
    if near is None or not len(near.user):
        return np.zeros(len(merged.item_ids), np.float32)
    width = len(rows.release.item_embedding) + len(rows.items.fresh_ids)
    its = near.user * width + near.row  # ascending
    query = np.repeat(np.arange(len(merged.offsets) - 1), np.diff(merged.offsets))
    own = query * width + rows.of(merged.item_ids)
    place = np.minimum(np.searchsorted(its, own), len(its) - 1)
    return np.where(its[place] == own, near.bonus[place], np.float32(0))


def _results(asked: _Asked, merged: Merged, weights: Float32, matches: Matches | None) -> list[SimilarResult]:
    ends = np.searchsorted(asked.query, np.arange(len(asked.queries) + 1)).tolist()
    results = []
    for number, query in enumerate(asked.queries):
        own, items = slice(*merged.offsets[number : number + 2]), slice(*ends[number : number + 2])
        item_ids, known = merged.item_ids[own], asked.known[items]
        status, detail = ItemStatus.OK, ""
        if query.invalid:
            status, detail = ItemStatus.INVALID, query.invalid
        elif not known.any():
            status, detail = ItemStatus.UNKNOWN, UNKNOWN
        elif query.by is Source.SEARCH and not asked.directions[number].any():
            detail = NO_DIRECTION
        elif len(item_ids) < query.top_k:
            detail = _why_fewer(len(item_ids), query, matches)
        own_weights = weights[own] if query.by is not Source.SEARCH else weights[:0]
        columns = item_ids, merged.scores[own], merged.source[own], own_weights
        results.append(SimilarResult(*columns, status, np.flatnonzero(~known), detail))
    return results


def _why_fewer(found: int, query: ItemQuery, matches: Matches | None) -> str:
    what = "neighbours of the items" if query.by is Source.NEIGHBOURS else "items"
    among = "" if matches is None else f" among the {len(matches):,} that match the filter"
    return f"{found} of {query.top_k}: there are no more {what}{among} that are not excluded"

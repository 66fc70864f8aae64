"""The second stage: one search, in Milvus or in memory, finds the items nearest to the interests of a whole batch."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.interests import OVERSEARCH, as_if_each_searched, leading
from mind.sequences import Int64
from mind.vocabulary import Mask
from server.release import Release
from server.serving.depth import hits_to_ask
from server.serving.offload import computed


@dataclass(frozen=True)
class Found:
    """The Q interests of a batch that are not zero, and the hits of each."""

    user: Int64
    """[Q] int64, the active user whose interest it is, ascending."""
    interest: Int64
    """[Q] int64, which interest of that user it is."""
    hits: Hits
    added: Float32 | None = None
    """[H] float32, what boosts add to the score of each hit; None without boosts. Hits are ordered by the sum."""
    bound: Float32 | None = None
    """[Q] float32, the highest sum that other items can have; -inf if there are none. None without boosts: other items
    then come after the last hit."""

    def goes_on(self, limits: Int64) -> Mask:
        """[Q] bool, for which interests there may be more items; `limits`: [B] int64, hits that each user gets."""
        if self.bound is None:
            return self.hits.lengths >= limits[self.user]
        return self.bound > -np.inf


NO_HITS = Hits(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))
NOTHING = Found(np.zeros(0, np.int64), np.zeros(0, np.int64), NO_HITS)


Find = Callable[[Float32, int], Awaitable[Hits]]
"""Finds the items nearest to each of the [Q, D] vectors, so many of them."""


async def search(
    find: Find, release: Release, vectors: Float32, limits: Int64, fetched: int, breadth: int | None
) -> Found:
    """Search with the interests of all users at once.

    A release may say that interests of one user that point the same way are searched once
    (`Fingerprint.interest_cosine` below 1). Then only the leading ones are searched, and the others get the same hits
    with scores of their own.

    Args:
        find: searches the release's collection.
        release: whose collection is searched.
        vectors: [B, K, D] float32, the interest vectors of B users; all-zero ones are not searched.
        limits: [B] int64, hits of each interest that each user gets.
        fetched: most hits to ask for; `Depth.fetched` of all these users.
        breadth: `Fingerprint.breadth` of what `find` searches.
    """
    user, interest = np.nonzero(np.any(vectors, axis=2))
    fingerprint = release.fingerprint
    leads = leading(vectors, fingerprint.interest_cosine)
    if not leads.any():
        return Found(user, interest, NO_HITS)
    merging = fingerprint.interest_cosine < 1
    most = limits[np.nonzero(leads)[0]] * (OVERSEARCH if merging else 1)
    hits = await find(vectors[leads], hits_to_ask(fetched, int(most.max()), breadth))
    hits = await computed(len(hits.item_ids), hits.first, most)
    if merging:
        known = release.vocabulary, release.item_embedding
        size = len(hits.item_ids) * vectors.shape[1]
        hits = await computed(size, as_if_each_searched, hits, leads, vectors, *known, int(limits.max()))
        hits = await computed(len(hits.item_ids), hits.first, limits[user])
    return Found(user, interest, hits)

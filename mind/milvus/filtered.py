"""How a search with a filter is answered: in memory, or by the index. Shared by servers and by `indexer choose-index`.

This module does not use Milvus.
"""

from mind.milvus.collection import MAX_HITS

IN_MEMORY = 128_000
"""Matching items that are always all scored in memory. For a query of 64 numbers that takes half the time of HNSW."""
ROWS_A_HIT = 1_000
"""Items that are scored in memory in the time that an index takes for a hit more."""
WIDER = 1.5
"""Hits to fetch for each hit wanted, beyond the share of items that match: these are not spread evenly."""


def hits_to_fetch(items: int, matching: int, limit: int) -> int:
    """How many hits of an index without the filter to fetch, so that about `limit` of them match.

    Args:
        items: in the index.
        matching: items that match the filter.
        limit: hits wanted.

    Returns:
        The number, a power of two, or 0 to score in memory all that match.
    """
    if matching <= IN_MEMORY:
        return 0
    fetched = 1 << (int(limit * WIDER * max(1.0, items / matching)) - 1).bit_length()
    return 0 if fetched > MAX_HITS or matching <= ROWS_A_HIT * fetched else fetched

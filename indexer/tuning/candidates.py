"""Which indexes are worth trying for so many items, and with which search parameters, from fast to thorough."""

from collections.abc import Sequence

from indexer.build import Index, choose_index
from indexer.tuning.measure import limit_of
from mind.milvus.store import Params

TYPES = ("HNSW", "IVF_FLAT", "IVF_SQ8", "SCANN")
DEFAULT = choose_index(False, None, {}, {})
"""What a build takes that is told nothing: the yardstick."""
_EF = (50, 64, 96, 128, 192, 256, 384, 512)
_NPROBE = (4, 8, 16, 32, 64, 128, 256)
_REORDER = (2, 4, 8)  # of SCANN, in multiples of the hits asked for
_ROWS_PER_LIST = 39  # least that k-means takes without complaint


def plans(items: int, types: Sequence[str]) -> list[Index]:
    """The indexes to build for a number of items; each is climbed along its `ladders`."""
    wanted = 4 * items**0.5
    nlist = min((2**power for power in range(4, 17)), key=lambda lists: abs(lists - wanted))
    nlist = max(1, min(nlist, items // _ROWS_PER_LIST))
    built = [
        DEFAULT,
        Index("HNSW", {"M": 16, "efConstruction": 200}, {}),
        Index("IVF_FLAT", {"nlist": nlist}, {}),
        Index("IVF_SQ8", {"nlist": nlist}, {}),
        Index("SCANN", {"nlist": nlist, "with_raw_data": "true"}, {}),
    ]
    return [index for index in built if index.type in types]


def ladders(index: Index, limit: int, exhaustive: bool = False) -> list[list[Params]]:
    """Search parameters to climb, each ladder from fast to thorough.

    Args:
        index: built how.
        limit: hits of a search; no parameter may be below it.
        exhaustive: go on until all lists of an inverted file are searched; for filters, which need it.
    """
    if index.type == "HNSW":
        efs = (*_EF, 1024, 2048) if exhaustive else _EF
        return [[{"ef": ef} for ef in sorted({limit, *(ef for ef in efs if ef > limit)})]]
    nlist = int(index.build_params["nlist"])
    more = (2**power for power in range(9, 17)) if exhaustive else ()
    probes = [nprobe for nprobe in (*_NPROBE, *more) if nprobe < nlist]
    if exhaustive or nlist <= _NPROBE[-1]:
        probes.append(nlist)
    if index.type != "SCANN":
        return [[{"nprobe": nprobe} for nprobe in probes]]
    return [[{"nprobe": nprobe, "reorder_k": times * limit} for nprobe in probes] for times in _REORDER]


def rungs_from(index: Index, exhaustive: bool = False) -> list[Params]:
    """The rungs from the one of an index upwards."""
    for ladder in ladders(index, limit_of(index.interest_cosine), exhaustive):
        if index.search_params in ladder:
            return ladder[ladder.index(index.search_params) :]
    return [index.search_params]

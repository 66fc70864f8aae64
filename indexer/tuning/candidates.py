"""Lists the indexes that are worth trying for a number of items, and the search parameters of each to try in order."""

from collections.abc import Sequence

from indexer.build import Index, choose_index, choose_nlist
from indexer.tuning.measure import limit_of
from mind.milvus.store import Params

TYPES = ("HNSW", "IVF_FLAT", "IVF_SQ8", "SCANN")
DEFAULT = choose_index(False, None, {}, {})
"""The index that a build uses by default. The other indexes are compared with it."""
_EF = (50, 64, 96, 128, 192, 256, 384, 512)
_NPROBE = (4, 8, 16, 32, 64, 128, 256)
_REORDER = (2, 4, 8)  # reorder_k of SCANN, as a multiple of the number of hits


def plans(items: int, types: Sequence[str]) -> list[Index]:
    """List the indexes to build for a number of items. Each is tried with the search parameters of its `ladders`."""
    nlist = choose_nlist(items)
    built = [
        DEFAULT,
        Index("HNSW", {"M": 16, "efConstruction": 200}, {}),
        Index("IVF_FLAT", {"nlist": nlist}, {}),
        Index("IVF_SQ8", {"nlist": nlist}, {}),
        Index("SCANN", {"nlist": nlist, "with_raw_data": "true"}, {}),
    ]
    return [index for index in built if index.type in types]


def ladders(index: Index, limit: int) -> list[list[Params]]:
    """List the search parameters to try. Each ladder goes from fast to thorough.

    Args:
        index: the index that is searched.
        limit: the number of hits of a search; `ef` and `reorder_k` must not be lower.
    """
    if index.type == "HNSW":
        return [[{"ef": ef} for ef in sorted({limit, *(ef for ef in _EF if ef > limit)})]]
    nlist = int(index.build_params["nlist"])
    probes = [nprobe for nprobe in _NPROBE if nprobe < nlist]
    if nlist <= _NPROBE[-1]:
        probes.append(nlist)
    if index.type != "SCANN":
        return [[{"nprobe": nprobe} for nprobe in probes]]
    return [[{"nprobe": nprobe, "reorder_k": times * limit} for nprobe in probes] for times in _REORDER]


def rungs_from(index: Index) -> list[Params]:
    """List the search parameters of an index and those after them on the same ladder."""
    for ladder in ladders(index, limit_of(index.interest_cosine)):
        if index.search_params in ladder:
            return ladder[ladder.index(index.search_params) :]
    return [index.search_params]

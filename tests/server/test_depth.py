"""How many hits Milvus is asked for."""

import pytest

from mind.milvus.collection import Fingerprint
from server.serving.depth import hits_to_ask


@pytest.mark.parametrize(
    ("fetched", "wanted", "index_type", "params", "asked"),
    [
        (128, 50, "HNSW", {"ef": 128}, 50),  # the index finds the same 50, whatever more is asked for
        (128, 51, "HNSW", {"ef": 128}, 60),  # in tens
        (128, 127, "HNSW", {"ef": 128}, 128),
        (100, 99, "HNSW", {"ef": 100}, 100),  # no more than the index looks at
        (192, 150, "HNSW", {"ef": 512}, 150),
        (192, 150, "HNSW", {"ef": 128}, 192),  # Milvus raises ef to the hits: the neighbours would decide what is found
        (128, 50, "HNSW", {}, 128),  # Milvus chooses ef by the hits
        (128, 50, "SCANN", {"nprobe": 16, "reorder_k": 200}, 50),
        (128, 50, "IVF_FLAT", {"nprobe": 16}, 50),  # it scores all of 16 lists
        (128, 10, "FLAT", {}, 10),
    ],
)
def test_as_many_as_wanted_where_the_index_finds_the_same(
    fetched: int, wanted: int, index_type: str, params: dict[str, int | float | str], asked: int
) -> None:
    built = {"index_type": index_type, "index_params": {}, "search_params": params}
    release = Fingerprint(model_version="", dim=4, metric="IP", count=1, attributes={}, attributes_digest="", **built)
    assert hits_to_ask(fetched, wanted, release.breadth) == asked

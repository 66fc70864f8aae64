"""How many hits Milvus is asked for."""

import pytest

from server.serving.depth import hits_to_ask


@pytest.mark.parametrize(
    ("fetched", "wanted", "params", "asked"),
    [
        (128, 50, {"ef": 128}, 50),  # the index finds the same 50, whatever more is asked for
        (128, 51, {"ef": 128}, 60),  # in tens
        (128, 127, {"ef": 128}, 128),
        (100, 99, {"ef": 100}, 100),  # no more than the index looks at
        (192, 150, {"ef": 512}, 150),
        (192, 150, {"ef": 128}, 192),  # Milvus raises ef to the hits: the neighbours would decide what is found
        (128, 50, {"nprobe": 16}, 128),
    ],
)
def test_as_many_as_wanted_where_the_index_finds_the_same(
    fetched: int, wanted: int, params: dict[str, int], asked: int
) -> None:
    assert hits_to_ask(fetched, wanted, params) == asked

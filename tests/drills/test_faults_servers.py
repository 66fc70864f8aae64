"""A short version of `python -m tests.faults.server_kills`."""

from pathlib import Path

from tests.conftest import remove_item_collections
from tests.faults import server_kills


async def test_a_server_that_ends_costs_no_call(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    assert await server_kills.drill(milvus_server_uri, tmp_path, rounds=2, processes=1, seed=1)

"""A short version of `python -m tests.faults.indexer_kills`."""

from pathlib import Path

from tests.conftest import remove_item_collections
from tests.faults import indexer_kills


async def test_killed_commands_harm_nobody(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    assert await indexer_kills.drill(milvus_server_uri, tmp_path, kills=5, seed=1)

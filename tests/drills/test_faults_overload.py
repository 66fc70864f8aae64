"""A short version of `python -m tests.faults.overload`."""

from pathlib import Path

from tests.conftest import remove_item_collections
from tests.faults import overload


async def test_pressure(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    assert await overload.drill(milvus_server_uri, tmp_path, seconds=3, connections=200, slow_calls=20, items=2_000)

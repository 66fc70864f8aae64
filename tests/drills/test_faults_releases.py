"""Short versions of `python -m tests.faults.adversary`."""

from pathlib import Path

import pytest

from tests.conftest import remove_item_collections
from tests.faults import adversary
from tests.milvus_server import Milvus


async def test_two_operators_with_clocks_that_differ(tmp_path: Path) -> None:
    with adversary.on_lite(tmp_path, seed=1) as drill:
        await adversary.drill(drill, steps=120)


@pytest.mark.timeout(300)
async def test_two_operators_and_three_servers(milvus_server: Milvus, tmp_path: Path) -> None:
    remove_item_collections(milvus_server.uri)
    async with adversary.on_milvus(milvus_server, tmp_path, seed=1, restarts=False) as drill:
        await adversary.drill(drill, steps=10)
        assert drill.fleet and drill.fleet.tally["answers"] > 20

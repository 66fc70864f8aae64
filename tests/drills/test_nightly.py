"""`python -m tests.faults.nightly`: seven nights, two with bad data, one killed in five steps, one rolled back."""

from pathlib import Path

import pytest

from tests.conftest import remove_item_collections
from tests.faults import nightly
from tests.milvus_server import Milvus


@pytest.mark.timeout(600)
async def test_bad_nights_never_go_live(milvus_server: Milvus, tmp_path: Path) -> None:
    remove_item_collections(milvus_server.uri)
    findings, _ = await nightly.drill(milvus_server, tmp_path / "nights")
    assert findings.faults == []

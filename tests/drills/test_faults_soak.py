"""A short version of `python -m tests.faults.soak`."""

from pathlib import Path

import pytest

from tests.conftest import remove_item_collections
from tests.faults import soak


async def test_releases_leave_nothing_behind(
    milvus_server_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "MAX_SLOPE_MB", 20)  # so few releases only fill caches
    monkeypatch.setattr(soak, "MAX_SLOPE", 1)  # of descriptors: from the second release on, two models are mapped
    remove_item_collections(milvus_server_uri)
    assert await soak.drill(milvus_server_uri, tmp_path, releases=3, period_s=1)

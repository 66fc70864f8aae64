"""Several servers behind one client: what is asked is shared out evenly."""

from pathlib import Path

import pytest

from tests.bench.scaling import SERVERS, slow, table


def test_calls_are_spread_evenly_over_servers(tmp_path: Path) -> None:
    alone, together = slow(tmp_path, seconds=2)
    assert alone.shares == (1.0,)
    assert together.servers == SERVERS
    assert together.shares == pytest.approx([1 / SERVERS] * SERVERS, abs=0.15)
    assert alone.refused == together.refused == 0
    shown = [list(column.cells) for column in table("", [alone, together]).columns]
    assert shown[0] == ["1", "3"]
    assert shown[2][0] == "1.00"

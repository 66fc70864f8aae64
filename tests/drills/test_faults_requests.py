"""A short version of `python -m tests.faults.fuzz_requests`."""

from pathlib import Path

import pytest

from tests.faults.fake_server import fake_server
from tests.faults.fuzz_requests import drill


@pytest.mark.parametrize("text", [False, True], ids=["integers", "text"])
def test_hostile_requests(text: bool, tmp_path: Path) -> None:
    with fake_server(tmp_path, text) as (address, server):
        assert drill(address, server, requests=1_500, rng_seed=1, text=text)
    assert "Traceback" not in (tmp_path / "server.log").read_text()

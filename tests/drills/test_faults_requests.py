"""A short version of `python -m tests.faults.fuzz_requests`."""

from pathlib import Path

from tests.faults.fake_server import fake_server
from tests.faults.fuzz_requests import drill


def test_hostile_requests(tmp_path: Path) -> None:
    with fake_server(tmp_path) as (address, server):
        assert drill(address, server, requests=1_500, rng_seed=1)
    assert "Traceback" not in (tmp_path / "server.log").read_text()

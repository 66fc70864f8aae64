"""A short version of `python -m tests.faults.fuzz_tables`."""

from pathlib import Path

import pytest

from tests.faults.fuzz_tables import KINDS, judge
from tests.faults.tally import Tally


@pytest.mark.parametrize("kind", KINDS)
def test_two_readers_agree_on_random_files(kind: str, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(70):
        tally.add(kind, *judge(kind, f"1/{kind}/{number}", tmp_path))
    assert tally.clean
    assert tally.outcomes[kind]["refused"] > 0 and tally.outcomes[kind]["read"] > 35

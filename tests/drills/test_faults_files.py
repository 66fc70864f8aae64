"""A short version of `python -m tests.faults.fuzz_files`."""

from pathlib import Path

import pytest

from tests.faults.files import TARGETS, Target, judge
from tests.faults.tally import Tally


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_right_or_refused(target: Target, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(100):
        tally.add(target.name, *judge(target, tmp_path / target.name, f"1/{target.name}/{number}"))
    assert tally.clean
    assert tally.outcomes[target.name]["refused"] > 10

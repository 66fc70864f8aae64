"""The benchmark of one call: its parts are all of it."""

import pytest

from tests.bench import one_call


def test_the_parts_are_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    one_call.main(turns=1)  # of which a median is the value itself
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    spent = [int(row[2]) for row in rows if len(row) == 4 and row[2].lstrip("-").isdigit()]
    *parts, whole = spent
    assert len(parts) == len(one_call.PARTS) and whole > 0
    assert sum(parts) == pytest.approx(whole, abs=len(parts))

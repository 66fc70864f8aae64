"""The days of the data are counted, and kept beside what was prepared."""

from pathlib import Path

import numpy as np
import pytest

from mind.data import days
from mind.data.days import count_days, read_days
from mind.data.time_units import TimeUnit
from mind.errors import DataError
from tests.commands import run_here

DAY = 86_400


@pytest.mark.parametrize("unit", TimeUnit)
def test_each_day_has_its_interactions(unit: TimeUnit) -> None:
    times = np.array([19_000 * DAY, 19_000 * DAY + DAY - 1, 19_003 * DAY, -5, 9 * 10**9]) * unit.per_second
    assert count_days(times, unit) == {"2022-01-08": 2, "2022-01-11": 1}
    assert count_days(times.astype(np.float64), unit) == {"2022-01-08": 2, "2022-01-11": 1}


def test_days_are_counted_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "PART_ITEMS", 3)
    assert count_days(np.array([2, 1, 1, 2, 1, 1, 4]) * DAY, TimeUnit.S) == {
        "1970-01-02": 4, "1970-01-03": 2, "1970-01-05": 1
    }  # fmt: skip


def test_times_that_are_no_moments_have_no_days() -> None:
    assert count_days(np.arange(5), None) == {}
    assert count_days(np.zeros(0, np.int64), TimeUnit.S) == {}


def test_prepare_writes_them(tmp_path: Path) -> None:
    clicks = [f"{user},{item},{19_000 * DAY + item * DAY}" for user in range(10) for item in range(6) if item != 3]
    (tmp_path / "clicks.csv").write_text("\n".join(["user_id,item_id,timestamp", *clicks]))
    done = run_here("mind.prepare", tmp_path / "clicks.csv", "--output", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    found = read_days(tmp_path / "data")
    assert found == {f"2022-01-{8 + day:02}": 10 for day in range(6) if day != 3}
    assert read_days(tmp_path) == {}
    (tmp_path / "days.json").write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object"):
        read_days(tmp_path)

"""The gate: what each check refuses, with its value and its limit."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from indexer.nightly.config import Gate
from indexer.nightly.data import Catalogue, DataFigures, read_figures
from indexer.nightly.gate import Check, check_data, check_models, refused
from mind.data.paddlerec import write_eval, write_train
from mind.evaluation.analysis import Mean
from mind.evaluation.side_by_side import Comparison, Side
from mind.sequences import EvalCases
from tests.server.test_metrics import sequences

NIGHT = date(2026, 3, 1)
DAYS = {str(NIGHT - timedelta(days=ago)): 100 for ago in range(1, 31)}
DATA = DataFigures(rows=1_000, users=100, items=50, days=DAYS)
ITEMS = Catalogue(np.arange(50), np.arange(50)[::-1] + 1)


def data_checks(
    data: DataFigures = DATA, items: Catalogue = ITEMS, first: bool = False, **limits: float
) -> dict[str, Check]:
    before = None if first else (DATA, ITEMS)
    return {one.name: one for one in check_data(Gate(**limits), NIGHT, data, items, before)}  # type: ignore[arg-type]


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, one in checks.items() if not one.passed]


def test_data_like_those_of_the_last_night_pass() -> None:
    checks = data_checks()
    assert failed(checks) == []
    assert (checks["unknown_items"].value, checks["overlap"].value) == (0, pytest.approx(1))


def test_half_of_the_data_is_refused() -> None:
    half = DataFigures(rows=500, users=99, items=50, days=DAYS)
    checks = data_checks(half)
    assert failed(checks) == ["rows"]
    assert refused(checks.values()) == ["rows: 500, at least 800 are asked for (gate.min_share 0.8 of 1,000 before)"]
    assert failed(data_checks(half, min_share=0.4)) == []
    assert failed(data_checks(half, first=True)) == []
    assert failed(data_checks(half, first=True, min_rows=501, min_items=51)) == ["rows", "items"]


def test_a_day_that_is_missing_is_refused() -> None:
    days = {day: count for day, count in DAYS.items() if day != "2026-02-27"}
    checks = data_checks(DataFigures(1_000, 100, 50, days))
    assert failed(checks) == ["missing_days"]
    assert "(2026-02-27), at most 0 may (gate.max_missing_days)" in checks["missing_days"].says
    assert failed(data_checks(DataFigures(1_000, 100, 50, days), max_missing_days=1)) == []
    assert failed(data_checks(DataFigures(1_000, 100, 50, days), calendar_days=1)) == []
    late = {day: count for day, count in DAYS.items() if day != "2026-02-28"}  # the newest day has not come
    assert failed(data_checks(DataFigures(1_000, 100, 50, late))) == ["missing_days"]
    assert failed(data_checks(DataFigures(1_000, 100, 50, {}))) == ["missing_days"]
    assert "missing_days" not in data_checks(DataFigures(1_000, 100, 50, {}), calendar_days=0)


def test_a_newest_day_that_is_half_there_is_refused() -> None:
    checks = data_checks(DataFigures(1_000, 100, 50, DAYS | {"2026-02-28": 20}))
    assert failed(checks) == ["newest_day"]
    assert checks["newest_day"].value == pytest.approx(0.2)


def test_other_items_are_refused() -> None:
    renamed = Catalogue(ITEMS.item_id + 20, ITEMS.clicks)
    checks = data_checks(items=renamed)
    assert failed(checks) == ["unknown_items", "overlap"]
    assert checks["unknown_items"].value == pytest.approx(0.4)
    turned = Catalogue(ITEMS.item_id, ITEMS.clicks[::-1])  # the same ids, given to other items
    assert failed(data_checks(items=turned, min_overlap=0.6)) == ["overlap"]


def side(version: str = "a", recall: float = 0.4, fallback: float = 0.01, coverage: float = 0.5) -> Side:
    return Side(version, 100, Mean(recall, 0.01), 0.2, 0.9, fallback, coverage, 0.5, 1.5)


def models(candidate: Side, live: Side | None = None, new_items: float = 0.01, users: int = 1_000) -> Comparison:
    difference = Mean(candidate.recall.mean - live.recall.mean, 0.004) if live else None
    return Comparison(users, candidate, live, difference, 0.8 if live else None, new_items if live else None, [])


def model_checks(found: Comparison, live_before: float | None = None, **limits: float) -> dict[str, Check]:
    return {one.name: one for one in check_models(Gate(**limits), found, live_before)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("candidate", "new_items", "name"),
    [
        (side(recall=0.395), 0.01, ""),
        (side(recall=0.385), 0.01, "recall_drop"),
        (side(fallback=0.04), 0.01, "fallback_rise"),
        (side(fallback=0.6), 0.01, "fallback fallback_rise"),
        (side(coverage=0.3), 0.01, "coverage"),
        (side(), 0.5, "new_items"),
    ],
)
def test_a_candidate_that_is_worse_is_refused(candidate: Side, new_items: float, name: str) -> None:
    assert " ".join(failed(model_checks(models(candidate, side("live"), new_items)))) == name


def test_a_drop_is_told_with_its_limit_and_uncertainty() -> None:
    (says,) = refused(check_models(Gate(), models(side(recall=0.385), side("live")), None))
    assert says == (
        "recall_drop: recall@50 0.3850, the live model's 0.4000 on the same 1,000 users: -0.0150 ± 0.0040, "
        "it may fall by 0.01 (gate.max_drop)"
    )


def test_a_live_model_that_finds_little_tells_that_the_data_changed() -> None:
    found = models(side(recall=0.4), side("live", recall=0.1))
    assert failed(model_checks(found, live_before=0.4)) == ["live_drop"]
    assert failed(model_checks(found, live_before=0.15)) == []
    assert failed(model_checks(found, live_before=None)) == []


def test_the_first_night_has_absolute_limits_alone() -> None:
    checks = model_checks(models(side(recall=0.2)), min_recall=0.3)
    assert checks.keys() == {"test_users", "recall", "fallback"}
    assert failed(checks) == ["recall"]
    assert failed(model_checks(models(side(), users=19))) == ["test_users"]


def test_prepared_data_count_every_user_once(tmp_path: Path) -> None:
    write_train(tmp_path / "train" / "train.txt", sequences([1, 2, 2], [3, 4]))  # users 1 and 2
    cases = EvalCases(sequences([1, 2, 2]), sequences([9]))  # user 1 again, with a later click
    write_eval(tmp_path / "valid" / "valid.txt", EvalCases(sequences([1, 2]), sequences([2])))
    write_eval(tmp_path / "test" / "test.txt", cases)
    data, items = read_figures(tmp_path)
    assert (data.rows, data.users, data.items, data.days) == (6, 2, 5, {})
    assert dict(zip(items.item_id.tolist(), items.clicks.tolist(), strict=True)) == {1: 1, 2: 2, 3: 1, 4: 1, 9: 1}
    items.write(tmp_path)
    kept = Catalogue.read(tmp_path)
    assert kept and kept.overlap(items) == pytest.approx(1)
    assert Catalogue.read(tmp_path / "train") is None

"""The benchmark of memory and starts, with a small catalogue and few requests."""

from pathlib import Path

import pytest

from tests.bench import memory


def test_memory_start_and_switches_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("STARTS", 1), ("PROCESSES", 2), ("QUESTIONS", 31), ("STEADY_S", 0.5)):
        monkeypatch.setattr(memory, name, few)
    row = memory.measure(tmp_path, items=20_000, turns=2, rate=50)
    (start_s, _), (loading_s, _) = row.start_s[0], row.loading_s[0]
    assert 0 < loading_s < start_s
    assert 0 < row.own_gb <= row.pss_gb < row.pss_of_all_gb < 2 * row.pss_gb  # two share the model
    assert len(row.switch_s) == 2 and row.steady_ms and row.switching_ms
    shown, latency = memory.table([row], rate=50)
    assert next(iter(shown.columns[0].cells)) == next(iter(latency.columns[0].cells)) == "20,000"
    assert next(iter(latency.columns[1].cells)) == "2"

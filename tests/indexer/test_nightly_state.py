"""What a night remembers, the lock, and the commands that it starts."""

import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexer.errors import LockedError, NightlyError
from indexer.nightly import run, steps
from indexer.nightly.lock import locked
from indexer.nightly.metrics import METRICS, write_metrics
from indexer.nightly.programs import run_program
from indexer.nightly.run import Exit, run_night
from indexer.nightly.state import STATE, Done, Night, State, last_released, open_night
from tests import ROOT
from tests.waiting import wait_until

NIGHT = date(2026, 3, 1)
BEGAN = datetime(2026, 3, 1, 3, tzinfo=UTC)


def night_of(work: Path, day: date = NIGHT, **changes: Any) -> Night:
    night = Night(work / str(day), State(date=day, began_at=BEGAN, **changes))
    night.save()
    return night


def released(work: Path, day: date, version: str = "a", **changes: Any) -> Night:
    done = {"push": Done(seconds=1, figures={"model_version": version}), "rollback": Done(seconds=0)}
    return night_of(work, day, steps=done, **changes)


def test_a_state_is_kept_whole(tmp_path: Path) -> None:
    night = night_of(tmp_path, steps={"check": Done(seconds=1.5, figures={"rows": 3})})
    again = open_night(tmp_path, NIGHT)
    assert again.state == night.state
    assert again.figures("check") == {"rows": 3}
    assert again.figures("train") == {}
    assert [file.name for file in night.directory.iterdir()] == [STATE]
    (night.directory / STATE).write_text('{"date": 7}')
    with pytest.raises(NightlyError, match=r"state.json: cannot be used: (?s:.*)remove the directory"):
        open_night(tmp_path, NIGHT)


@pytest.mark.parametrize(
    ("outcome", "hours", "expected"),
    [("", 2, "2026-03-01"), ("", 13, "2026-03-02"), ("refused", 2, "2026-03-02")],
)
def test_an_unfinished_night_is_gone_on_with(tmp_path: Path, outcome: str, hours: int, expected: str) -> None:
    before_midnight = datetime(2026, 3, 1, 23, tzinfo=UTC)
    night = Night(tmp_path / "2026-03-01", State(date=NIGHT, began_at=before_midnight, outcome=outcome))
    night.save()
    opened = open_night(tmp_path, None, before_midnight + timedelta(hours=hours))
    assert str(opened.state.date) == expected


def test_the_last_release_is_what_a_night_is_compared_with(tmp_path: Path) -> None:
    released(tmp_path, date(2026, 2, 26), "old")
    released(tmp_path, date(2026, 2, 27), "good")
    night_of(tmp_path, date(2026, 2, 28), outcome="refused", exit_code=3)
    released(tmp_path, date(2026, 3, 1), "fell", fell="errors")
    released(tmp_path, date(2026, 3, 2), "later")
    found = last_released(tmp_path, date(2026, 3, 2))
    assert found and found.released_version == "good"
    assert last_released(tmp_path, date(2026, 2, 26)) is None


class Shift(SimpleNamespace):
    """As much of a shift as `run_night` looks at."""


def shift_with(monkeypatch: pytest.MonkeyPatch, work: Path, **does: Any) -> Any:
    """A night whose steps are these functions."""
    monkeypatch.setattr(run, "STEPS", does)
    return Shift(night=open_night(work, NIGHT))


def ran(shift: Any) -> tuple[Exit, list[tuple[str, str]]]:
    lines: list[dict[str, Any]] = []
    code = run_night(shift, lines.append, lambda name: None)
    return code, [(line["step"], line["outcome"]) for line in lines]


def test_a_night_goes_on_with_the_step_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def first(shift: Any) -> dict[str, Any]:
        calls.append("first")
        return {"rows": 1}

    def second(shift: Any) -> dict[str, Any]:
        calls.append("second")
        if len(calls) < 3:
            raise NightlyError("the disk is full")
        return {}

    shift = shift_with(monkeypatch, tmp_path, first=first, second=second)
    assert ran(shift) == (Exit.FAILED, [("first", "done"), ("second", "failed")])
    again = shift_with(monkeypatch, tmp_path, first=first, second=second)
    assert ran(again) == (Exit.RELEASED, [("second", "done")])
    assert calls == ["first", "second", "second"]
    assert ran(shift_with(monkeypatch, tmp_path, first=first)) == (Exit.RELEASED, [])  # it is over
    once_more = shift_with(monkeypatch, tmp_path, first=first, second=second)
    once_more.night.forget_from("second", ["first", "second"])
    assert ran(once_more) == (Exit.RELEASED, [("second", "done")])


def test_a_refused_night_is_over_and_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = SimpleNamespace(name="rows", says="too few", passed=False)

    def refuse(shift: Any) -> dict[str, Any]:
        raise steps.Refused([check], {"rows": 5})  # type: ignore[list-item]

    shift = shift_with(monkeypatch, tmp_path, check=refuse, train=lambda shift: {})
    assert ran(shift) == (Exit.REFUSED, [("check", "refused")])
    kept = open_night(tmp_path, NIGHT)
    assert (kept.state.outcome, kept.state.exit_code, kept.figures("check")) == ("refused", 3, {"rows": 5})
    assert ran(shift_with(monkeypatch, tmp_path, check=refuse)) == (Exit.REFUSED, [])


def test_a_release_that_fell_is_told_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(shift: Any) -> dict[str, Any]:
        shift.night.state.fell = "errors"
        return {}

    shift = shift_with(monkeypatch, tmp_path, watch=watch, rollback=lambda shift: {})
    assert ran(shift)[0] is Exit.ROLLED_BACK
    assert open_night(tmp_path, NIGHT).state.fell == "errors"


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(LockedError) as caught, locked(tmp_path, patience_s=0):
        pass
    assert f"another run holds the lock: process {os.getpid()} on " in str(caught.value)
    with locked(tmp_path, patience_s=0):
        pass


def test_the_lock_is_held_by_what_a_killed_run_left(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, time
from pathlib import Path
from indexer.nightly.lock import locked
with locked(Path({str(tmp_path)!r})) as lock:
    subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin, pass_fds=[lock])
    print("started", flush=True)
    time.sleep(60)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        holder.kill()
        holder.wait()
        with pytest.raises(LockedError, match="a command that was started by process"), locked(tmp_path, patience_s=0):
            pass
        holder.stdin.write("\n")
        holder.stdin.flush()
        with locked(tmp_path, patience_s=30):  # waits for its end
            pass


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "prepare.log"
    with pytest.raises(NightlyError) as caught:
        run_program(["mind.prepare", str(tmp_path / "none.csv"), "--output", str(tmp_path)], log, {})
    assert "ended with exit code 1" in str(caught.value) and "none.csv" in str(caught.value)
    assert str(log) in str(caught.value)
    assert log.read_text().startswith("$ python -m mind.prepare ")


def test_a_command_ends_when_the_night_is_killed(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from indexer.nightly.programs import run_program
run_program(["tests.indexer.slow_program"], Path({str(tmp_path / "log")!r}), {{}})
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as parent:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and "pid " in log.read_text())
        child = int(log.read_text().split("pid ")[1].split()[0])
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not Path(f"/proc/{child}").exists() or "ended" in log.read_text())
    assert "ended by SIGTERM" in log.read_text()


def test_metrics_tell_the_last_night(tmp_path: Path) -> None:
    checks = [{"name": "rows", "passed": False}, {"name": "users", "passed": True}]
    night = night_of(
        tmp_path,
        steps={
            "check": Done(seconds=2.5, figures={"rows": 5, "users": 2, "items": 3, "checks": checks}),
            "evaluate": Done(seconds=1, figures={"recall": 0.25, "live_recall": None}),
        },
    )
    released(tmp_path, date(2026, 2, 1), ended_at=datetime(2026, 2, 1, tzinfo=UTC))
    file = tmp_path / "out" / "nightly.prom"
    write_metrics(file, tmp_path, night, Exit.REFUSED)
    lines = file.read_text().splitlines()
    assert "recall_nightly_exit_code 3" in lines
    assert 'recall_nightly_check_failed{check="rows"} 1' in lines
    assert 'recall_nightly_check_failed{check="users"} 0' in lines
    assert 'recall_nightly_data{what="users"} 2' in lines
    assert 'recall_nightly_step_seconds{step="check"} 2.5' in lines
    assert 'recall_nightly_recall_ratio{model="candidate"} 0.25' in lines
    assert not any('model="live"' in line for line in lines)
    assert "recall_nightly_released_timestamp_seconds 1769904000" in lines
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == METRICS.keys()

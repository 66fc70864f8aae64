"""What schedulers run every night: the cron line and the DAG's command run here, on data that cannot be prepared."""

import json
import os
import re
import runpy
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest
from jinja2 import Environment

from tests import ROOT

SCHEDULERS = ROOT / "docker" / "schedulers"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout with what both examples expect in it."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "recall.env").write_text("RECALL_MILVUS_URI=http://127.0.0.1:9\n")
    (tmp_path / "nightly.yaml").write_text("prepare: {input: '{date}.csv'}\n")
    return tmp_path


def run(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    here = command.replace("/srv/recall", str(home))
    assert here != command
    return subprocess.run(["/bin/sh", "-c", here], capture_output=True, text=True, check=False, cwd="/", env=os.environ)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_the_cron_line_runs(home: Path) -> None:
    (line,) = [line for line in (SCHEDULERS / "recall.cron").read_text().splitlines() if not line.startswith("#")]
    *times, user, command = line.split(maxsplit=6)
    assert all(re.fullmatch(r"\d+|\*", field) for field in times)
    assert (user, "%" in command) == ("recall", False)  # cron makes new lines of per cent signs
    assert run(command, home).returncode == 1
    prepare, night = lines((home / "nightly.log").read_text())
    assert (prepare["step"], prepare["outcome"], night["exit_code"]) == ("prepare", "failed", 1)
    assert f"{date.fromisoformat(night['night'])}.csv" in prepare["why"]
    assert "recall_nightly_exit_code 1" in (home / "metrics" / "recall.prom").read_text()


class Recorder:
    """Stands for a class of Airflow, and keeps what it was given."""

    made: list[dict[str, Any]]

    def __init__(self, **given: Any) -> None:
        self.made.append(given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_dag_runs_one_command_for_the_date_of_its_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dags: list[dict[str, Any]] = []
    tasks: list[dict[str, Any]] = []
    kinds = {
        "DAG": type("DAG", (Recorder,), {"made": dags}),
        "BashOperator": type("Bash", (Recorder,), {"made": tasks}),
    }
    operators = "airflow.providers.standard.operators.bash"
    parents = ["airflow", "airflow.providers", "airflow.providers.standard", "airflow.providers.standard.operators"]
    for name in (*parents, operators, "airflow.sdk"):
        module = ModuleType(name)
        vars(module).update(kinds)
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(SCHEDULERS / "airflow_dag.py"))
    (dag,), (task,) = dags, tasks
    assert (dag["schedule"], dag["catchup"], dag["max_active_runs"]) == ("30 3 * * *", False, 1)
    assert task["execution_timeout"] > timedelta(hours=1)
    environment = Environment(autoescape=True)
    environment.filters["ds"] = lambda moment: moment.strftime("%Y-%m-%d")
    command = environment.from_string(task["bash_command"]).render(data_interval_end=datetime(2026, 3, 1, 3, 30))
    done = run(command, home)
    assert done.returncode == 1
    assert lines(done.stdout)[-1]["night"] == "2026-03-01"
    assert (home / "data" / "nightly" / "2026-03-01" / "report.html").exists()

"""`mind.prepare --engine spark` on Spark in local mode, and two processes that train from the files it writes.

PySpark is not among the development packages, because it has 450 MB. It is installed once into the cache of pytest.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.commands import run_here
from tests.drills.test_training_processes import launched
from tests.mind.test_train import overrides
from tests.spark_cases import CASES, assert_same, without_steps, write_inputs

VERSION = "4.0.1"
JAVA = 17
SCRIPT = """
import json, sys
from contextlib import redirect_stdout
from mind.command import call
from mind.prepare import app, console
for words, printed in json.load(open(sys.argv[1])):
    with open(printed, "w") as file, redirect_stdout(file):
        call(app, words)
"""
"""Runs commands in one process, so that Java starts once."""


def _java() -> str:
    """What is wrong with Java here; empty if nothing is."""
    if not (java := shutil.which("java")):
        return f"needs Java {JAVA} or later"
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    return "" if version and int(version[1]) >= JAVA else f"needs Java {JAVA} or later, found {told.splitlines()[:1]}"


@pytest.fixture(scope="module")
def pyspark(request: pytest.FixtureRequest) -> str:
    """The directory that holds PySpark."""
    if reason := _java():
        pytest.skip(reason)
    if (spec := importlib.util.find_spec("pyspark")) and spec.origin:
        return str(Path(spec.origin).parents[1])
    directory = request.config.cache.mkdir(f"pyspark-{VERSION}")  # type: ignore[union-attr]
    if not (directory / "done").exists():
        wanted = ["--target", str(directory), "--upgrade", f"pyspark=={VERSION}"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", *wanted],
            capture_output=True, text=True, check=False, timeout=800,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"PySpark cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        (directory / "done").touch()
    return str(directory)


@pytest.mark.timeout(1_500)
def test_spark_writes_what_one_machine_does_and_two_processes_train_from_it(pyspark: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    runs, expected = [], {}
    for case, (name, options) in CASES.items():
        output = tmp_path / "out" / case
        one = run_here("mind.prepare", tmp_path / name, "--output", output / "one", *options)
        assert one.returncode == 0, one.stderr
        words = [str(tmp_path / name), "--output", str(output / "spark"), *options]
        runs.append(([*words, "--engine", "spark", "--master", "local[2]"], str(output / "printed")))
        expected[case] = without_steps(one.stdout)
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    path = os.pathsep.join([str(ROOT), pyspark])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "runs.json"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=1_200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for case in CASES:
        assert_same(tmp_path / "out" / case / "one", tmp_path / "out" / case / "spark")
        assert without_steps((tmp_path / "out" / case / "printed").read_text()) == expected[case]

    data = tmp_path / "out" / "users" / "spark"
    launched(tmp_path, *overrides(data, runner__model_save_path=tmp_path / "two", runner__epochs=1))

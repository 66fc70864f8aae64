"""Training and searches by processes that are killed, and by two processes together."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import load_artifact, newest_artifact
from mind.errors import ArtifactError
from tests import ROOT
from tests.commands import run_here
from tests.mind.test_train import CONFIG, here, models, overrides, write_data
from tests.mind.test_tune import DIM, RATE, short_runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_a_killed_run_goes_on_and_gives_the_same_model(data: Path, tmp_path: Path) -> None:
    longer = {"runner__epochs": 6, "runner__checkpoint_interval_s": 0.001, "runner__print_interval": 1}
    whole, killed = (overrides(data, runner__model_save_path=tmp_path / name, **longer) for name in ("whole", "killed"))
    assert here("mind.train", *whole).returncode == 0
    words = [sys.executable, "-m", "mind.train", "-m", str(CONFIG), *killed]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("    2 "):  # epoch 2 is done, four are to come
            assert process.poll() is None
        process.kill()
    assert models(tmp_path / "killed") == [] and list((tmp_path / "killed").glob("checkpoint-*.npz"))
    resumed = here("mind.train", *killed)
    assert "going on from" in resumed.stdout, resumed.stderr
    assert models(tmp_path / "killed") == models(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*checkpoint-*"))


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    def epochs(name: str, *launcher: str) -> list[float]:
        keys = overrides(data, runner__model_save_path=tmp_path / name, runner__epochs=3, hyper_parameters__dropout=0)
        words = [sys.executable, *launcher, "mind/train.py", "-m", str(CONFIG), *keys]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        (version,) = models(tmp_path / name)
        return [epoch["loss"] for epoch in load_artifact(tmp_path / name / version).metrics["epochs"]]

    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log")]
    np.testing.assert_allclose(epochs("two", *launcher), epochs("one"), rtol=1e-3)


def test_two_processes_that_go_on_end_as_if_they_had_not_stopped(tmp_path: Path) -> None:
    script, found = tmp_path / "script.py", tmp_path / "found.json"
    script.write_text(f"from tests.mind.test_training import *\nwhole_and_resumed(Path({str(found)!r}))\n")
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log")]
    root = ROOT
    done = subprocess.run(
        [sys.executable, *launcher, str(script)], cwd=root, env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    how = json.loads(found.read_text())
    whole, resumed = how["losses"]
    assert whole == resumed and how["last_step"] == [2, 24, 24]


def test_a_killed_search_goes_on(tmp_path: Path) -> None:
    save = f"runner.model_save_path={tmp_path}"
    words = [sys.executable, "-W", "error", "-m", "mind.tune", "-m", str(CONFIG), "--trials", "2"]
    words += [word for override in [*short_runs(tmp_path / "data"), save] for word in ("-o", override)]
    words += ["--space", f"{DIM}=[8, 16, 32]", "--space", f"{RATE}=0.001..0.02"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
        assert killed.stdout
        for line in killed.stdout:
            if line.startswith("#0"):
                killed.send_signal(signal.SIGKILL)
                break
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 trials are done, the best #0 with" in done.stdout and "#0 " in done.stdout
    trials = tmp_path / "trials"
    models = {path.parent.name for path in trials.glob("*/manifest.json")}
    assert len(models) == 2 and all(model in done.stdout for model in models)
    assert f"best: {trials}/" in done.stdout and "2 trials: 2 models" in done.stdout
    assert all(isinstance(json.loads(line), dict) for line in (trials / "study.jsonl").read_text().splitlines())

    with pytest.raises(ArtifactError, match="holds no model"):
        newest_artifact(tmp_path)  # what `indexer build` and servers take
    push = re.search(r"to serve it: python -m (mind\.models push .*)", done.stdout)
    assert push
    assert run_here(*shlex.split(push[1])).returncode == 0
    assert newest_artifact(tmp_path).name in models

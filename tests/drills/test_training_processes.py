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

from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.errors import ArtifactError
from tests import ROOT
from tests.commands import run_here
from tests.mind.test_train import CONFIG, here, models, overrides, write_data
from tests.mind.test_training import clustered
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
    assert "continues from" in resumed.stdout, resumed.stderr
    assert models(tmp_path / "killed") == models(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob("*checkpoint-*"))


def launched(directory: Path, *words: str | Path) -> None:
    """Train in two processes that `paddle.distributed.launch` starts."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(directory / "log")]
    done = subprocess.run(
        [sys.executable, *launcher, "mind/train.py", "-m", str(CONFIG), *map(str, words)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    logs = "".join(file.read_text() for file in (directory / "log").glob("workerlog.*"))
    assert done.returncode == 0, done.stdout + done.stderr + logs


def test_two_processes_with_half_of_the_users_each_train_as_one(data: Path, tmp_path: Path) -> None:
    def words(name: str) -> list[str]:
        return overrides(data, runner__model_save_path=tmp_path / name, runner__epochs=3, hyper_parameters__dropout=0)

    assert here("mind.train", *words("one")).returncode == 0
    launched(tmp_path, *words("two"))
    assert_alike(*(load_artifact(newest_artifact(tmp_path / name)) for name in ("one", "two")))


def test_two_processes_train_as_one_on_kinds_and_ages_finally_and_from_a_model(tmp_path: Path) -> None:
    """Weighted targets, half-life, trending items, the users of every part, and items that an earlier model lacks."""
    write_kinds(tmp_path / "clicks.csv")
    prepared = run_here(
        "mind.prepare", tmp_path / "clicks.csv", "--output", tmp_path / "data", "--keep-ages",
        "--event", "kind", "--history", "view,buy", "--target", "buy=3,view=1",
    )  # fmt: skip
    assert prepared.returncode == 0, prepared.stderr
    hyper = {"hyper_parameters__half_life_days": 30, "hyper_parameters__trending_days": 60}
    hyper |= {"hyper_parameters__dropout": 0}
    first = overrides(tmp_path / "data", runner__model_save_path=tmp_path / "first", runner__epochs=2, **hyper)
    assert here("mind.train", *first).returncode == 0
    chosen = str(newest_artifact(tmp_path / "first"))
    for option in ("--final", "--warm-start"):
        one, two = tmp_path / option / "one", tmp_path / option / "two"
        for where in (one, two):
            keys = overrides(tmp_path / "data", runner__model_save_path=where, runner__epochs=2, **hyper)
            if option == "--final":  # which takes the hyper-parameters of the model
                pairs = zip(keys[::2], keys[1::2], strict=True)
                keys = [word for pair in pairs if not pair[1].startswith("hyper_parameters") for word in pair]
            if where is one:
                assert here("mind.train", *keys, option, chosen).returncode == 0
            else:
                launched(where, *keys, option, chosen)
        assert_alike(*(load_artifact(newest_artifact(where)) for where in (one, two)))


def write_kinds(file: Path) -> None:
    """Clicks of two kinds by 60 users within groups of items, no two alike: an even number of examples."""
    rng = np.random.default_rng(5)
    lines = ["user_id,item_id,timestamp,kind"]
    for user, items in enumerate(clustered(60, 5)):
        for number, item in enumerate(items):
            time_s = 1_700_000_000 + int(rng.integers(0, 200)) * 86_400 + number
            lines.append(f"{user},{item},{time_s},{'buy' if rng.random() < 0.4 else 'view'}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def assert_alike(one: Artifact, two: Artifact) -> None:
    """Two models that were trained on the same batches, but for the order of additions."""
    losses = [[epoch["loss"] for epoch in model.metrics["epochs"]] for model in (one, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert one.data == two.data and one.weights.item_id.tolist() == two.weights.item_id.tolist()
    for name in ("popularity", "golden_hist_index", "golden_seq_len"):
        np.testing.assert_array_equal(getattr(one.weights, name), getattr(two.weights, name), name)
    difference = np.abs(one.weights.item_embedding - two.weights.item_embedding).mean()
    assert difference < 0.02 * np.abs(one.weights.item_embedding).mean()


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

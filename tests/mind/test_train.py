"""The two commands of the model package as a user types them, and what they say when something is wrong."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import load_artifact
from mind.data.paddlerec import digests, write_eval, write_train
from mind.errors import ArtifactError
from mind.sequences import EvalCases, Sequences
from mind.train import app
from mind.training.loop import _Run
from tests import ROOT
from tests.artifacts import make_artifact
from tests.commands import run_here
from tests.mind.test_training import clustered, held_out
from tests.server.test_metrics import sequences

CONFIG = ROOT / "mind" / "config.yaml"


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    words = [sys.executable, "-W", "error", "-m", module, "-m", str(CONFIG), *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def here(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process."""
    return run_here(module, "-m", str(CONFIG), *arguments)


def overrides(directory: Path, **changes: object) -> list[str]:
    keys = {
        "runner.train_data_dir": directory / "train",
        "runner.valid_data_dir": directory / "valid",
        "runner.test_data_dir": directory / "test",
        "runner.model_save_path": directory / "artifacts",
        "runner.epochs": 4,
        "runner.train_batch_size": 64,
        "hyper_parameters.embedding_dim": 16,
        "hyper_parameters.hidden_size": 16,
        "hyper_parameters.optimizer.learning_rate": 0.02,
    } | {key.replace("__", "."): value for key, value in changes.items()}
    return [word for key, value in keys.items() for word in ("-o", f"{key}={value}")]


def write_data(directory: Path, seed: int = 1) -> Path:
    """Small data in PaddleRec's format, of users who click within groups of items; gives the directory."""
    write_train(directory / "train" / "train.txt", sequences(*clustered(300, seed)))
    write_eval(directory / "valid" / "valid.txt", held_out(40, seed + 1))
    write_eval(directory / "test" / "test.txt", held_out(40, seed + 2))
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_train_and_infer(data: Path, tmp_path: Path) -> None:
    trained = command("mind.train", *overrides(data))
    assert trained.returncode == 0, trained.stderr
    assert "300 users, 3,600 interactions to train on" in trained.stdout
    (path,) = (data / "artifacts").iterdir()
    assert f"model {path.name} written to" in trained.stdout
    artifact = load_artifact(path)
    assert artifact.hyper_parameters.item_count == 200
    assert artifact.data["interactions"] == 3600 and set(artifact.data["files"]) == {"train.txt"}
    assert set(artifact.metrics["valid"]) >= {"recall@50", "ndcg@20", "hit_rate@50"}

    again = here("mind.train", *overrides(data))
    assert again.returncode == 0 and [p.name for p in (data / "artifacts").iterdir()] == [path.name]

    served = tmp_path / "served.jsonl"
    users = held_out(40, 3).history.user_id.tolist()
    lines = [json.dumps({"user_id": user, "item_ids": [1, 2, 3]}) for user in users]
    served.write_text("\n".join(lines))
    report = tmp_path / "metrics.json"
    infer = command("mind.infer", *overrides(data), "-top_n", "50", "--candidates", str(served), "--json", str(report))
    assert infer.returncode == 0, infer.stderr
    metrics = json.loads(report.read_text())["metrics"]
    assert list(metrics) == [
        "most popular",
        "item co-occurrence",
        "item-kNN, cosine",
        "EASE",
        "MIND, exact search",
        "served",
    ]
    assert metrics["MIND, exact search"]["recall@50"] > 2 * metrics["most popular"]["recall@50"]
    assert metrics["served"]["recall@50"] == 0
    assert all(name in infer.stdout for name in metrics)

    paddle = tmp_path / "paddle.json"
    here("mind.infer", *overrides(data), "-top_n", "50", "--encoder", "paddle", "--json", str(paddle))
    assert json.loads(paddle.read_text())["metrics"]["MIND, exact search"] == metrics["MIND, exact search"]


@pytest.mark.parametrize(
    ("more", "saved", "says"),
    [
        ([], True, "stopped; the same command goes on from {path}"),
        (["--no-resume"], True, "stopped; the same command without --no-resume goes on from {path}"),
        ([], False, "stopped before the first checkpoint; the same command starts from scratch"),
        (["-o", "runner.checkpoint_interval_s=0"], False, "stopped; runner.checkpoint_interval_s is 0, so nothing was"),
    ],
)
def test_ctrl_c_says_whether_the_same_command_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], saved: bool, says: str
) -> None:
    words = [*overrides(data, runner__model_save_path=tmp_path), *more]
    validate, done = _Run.validate, []

    def stopped(self: _Run, cases: EvalCases, exclude_history: bool) -> dict[str, float]:
        if len(done) == saved:
            raise KeyboardInterrupt
        done.append(1)
        return validate(self, cases, exclude_history)

    with monkeypatch.context() as training:
        training.setattr(_Run, "validate", stopped)
        ended = here("mind.train", *words)
    assert ended.returncode == 130, ended.stderr
    path = next(tmp_path.glob("checkpoint-*"), None)
    assert (path is not None) == saved
    assert says.format(path=path) in ended.stdout
    if path and not more:
        again = here("mind.train", *words)
        assert again.returncode == 0 and f"continues from {path}" in again.stdout


def test_one_directory_of_data_for_all_commands(data: Path, tmp_path: Path) -> None:
    """A forgotten directory once gave the baselines of MovieLens beside a model of other data."""
    keys = overrides(data, runner__model_save_path=tmp_path / "artifacts", runner__epochs=1)
    rest = [word for pair in zip(keys[::2], keys[1::2], strict=True) if "_data_dir" not in pair[1] for word in pair]
    trained = here("mind.train", "--data", data, *rest)
    assert trained.returncode == 0, trained.stderr
    assert "300 users, 3,600 interactions to train on; 40 users choose" in trained.stdout
    (path,) = (tmp_path / "artifacts").iterdir()
    assert load_artifact(path).data["test"] == digests(data / "test")
    done = here("mind.infer", "--data", data, *rest, "-top_n", "5")
    assert (done.returncode, done.stderr) == (0, "")
    other = write_data(tmp_path / "other: data", seed=7)
    for words in (["--data", other], ["--data", data, "-o", f"runner.train_data_dir='{other}/train'"]):
        done = here("mind.infer", *rest, *words)
        assert done.returncode == 1 and "was trained with another train.txt" in done.stderr
    done = here("mind.infer", *rest, "--data", data, "-o", f"runner.test_data_dir='{other}/test'")
    assert done.returncode == 1 and f"{other}/test: beside the training data of model {path.name} lay" in done.stderr


def test_validation_data_of_another_place_are_told(data: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path, seed=7)
    keys = {"runner__model_save_path": tmp_path / "artifacts", "runner__epochs": 1}
    done = here("mind.train", *overrides(other, **keys, runner__valid_data_dir=data / "valid"))
    assert done.returncode == 0
    assert f"warning: runner.valid_data_dir is {data}/valid, though {other}/valid lies beside" in done.stdout
    assert "warning" not in here("mind.train", *overrides(other, **keys)).stdout


def models(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.is_dir()]


def test_a_model_that_cannot_be_written_does_not_cost_its_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Path:
        raise ArtifactError("no space left")

    words = ["-m", str(CONFIG), *overrides(data, runner__model_save_path=tmp_path, runner__epochs=1)]
    with monkeypatch.context() as disk:
        disk.setattr("mind.training.run.write_artifact", full)
        with pytest.raises(ArtifactError):
            app(words, standalone_mode=False)
    assert list(tmp_path.glob("checkpoint-*.npz"))
    with monkeypatch.context() as nothing_to_do:
        nothing_to_do.setattr("mind.training.loop._Run.finish_epoch", full)
        app(words, standalone_mode=False)
    assert len(models(tmp_path)) == 1 and not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1,10,0\n1,garbage,1\n", "train.txt: line 2: item_id is 'garbage'"),
        ("1,10\n", "train.txt: line 1: expected uid,item_id,time"),
        ("", "train"),
        ("1,10,0\n", "no user has 2 items or more"),
        ("1,10,0\n2,20,0\n3,30,0\n", "no user has 2 items or more"),
        ("1,99999999999999999999,0\n", "line 1: item_id is"),
    ],
)
def test_training_data_that_cannot_be_used(data: Path, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "train.txt").write_text(content)
    done = here("mind.train", *overrides(data, runner__train_data_dir=tmp_path))
    assert done.returncode == 1
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_ids_beyond_2_to_the_62(tmp_path: Path, data: Path) -> None:
    big = 2**62
    rows = [[big + item % 7, big + (item + 1) % 7, -(big) - item % 7] for item in range(50)]
    write_train(tmp_path / "train" / "train.txt", sequences(*rows))
    done = here("mind.train", *overrides(tmp_path, runner__valid_data_dir="null"))
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "artifacts").iterdir()
    assert load_artifact(path).weights.item_id.max() == big + 6


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        ("mind.train", ["-o", "runner.epochz=3"], "runner.epochz: unknown key"),
        ("mind.train", ["-o", "runner.epochs=many"], "runner.epochs: Input should be a valid integer"),
        ("mind.train", ["-o", "runner.train_data_dir=/nowhere"], "/nowhere: cannot be read: No such file"),
        ("mind.train", ["-o", "hyper_parameters.optimizer.learning_rate=1e30"], "optimizer.learning_rate is 1e+30"),
        ("mind.train", ["-o", "runner.model_save_path=/proc/models"], "/proc/models: models cannot be written there"),
        ("mind.train", ["-o", "runner.use_gpu=true"], "runner.use_gpu is true, but this Paddle has no GPU"),
        ("mind.infer", ["-o", "runner.model_save_path=/nowhere"], "/nowhere: holds no model"),
    ],
)
def test_one_clear_line_and_no_traceback(data: Path, module: str, arguments: list[str], says: str) -> None:
    done = here(module, *overrides(data), *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        ("/nowhere", "/nowhere: cannot be read: No such file"),
        ("{tmp}/half.jsonl", "39 of 40 test users have no line, such as user 1"),
    ],
)
def test_candidates_must_be_there_and_cover_the_test_users(
    data: Path, tmp_path: Path, candidates: str, says: str
) -> None:
    make_artifact(tmp_path / "artifacts")
    file = tmp_path / "half.jsonl"
    file.write_text('{"user_id": 0, "item_ids": [1]}\n')
    options = overrides(data, runner__model_save_path=tmp_path / "artifacts")
    done = here("mind.infer", *options, "--candidates", candidates.format(tmp=tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_final_model_learns_from_everybody(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    for part, seed, first in (("valid", 2, 1_000), ("test", 3, 2_000)):  # nobody is in two parts
        cases = held_out(40, seed)
        users = first + cases.history.user_id
        write_eval(
            data / part / f"{part}.txt",
            EvalCases(replace(cases.history, user_id=users), replace(cases.target, user_id=users)),
        )
    write_train(
        data / "rest" / "rest.txt", Sequences(np.array([3_000]), np.array([0, 2]), np.array([10**15, 10**15 + 1]))
    )
    config = str(CONFIG)
    chosen = run_here("mind.train", "-m", config, *overrides(data, runner__epochs=3, runner__patience=1))
    assert chosen.returncode == 0, chosen.stderr
    (path,) = (data / "artifacts").iterdir()
    before = load_artifact(path)
    words = ["-m", config, *overrides(data, runner__model_save_path=data / "final")[:-6], "--final", path]
    done = run_here("mind.train", *words)
    assert done.returncode == 0, done.stderr
    assert "381 users, 4,562 interactions to train on; " in done.stdout
    assert f"ends after epoch {before.metrics['epoch']}, as model {path.name} was kept" in done.stdout
    (final,) = (data / "final").iterdir()
    model = load_artifact(final)
    assert model.metrics["epoch"] == before.metrics["epoch"]
    assert model.metrics["valid"] == {}
    assert model.metrics["chosen_by"]["valid"] == before.metrics["valid"]
    assert model.hyper_parameters.embedding_dim == before.hyper_parameters.embedding_dim == 16
    assert {10**15, 10**15 + 1} <= set(model.weights.item_id.tolist())
    assert model.weights.popularity.sum() == model.data["interactions"] == (300 + 40 + 40) * 12 + 2

    refused = run_here("mind.infer", "-m", config, *overrides(data, runner__model_save_path=data / "final"))
    assert "was trained on all data, the test users included (--final)" in refused.stderr
    assert f"Model {path.name} has the same settings and did not see them" in refused.stderr
    served = tmp_path / "served.jsonl"
    line = {"user_id": 2_000, "item_ids": [int(model.weights.item_id[0])], "model_version": final.name, "status": "OK"}
    served.write_text("".join(json.dumps(line | {"user_id": 2_000 + user}) + "\n" for user in range(40)))
    words = [
        "-m",
        config,
        *overrides(data, runner__model_save_path=data / "final"),
        "-top_n",
        1,
        "--candidates",
        served,
    ]
    compared = run_here("mind.infer", *words)
    assert compared.returncode == 0, compared.stderr
    told = f"model {final.name} was trained on all data, so its accuracy cannot be measured; that of model {path.name}"
    assert (
        told in compared.stdout
        and "% of the exact top 1" in " ".join(compared.stdout.split())
        and "Recall" not in compared.stdout
    )
    final.rename(data / "artifacts" / final.name)
    best = run_here("mind.models", "best", data / "artifacts")
    assert best.stdout.strip() == str(path)
    listed = run_here("mind.models", "list", data / "artifacts")
    assert f"all there are; settings of {path.name}" in listed.stdout


def test_what_a_final_model_cannot_be_made_of_is_refused(data: Path, tmp_path: Path) -> None:
    config = str(CONFIG)
    imported = make_artifact(tmp_path / "imported")
    done = run_here("mind.train", "-m", config, "--final", imported)
    assert "the model does not record how it was trained" in done.stderr
    done = run_here("mind.train", "-m", config, "--final", imported, "-o", "hyper_parameters.maxlen=5")
    assert "-o hyper_parameters.maxlen=5: --final takes the hyper-parameters of" in done.stderr
    trained = run_here(
        "mind.train", "-m", config, *overrides(data, runner__epochs=1, runner__model_save_path=tmp_path / "one")
    )
    assert trained.returncode == 0, trained.stderr
    other = write_data(tmp_path / "other", seed=7)
    done = run_here("mind.train", "-m", config, "--data", other, "--final", tmp_path / "one")
    assert "was trained with another train.txt" in done.stderr

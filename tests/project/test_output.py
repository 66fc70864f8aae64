"""Commands print on any terminal: what an encoding does not have becomes a question mark and ends nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mind.artifact import write_artifact
from tests import ROOT
from tests.artifacts import hyper_parameters_of, make_weights
from tests.canned_recall import CannedRecall, running

ENCODINGS = (
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
)


def run(encoding: dict[str, str], *words: str) -> tuple[int, str, str]:
    """The exit code, output and errors of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=os.environ | encoding, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=["ascii", "latin-1", "C"])
def test_candidates_and_models_are_shown(encoding: dict[str, str], tmp_path: Path) -> None:
    with running(CannedRecall()) as target:
        code, output, errors = run(encoding, "clients", "recall", "--hist-item", "43", "--server", target)
        assert (code, errors) == (0, "") and "? 0" in output, "of ● 0"
        titles = tmp_path / "titles.csv"
        titles.write_text("item_id,title\n44,日本語\n", encoding="utf-8")
        words = ["explain", "--hist-item", "43", "--server", target, "--titles", str(titles)]
        code, output, errors = run(encoding, "clients", *words)
        assert (code, errors) == (0, "") and "44 ???" in output
    weights = make_weights()
    curves = [{"epoch": n, "loss": 2.0, "valid": {"recall@50": n / 10}} for n in (1, 2)]
    metrics = {"epoch": 2, "loss": 2.0, "valid": {"recall@50": 0.2}, "epochs": curves}
    write_artifact(tmp_path / "models", hyper_parameters_of(weights), weights, {}, metrics)
    code, output, errors = run(encoding, "mind.models", "compare", str(tmp_path / "models"))
    assert (code, errors) == (0, "") and "20.00" in output

"""Bare `python -m mind` leads to the tools."""

import subprocess

import pytest

from mind.__main__ import TOOLS
from tests import ROOT
from tests.commands import run_here


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return run_here("mind", *words)


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_it_lists_every_module_that_people_run(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    runnable = {path.stem for path in (ROOT / "mind").glob("*.py") if "\napp = typer" in path.read_text("utf-8")}
    assert runnable == set(TOOLS)
    for name, purpose in TOOLS.items():
        (line,) = [line for line in done.stdout.splitlines() if f"python -m mind.{name} " in line]
        assert line.endswith(purpose)


def test_a_tool_given_as_an_argument_is_pointed_to() -> None:
    done = run("train", "-m", "mind/config.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: python -m mind takes no train: run `python -m mind.train`\n"
    assert run("trian").stderr == "error: python -m mind takes no trian: did you mean `python -m mind.train`?\n"
    assert run("index").stderr == "error: python -m mind takes no index: `python -m mind` lists the tools\n"

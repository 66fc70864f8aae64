"""Every program tells the version of the project, and completes its commands in a shell."""

import re
from importlib import metadata

import pytest

from tests import ROOT
from tests.commands import run_here
from tests.images import PROJECT


def test_the_version_is_said_once_and_told_everywhere() -> None:
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(rc\d+)?", version)
    assert metadata.version("mind-recall") == version
    for command in ("clients", "clients.gateway", "indexer", "server"):
        done = run_here(command, "--version")
        assert done.stdout.strip() == version, command
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == version


@pytest.mark.parametrize("command", ["clients", "indexer"])
def test_a_shell_gets_completion(command: str) -> None:
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "COLUMNS": "120"}
    shown = run_here(command, "--show-completion", "bash", env=env)
    assert shown.returncode == 0, shown.stderr
    assert "complete -o default" in shown.stdout

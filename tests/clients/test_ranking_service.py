"""The tutorial of the ranking service: a model learns from the log of its server by the commands of the page alone."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from clients import RecallClient
from mind.artifact import load_artifact, newest_artifact
from tests import ROOT
from tests.artifacts import write_keyed
from tests.commands import run_here
from tests.conftest import release_lite
from tests.server.test_service import running
from tests.server.test_store import build
from tests.shop import write_shop

PAGE = (ROOT / "docs" / "ranking-service.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)[1:] for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]  # fmt: skip
"""The words of each command after `.venv/bin/python`."""


def test_a_model_learns_from_the_log_of_the_ranking_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_server, walk, *training, second_server = COMMANDS
    (tmp_path / "mind").symlink_to(ROOT / "mind")
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path / "shop")
    skus = [line.partition(",")[0] for line in (tmp_path / "shop" / "items.csv").read_text().splitlines()[1:]]
    first = write_keyed(tmp_path / "artifacts", skus)
    lite = str(tmp_path / "milvus.db")
    build(lite, tmp_path / "artifacts", "--attributes", "shop/items.csv")

    with running(*_options(first_server, tmp_path), "--milvus-uri", lite) as server:
        server.wait_for("health is SERVING")
        command = [sys.executable, str(ROOT / walk[0]), server.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={"PYTHONPATH": str(ROOT)})
        assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^departments: .*: 4, .*: 4, .*: 2}$", done.stdout, re.MULTILINE)
    assert "0 items are on both pages" in done.stdout
    [shown] = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shown in done.stdout

    for module, *words in (command[1:] for command in training):
        done = run_here(module, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    release_lite(lite)
    second = newest_artifact(tmp_path / "artifacts")
    assert second != first
    known = load_artifact(second).weights
    assert known.item_key_offsets is not None and 20 < len(known.item_id) <= len(skus)

    with (
        running(*_options(second_server, tmp_path), "--milvus-uri", lite) as server,
        RecallClient(server.address, timeout_s=10) as client,
    ):
        server.wait_for("health is SERVING")
        answer = client.recall([["KIT-1000", "KIT-1001"], []], top_k=5, return_attributes=["title"])
    assert answer.model_versions == (second.name,)
    assert all(len(titles["title"]) == 5 and all(titles["title"]) for titles in answer.attributes)


def _options(command: list[str], directory: Path) -> list[str]:
    """The options of a server command of the page, with files in `directory`."""
    assert command[:2] == ["-m", "server"]
    return [str(directory / word) if word[0].isalpha() else word for word in command[2:]]

"""Every command of docs/tutorial.md runs, in the order of the page, and prints what the page shows."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python|text)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def words(line: str) -> list[str]:
    """The words of a line. Numbers and the versions of models are left out, because they may differ."""
    return re.findall(r"[A-Za-z]+", re.sub(r"(?<![0-9a-z])(?=[a-f]*\d)[0-9a-f]{8,12}(?![0-9a-z])", "", line))


@contextmanager
def serving(command: str, directory: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The server that a block starts: its address, and what it logged until it listened."""
    log = directory / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=directory, env=environment, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not all(line in log.read_text() for line in ("listening on", "health is SERVING")):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        (address,) = re.findall(r"listening on (\S+)", log.read_text())
        yield address, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def outputs(directory: Path, stack: ExitStack) -> Iterator[tuple[str, str, str]]:
    """Run the page in a directory: each block of commands, what it printed, and what the page shows."""
    (directory / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (directory / "mind").symlink_to(ROOT / "mind")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "RECALL_LISTEN": "127.0.0.1:0"}
    for (kind, block), (shown_kind, shown) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind == "text" or block.startswith("make "):
            continue
        if "-m server" in block:
            environment["RECALL_SERVER"], output = stack.enter_context(serving(block, directory, environment))
        else:
            code = block.replace("localhost:50051", environment.get("RECALL_SERVER", ""))
            command = ["bash", "-euc", block] if kind == "sh" else [sys.executable, "-c", code]
            done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
            output = done.stdout
        yield block, output, shown if shown_kind == "text" else ""


@pytest.mark.timeout(300)
def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for block, output, shown in outputs(tmp_path, stack):
            printed = [words(line) for line in output.splitlines()]
            for line in shown.splitlines():
                assert words(line) in [*printed, []], f"{block}\ndoes not print\n{line}\nbut\n{output}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", "mind", "server.log"]

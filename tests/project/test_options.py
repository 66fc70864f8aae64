"""All programs take options in one way: precedence, names of earlier versions, and what is said of a mistyped one."""

import subprocess
import sys
from pathlib import Path

import pytest

from mind.errors import ConfigError
from server.options import load_settings


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "server", "--max-userz", "3"], "No such option: --max-userz. Did you mean --max-users?"),
        (["-m", "server", "--milvus-urk", "x"], "No such option: --milvus-urk. Did you mean --milvus-uri?"),
        (["-m", "server", "--wholly-other"], "No such option: --wholly-other"),
    ],
)
def test_what_is_mistyped_is_exit_code_2_and_no_page_of_usage(words: list[str], says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    first, *others = done.stderr.splitlines()
    assert first == f"error: {says}"
    assert len(others) <= 2 and "--help` shows the usage." in others[0]


@pytest.mark.parametrize("program", [["-m", "server"]])
def test_every_program_tells_its_version(program: list[str]) -> None:
    done = run(*program, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0.")
    assert "--version" in run(*program, "--help").stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("max_userz: 3", "max_userz in {file}: unknown key; did you mean max_users?"),
        ("nothing_like_it: 3", "nothing_like_it in {file}: unknown key"),
        ("- max_users", "--config {file}: expected a mapping of options, found list"),
        ("max_users: [", "--config {file}: cannot be used: "),
    ],
)
def test_a_faulty_file_of_options_is_named(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "server.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(["--config", str(file)])
    assert str(caught.value).startswith(says.format(file=file))


def test_an_empty_variable_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_MAX_USERS", "")
    assert load_settings([]).max_users == 256

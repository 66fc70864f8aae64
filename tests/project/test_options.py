"""All programs take options in one way: precedence, names of earlier versions, and what is said of a mistyped one."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer import __main__ as indexer
from indexer.options import ServerOptions
from mind.errors import ConfigError
from mind.options import read
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
        (["-m", "indexer", "biuld"], "No such command 'biuld'. Did you mean 'build'?"),
        (["-m", "indexer", "status", "--fromat", "json"], "No such option: --fromat. Did you mean --format?"),
        (["-m", "indexer", "status", "--ca-crt", "ca.pem"], "No such option: --ca-crt. Did you mean --milvus-ca-cert?"),
    ],
)
def test_what_is_mistyped_is_exit_code_2_and_no_page_of_usage(words: list[str], says: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    first, *others = done.stderr.splitlines()
    assert first == f"error: {says}"
    assert len(others) <= 2 and "--help` shows the usage." in others[0]


@pytest.mark.parametrize("program", [["-m", "server"], ["-m", "indexer"]])
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


def test_the_indexer_takes_the_flags_and_commands_of_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def index(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["indexer", *words])
        with pytest.raises(SystemExit) as left:
            indexer.main()
        assert left.value.code == 1
        return capsys.readouterr().err

    monkeypatch.setattr(indexer.signal, "signal", lambda *_: None)
    lite = ["--milvus-uri", "milvus.db"]
    assert index("status", *lite, "--token-file", "/no").startswith("error: --milvus-token-file /no: cannot be read")
    assert index("status", *lite, "--ca-cert=a.pem").startswith("error: --milvus-ca-cert is a.pem: it goes with https")
    assert index("status", *lite, "--tls-server-name", "m").startswith("error: --milvus-server-name is m: it goes with")
    far = ["--milvus-uri", "https://milvus:19530", "--client-cert", "c.pem"]
    assert "--milvus-client-cert is c.pem, and --milvus-client-key is not given" in index("status", *far)
    assert "--milvus-client-cert is c.pem, and --milvus-ca-cert" in index("status", *far, "--client-key", "k.pem")
    for name in ("tune", "choose-index"):
        chosen = index(name, *lite, "--db-name", "shop", "--artifact", str(tmp_path), "--histories", str(tmp_path))
        assert "Milvus Lite" in chosen


def test_servers_are_named_by_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_SERVER", "one:1 two:2")
    assert read(ServerOptions, {}).server == ("one:1", "two:2")
    assert read(ServerOptions, {"server": ["three:3"]}).server == ("three:3",)

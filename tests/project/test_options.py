"""All programs take options in one way: precedence, names of earlier versions, and what is said of a mistyped one."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from clients.gateway.options import load_settings as load_gateway_settings
from clients.gateway.settings import Settings as GatewaySettings
from clients.options import Connection, OptionError
from indexer import __main__ as indexer
from indexer.options import ServerOptions
from mind.errors import ConfigError
from mind.options import flag, read, variable
from server.options import load_settings
from server.settings import Settings
from tests.commands import run_here


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program; `words` begin with -m."""
    return run_here(*words[1:])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "server", "--max-userz", "3"], "No such option: --max-userz. Did you mean --max-users?"),
        (["-m", "server", "--milvus-urk", "x"], "No such option: --milvus-urk. Did you mean --milvus-uri?"),
        (["-m", "server", "--wholly-other"], "No such option: --wholly-other"),
        (["-m", "mind.train", "--overide", "x=1"], "No such option: --overide. Did you mean --override?"),
        (["-m", "mind.models", "pusch"], "No such command 'pusch'. Did you mean 'push'?"),
        (["-m", "clients.gateway", "--titels", "x"], "No such option: --titels. Did you mean --titles?"),
        (["-m", "clients", "recal"], "No such command 'recal'. Did you mean 'recall'?"),
        (["-m", "clients", "users", "upsret"], "No such command 'upsret'. Did you mean 'upsert'?"),
        (["-m", "clients", "count", "--filtr", "x"], "No such option: --filtr. Did you mean --filter?"),
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


@pytest.mark.parametrize(
    "program", ["server", "indexer", "clients", "clients.gateway", "mind", "mind.prepare", "mind.infer", "mind.models"]
)
def test_every_program_tells_its_version(program: str) -> None:
    done = run("-m", program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{metadata.version('mind-recall')}\n", "")
    assert "--version" in run("-m", program, "--help").stdout


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
    assert index("status", *lite, "--ca-cert=a.pem").startswith("error: --milvus-ca-cert is a.pem: it needs an https")
    assert index("status", *lite, "--tls-server-name", "m").startswith(
        "error: --milvus-server-name is m: it needs an https"
    )
    far = ["--milvus-uri", "https://milvus:19530", "--client-cert", "c.pem"]
    assert "--milvus-client-cert is c.pem, but --milvus-client-key is not given" in index("status", *far)
    assert "--milvus-client-cert is c.pem, but --milvus-ca-cert" in index("status", *far, "--client-key", "k.pem")
    for name in ("tune", "choose-index"):
        chosen = index(name, *lite, "--db-name", "shop", "--artifact", str(tmp_path), "--histories", str(tmp_path))
        assert "Milvus Lite" in chosen


@pytest.mark.parametrize("program", [["server"], ["indexer", "status"]])
def test_a_file_without_milvus_lite_names_the_extra(program: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite", None)
    done = run("-m", *program, "--milvus-uri", "shop.db")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "error: --milvus-uri is shop.db: a .db path needs Milvus Lite, which is not installed: "
        "pip install 'mind-recall[lite]'; a Milvus server has an address such as http://host:19530"
    )


def test_servers_are_named_by_flag_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_SERVER", "one:1 two:2")
    assert read(ServerOptions, {}).server == ("one:1", "two:2")
    assert read(ServerOptions, {"server": ["three:3"]}).server == ("three:3",)


def test_one_option_has_one_name() -> None:
    of_clients = {name: (flag(name), Connection.variable(name)) for name in Connection.model_fields}
    of_gateway = {name: (flag(name), GatewaySettings.variable(name)) for name in GatewaySettings.model_fields}
    of_indexer = {name: (flag(name), variable(name)) for name in ServerOptions.model_fields}
    of_server = {name: (flag(name), variable(name)) for name in Settings.model_fields}
    assert of_clients.items() <= of_gateway.items()
    assert of_indexer.items() <= of_clients.items()
    assert of_gateway["log_level"] == of_server["log_level"] == ("--log-level", "RECALL_LOG_LEVEL")
    variables = [name for _, name in {**of_clients, **of_gateway, **of_server, "listen": of_server["listen"]}.values()]
    assert len(set(variables)) == len(variables)


def test_a_log_level_is_the_same_in_server_and_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECALL_LOG_LEVEL", "warning")
    assert load_settings([]).log_level == load_gateway_settings([]).log_level == "WARNING"
    assert load_settings(["--log-level", "DEBUG"]).log_level == "DEBUG"
    assert load_gateway_settings(["--log-level", "debug"]).log_level == "DEBUG"


def test_the_gateway_takes_the_flags_and_variables_of_earlier_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("word")
    words = ["--ca", str(file), "--cert", str(file), f"--key={file}", "--token-file", str(file), "--tls"]
    settings = load_gateway_settings(words)
    assert settings.arguments() == {
        "target": "localhost:50051",
        "timeout_s": 2.0,
        "tls": file,
        "client_cert": (file, file),
        "token": "word",
    }
    monkeypatch.setenv("RECALL_SERVER", "here:1")  # for all programs
    monkeypatch.setenv("RECALL_CLIENT_TLS", "1")  # of another program
    monkeypatch.setenv("RECALL_GATEWAY_SERVER", "there:2")
    monkeypatch.setenv("RECALL_GATEWAY_TIMEOUT_MS", "7")
    monkeypatch.setenv("RECALL_GATEWAY_LOG_LEVEL", "error")
    settings = load_gateway_settings(["--timeout-ms", "8"])
    assert (settings.server, settings.timeout_ms, settings.log_level) == ("there:2", 8, "ERROR")
    assert not settings.server_tls
    monkeypatch.setenv("RECALL_GATEWAY_TLS", "perhaps")
    with pytest.raises(OptionError, match=r"^RECALL_GATEWAY_TLS: Input should be a valid boolean"):
        load_gateway_settings([])


def test_recall_client_takes_the_flags_of_earlier_versions(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = run("-m", "clients", "info", "--server", "127.0.0.1:9", "--token-file", str(tmp_path / "empty"))
    assert done.stderr == f"error: --server-token-file {tmp_path / 'empty'}: has no token\n"
    done = run("-m", "clients", "info", "--server", "127.0.0.1:9", "--cert", str(tmp_path / "empty"))
    assert done.stderr == "error: --server-client-cert and --server-client-key must be given together\n"

"""The wheel, installed as users install it: what is in it, what each extra brings, and what is said where one lacks.

It is built from the source distribution, so that one is complete too.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.canned_recall import CannedRecall, running

UV = Path(sys.executable).parent / "uv"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("clients", "indexer", "mind", "protos", "server")
NO_INDEX = re.compile(r"[Ff]ailed to fetch|dns error|error sending request|tcp connect error")
IMPORT_ALL = """
import importlib, pkgutil, sys
package, *skipped = sys.argv[1:]
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    if not module.name.startswith(tuple(skipped)) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def run(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a command outside the repository, which must not be importable by accident."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    given = {"cwd": ROOT.parent, "env": kept | {"TERM": "dumb", "COLUMNS": "120"}, "timeout": 280} | options
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **given)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from its source distribution without a word of complaint."""
    source = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    done = run(UV, "build", "--no-build-isolation", "--python", sys.executable, "-o", "dist", cwd=source)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^warning|Warning|[Dd]eprecat", done.stdout + done.stderr, re.MULTILINE), done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_source_distribution_has_our_packages_and_nothing_else(wheel: Path) -> None:
    (source,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        places = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    made = {"PKG-INFO", "setup.cfg", "mind_recall.egg-info"}
    assert places == {"LICENSE", "README.md", "pyproject.toml"} | made | set(PACKAGES)


def test_the_wheel_has_what_is_used_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = [name.partition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name]
    assert {name.partition("/")[0] for name in files} == set(PACKAGES)
    assert "licenses/LICENSE" in about
    wanted = [
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "py.typed", "*.pyi", "*.proto", "*.j2", "config.yaml")
        for file in (ROOT / package).rglob(pattern)
        if not {"node_modules", "examples"}.intersection(file.parts)
    ]
    assert set(wanted) <= files
    assert not [name for name in files if "/examples/" in name or name.endswith((".json", ".pyc"))]


class Installed:
    """A fresh virtual environment with the wheel and extras of it, in the versions of requirements.lock."""

    def __init__(self, directory: Path, wheel: Path, extras: str) -> None:
        self.bin = directory / "bin"
        lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
        versions = directory.with_suffix(".txt")
        versions.write_text("\n".join(re.findall(r"^(\S+==.+?) \\$", lock, re.MULTILINE)), encoding="utf-8")
        made = run(UV, "venv", "--python", sys.executable, directory)
        assert made.returncode == 0, made.stderr
        wanted = f"mind-recall{extras} @ {wheel.as_uri()}"
        done = run(UV, "pip", "install", "--python", self.bin / "python", "-c", versions, wanted)
        if done.returncode and NO_INDEX.search(done.stderr):
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment."""
        return run(self.bin / program, *words)

    def names(self) -> set[str]:
        """Everything that is installed."""
        listed = run(UV, "pip", "list", "--format", "freeze", "--python", self.bin / "python").stdout
        return {re.split("==| @ ", line)[0] for line in listed.splitlines()}


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What `pip install mind-recall` gives."""
    return Installed(tmp_path_factory.mktemp("plain") / "venv", wheel, "")


def test_a_client_brings_grpcio_and_protobuf_alone_and_calls_a_server(plain: Installed) -> None:
    assert plain.names() == {"grpcio", "mind-recall", "protobuf", "typing-extensions"}  # the last one is grpcio's
    with running(CannedRecall()) as target:
        call = f"""
from clients import RecallClient
with RecallClient({target!r}, timeout_s=60) as client:
    print(*client.recall([[50, 181]], top_k=2).results[0].item_ids)
"""
        done = plain.run("python", "-W", "error", "-c", call)
    assert (done.stdout, done.stderr) == ("182 183\n", "")


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("recall-client", "cli"),
        ("recall-gateway", "gateway"),
        ("recall-server", "server"),
        ("recall-indexer", "indexer"),
        ("python -m server", "server"),
        ("python -m indexer", "indexer"),
        ("python -m mind.prepare", "train"),
        ("python -m mind.train", "train,cpu"),
        ("python -m mind.infer", "train"),
        ("python -m mind.models", "train"),
        ("python -m mind.tune", "train,cpu"),
        ("python -m mind.import_paddlerec", "train,cpu"),
    ],
)
def test_a_command_without_its_extra_says_so_in_one_line(plain: Installed, command: str, extra: str) -> None:
    done = plain.run(*command.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error: .+ needs? .+: pip install 'mind-recall\[{extra}\]'\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("extra", "package", "skipped", "commands"),
    [
        ("bulk", "clients", ["clients.gateway"], ["recall-client bulk --help"]),
        ("bench", "clients.bench", [], ["recall-client bench --help"]),
        ("gateway", "clients.gateway", [], ["recall-gateway --help"]),
        ("server", "server", ["server.watching.tracing"], ["recall-server --help"]),
        ("indexer", "indexer", [], ["recall-indexer build --help", "recall-indexer tune --help"]),
        (
            "train",
            "mind",
            # What needs one of the two builds of PaddlePaddle, Milvus, CuPy, FAISS or Spark: extras of their own.
            ["mind.ablation", "mind.cupy_encoder", "mind.import_paddlerec", "mind.item_index",
             "mind.item_table", "mind.milvus", "mind.network", "mind.paddle", "mind.spark.job", "mind.train",
             "mind.tune"],
            ["python -m mind.prepare --help", "python -m mind.infer --help", "python -m mind.models --help"],
        ),
    ],
)  # fmt: skip
def test_an_extra_brings_what_its_commands_import(
    wheel: Path, tmp_path: Path, extra: str, package: str, skipped: list[str], commands: list[str]
) -> None:
    installed = Installed(tmp_path / "venv", wheel, f"[{extra}]")
    names = installed.names()
    assert not {name for name in names if "paddle" in name} | names & {"faiss-cpu", "milvus-lite"}
    done = installed.run("python", "-c", IMPORT_ALL, package, *skipped)
    assert done.returncode == 0, done.stderr
    for command in commands:
        done = installed.run(*command.split())
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "sage: " in done.stdout


def test_what_a_server_needs_is_small(wheel: Path, tmp_path: Path) -> None:
    installed = Installed(tmp_path / "venv", wheel, "[server,cli,tracing]")  # as the image has it
    assert (
        installed.run("python", "-m", "compileall", "-q", str(tmp_path / "venv" / "lib")).returncode == 0
    )  # pip does it
    megabytes = sum(file.stat().st_size for file in tmp_path.joinpath("venv", "lib").rglob("*") if file.is_file()) / 1e6
    assert megabytes <= 260
    assert run(UV, "pip", "check", "--python", installed.bin / "python").returncode == 0

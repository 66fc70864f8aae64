"""The images and the compose file without a container engine: linters, and what they name, run as they would run it.

The schema of compose files is the one of the Compose Specification, from the PyPI package check-jsonschema.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from clients.cli import app as client_app
from indexer.__main__ import app as indexer_app
from server.settings import Settings
from tests.artifacts import make_artifact

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
PROGRAMS = ["indexer", "server"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = [pattern.removesuffix("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
YAML_RULES = "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"


def instructions(program: str) -> list[tuple[str, str]]:
    """Of a Dockerfile: FROM, RUN, ... and the text after each."""
    text = re.sub(r"^#.*\n", "", (DOCKER / f"{program}.Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line]


def image(program: str) -> dict[str, Any]:
    """What the last stage of a Dockerfile leaves in the image: commands, environment, ports."""
    every = instructions(program)
    start = max(number for number, (name, _) in enumerate(every) if name == "FROM")
    left: dict[str, Any] = {"ENV": {}, "CMD": []}
    for name, text in every[start:]:
        if name == "ENV":
            left["ENV"] |= dict(word.split("=", 1) for word in shlex.split(text) if not word.startswith("PATH="))
        elif name in ("ENTRYPOINT", "CMD"):
            left[name] = json.loads(text)
        elif name == "HEALTHCHECK":
            left[name] = json.loads(text.partition("CMD ")[2])
        else:
            left[name] = text
    return left


def of_build(program: str, name: str, text: str = "") -> list[str]:
    """The texts of the instructions called `name` that contain `text`, of all stages."""
    return [found for instruction, found in instructions(program) if instruction == name and text in found]


def copied(program: str) -> set[str]:
    """The files and directories of the repository that go into an image's build."""
    return {word for text in of_build(program, "COPY") if "--from" not in text for word in text.split()[:-1]}


def environment(program: str) -> dict[str, str]:
    """What compose gives a program, the image's own included, with no variable set on the host."""
    given = image(program)["ENV"] | SERVICES[program]["environment"]
    return {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in given.items()}


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def tool(name: str) -> Path:
    return Path(sys.executable).parent / name


def admitted(path: Path) -> bool:
    """Whether .dockerignore lets a path, relative to the root, into the build; its last word on it counts."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(fnmatch(str(p), pattern) for p in (path, *path.parents)):
            verdict = line.startswith("!")
    return verdict


def needed(requirements: list[str], extras: set[str]) -> set[str]:
    """Names of the packages that these requirements bring here, with what those bring, and so on."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), extras) for text in requirements]
    while todo:
        requirement, wanted = todo.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in wanted or {""}):
            continue
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            own = [text for extra in requirement.extras for text in PROJECT["optional-dependencies"][extra]]
            todo += [(Requirement(text), set()) for text in own]
        elif (name, str(requirement.extras)) not in seen:
            seen.add((name, str(requirement.extras)))
            names.add(name)
            todo += [(Requirement(text), requirement.extras) for text in metadata.requires(name) or []]
    return names


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project as the server's image has it: the wheel of nothing but what the Dockerfile copies."""
    build = tmp_path_factory.mktemp("build")
    for source in copied("server"):
        if (ROOT / source).is_dir():
            for file in filter(Path.is_file, (ROOT / source).rglob("*")):
                if admitted(file.relative_to(ROOT)):
                    (build / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, build / file.relative_to(ROOT))
        elif source == PROJECT["readme"]:
            (build / source).write_text("Its text is in no image.\n")
        else:
            shutil.copy(ROOT / source, build)
    (wheel_command,) = of_build("server", "RUN", "--no-deps --wheel-dir")
    offline = {"PATH": f"{tool('.')}:{os.environ['PATH']}", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    built = run(["/bin/sh", "-ec", wheel_command], cwd=build, env=offline)
    assert built.returncode == 0, built.stderr
    (wheel,) = (build / "wheels").glob("mind_recall-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(build / "installed")
    for package in PACKAGES:  # one that is missing would be found in the working tree all the same
        assert (build / "installed" / package / "__init__.py").is_file(), package
    yield build / "installed"


class Container:
    """Runs commands with the environment of an image or service, and the wheel instead of the working tree."""

    def __init__(self, program: str, installed: Path, directory: Path, changes: dict[str, str]) -> None:
        self.directory = directory
        self.changes = changes
        self.env = {name: self._changed(value) for name, value in environment(program).items()}
        self.env |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}

    def _changed(self, text: str) -> str:
        for old, new in self.changes.items():
            text = text.replace(old, new)
        return text

    def command(self, *words: str) -> list[str]:
        """The command as it runs here."""
        assert words[0] == "python"
        return [sys.executable, *map(self._changed, words[1:])]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(self.command(*words), env=self.env, cwd=self.directory)

    def start(self, *words: str) -> subprocess.Popen[str]:
        log = (self.directory / "log.txt").open("w")
        with log:
            return subprocess.Popen(self.command(*words), env=self.env, cwd=self.directory, stdout=log, stderr=log)


@pytest.mark.parametrize("program", PROGRAMS)
def test_dockerfiles_are_clean(program: str) -> None:
    result = run([tool("hadolint"), "--failure-threshold", "style", DOCKER / f"{program}.Dockerfile"])
    assert result.returncode == 0, result.stdout


def test_yaml_is_clean() -> None:
    result = run([sys.executable, "-m", "yamllint", "--strict", "-d", YAML_RULES, DOCKER])
    assert result.returncode == 0, result.stdout


def test_compose_file_follows_the_specification() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = run([*checker, DOCKER / "compose.yaml"])
    assert result.returncode == 0, result.stdout


def test_every_image_is_pinned() -> None:
    bases = {text.split()[0] for program in PROGRAMS for text in of_build(program, "FROM")}
    assert len(bases) == 1
    python = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-bookworm", bases.pop())
    assert python
    assert Version(python[1]).release[:2] == (3, 11)
    assert Version(python[1]) in Requirement(f"python{PROJECT['requires-python']}").specifier
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert tag == "local" if "build" in service else re.search(r"\d+.\d+", tag), name


@pytest.mark.parametrize("program", PROGRAMS)
def test_build_context_has_what_is_copied_and_little_else(program: str) -> None:
    build = SERVICES[program]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    sources = copied(program)
    assert {source for source in sources if not admitted(Path(source))} == set()
    assert {source for source in sources if not (ROOT / source).exists()} <= {PROJECT["readme"]}
    for left_out in (".git", ".venv", "artifacts/1/model.safetensors", "tests", "mind/__pycache__/a.pyc", "mind/a.pyc"):
        assert not admitted(Path(left_out)), left_out


@pytest.mark.parametrize("program", PROGRAMS)
def test_lock_covers_an_image_and_brings_no_paddle(program: str) -> None:
    (wanted,) = of_build(program, "RUN", "--only-binary")
    (extras,) = re.findall(r'"\.\[(.+?)\]"', wanted)
    assert program in extras.split(",")
    names = needed([*PROJECT["dependencies"], f"{PROJECT['name']}[{extras}]"], set())
    assert {"grpcio", "numpy", "pymilvus", "typer"} <= names  # the server's image checks its health with the client
    assert names - LOCKED.keys() == set()
    assert {name for name in names if "paddle" in name} == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_build_pins_the_versions_of_the_lock(program: str, tmp_path: Path) -> None:
    (pin,) = of_build(program, "RUN", "constraints.txt")
    (settings,) = of_build(program, "ENV", "PIP_CONSTRAINT")
    (directory,) = of_build(program, "WORKDIR")
    assert dict(word.split("=") for word in settings.split())["PIP_CONSTRAINT"] == f"{directory}/constraints.txt"
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    assert run(["/bin/sh", "-ec", pin], cwd=tmp_path).returncode == 0
    pins = [Requirement(line) for line in (tmp_path / "constraints.txt").read_text().splitlines()]
    assert {pin.name for pin in pins} == LOCKED.keys()
    assert all(str(pin.specifier).startswith("==") for pin in pins)


@pytest.mark.parametrize("program", PROGRAMS)
def test_build_stops_at_a_wheel_that_the_lock_does_not_know(program: str, tmp_path: Path) -> None:
    (check,) = of_build(program, "RUN", "sha256sum")
    (tmp_path / "wheels").mkdir()
    for name in ("first", "second"):
        (tmp_path / "wheels" / f"{name}.whl").write_text(name)
    first, second = (f"    --hash=sha256:{hashlib.sha256(name).hexdigest()}\n" for name in (b"first", b"second"))
    (tmp_path / "requirements.lock").write_text(first + second)
    assert run(["/bin/sh", "-c", check], cwd=tmp_path).returncode == 0
    for known in (first, second):
        (tmp_path / "requirements.lock").write_text(known)
        result = run(["/bin/sh", "-c", check], cwd=tmp_path)
        assert result.returncode == 1
        assert "not in requirements.lock" in result.stdout


def test_environment_variables_are_options() -> None:
    options = {
        "server": {f"RECALL_{name.upper()}" for name in Settings.model_fields},
        "indexer": {
            parameter.envvar
            for command in typer.main.get_command(indexer_app).commands.values()
            for parameter in command.params
            if parameter.envvar
        },
    }
    for program in PROGRAMS:
        given = {name for name in environment(program) if name.startswith("RECALL_")}
        assert given, program
        assert given - options[program] == set(), program


def test_ports_agree() -> None:
    server = image("server")
    port = server["EXPOSE"]
    health = typer.main.get_command(client_app).commands["health"]
    (client_default,) = [parameter.default for parameter in health.params if parameter.name == "server"]
    addresses = [
        Settings.model_fields["listen"].default,
        client_default,
        server["ENV"]["RECALL_LISTEN"],
        server["HEALTHCHECK"][-1],
    ]
    assert {address.rpartition(":")[2] for address in addresses} == {port}
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"server": [f"127.0.0.1:{port}:{port}"]}


def test_compose_starts_and_stops_in_order() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other}"
    assert SERVICES["server"]["depends_on"].keys() == {"milvus", "indexer"}
    for program in PROGRAMS:
        assert environment(program)["RECALL_MILVUS_URI"] == "http://milvus:19530"
        assert SERVICES[program]["volumes"][0]["target"] == "/artifacts"
    drain_s = Settings.model_fields["drain_timeout_s"].default
    assert float(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > drain_s


@pytest.mark.parametrize("program", PROGRAMS)
def test_images_are_run_by_an_ordinary_user(program: str) -> None:
    uid = image(program)["USER"].partition(":")[0]
    assert any(f"--uid {uid} " in text for text in of_build(program, "RUN", "useradd"))
    assert int(uid) > 1000


@pytest.mark.parametrize("program", PROGRAMS)
def test_entrypoints_answer(program: str, installed: Path, tmp_path: Path) -> None:
    container = Container(program, installed, tmp_path, {})
    result = container.run(*image(program)["ENTRYPOINT"], "--help")
    assert result.returncode == 0, result.stderr
    assert f"python -m {program}" in result.stdout


def test_commands_of_the_readme_parse(installed: Path, tmp_path: Path) -> None:
    text = (DOCKER / "README.md").read_text()
    inside = re.findall(r"exec server (python .+)", text)
    jobs = re.findall(r"run --rm indexer (\w[^`\n]*)", text)
    assert inside
    assert jobs
    for words in inside:
        result = Container("server", installed, tmp_path, {}).run(*shlex.split(words), "--help")
        assert result.returncode == 0, words
    for words in jobs:
        entrypoint = image("indexer")["ENTRYPOINT"]
        result = Container("indexer", installed, tmp_path, {}).run(*entrypoint, *shlex.split(words), "--help")
        assert result.returncode == 0, words


def test_compose_builds_a_release_and_serves_it(installed: Path, tmp_path: Path, milvus_uri: str) -> None:
    make_artifact(tmp_path / "artifacts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {
        "http://milvus:19530": milvus_uri,
        "/artifacts": str(tmp_path / "artifacts"),
        "0.0.0.0:50051": f"127.0.0.1:{port}",
        "127.0.0.1:50051": f"127.0.0.1:{port}",
    }
    indexer = Container("indexer", installed, tmp_path, here)
    built = indexer.run(*image("indexer")["ENTRYPOINT"], *SERVICES["indexer"]["command"])
    assert built.returncode == 0, built.stderr
    assert "live " in built.stdout

    container = Container("server", installed, tmp_path, here)
    health_check = image("server")["HEALTHCHECK"]
    assert container.run(*health_check).returncode != 0
    server = container.start(*image("server")["ENTRYPOINT"])
    try:
        deadline = time.monotonic() + 30
        while (healthy := container.run(*health_check)).returncode != 0 and time.monotonic() < deadline:
            assert server.poll() is None, (tmp_path / "log.txt").read_text()
            time.sleep(0.1)
        assert healthy.returncode == 0, (tmp_path / "log.txt").read_text()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, (tmp_path / "log.txt").read_text()
    finally:
        server.kill()
        server.wait()

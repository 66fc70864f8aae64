"""The container images without a container engine: what docker/Dockerfile says, and a place to run it.

An image's Python environment is made here from the packages that are installed for the tests, of which it gets those
that the image would have and no other, and from the wheel of nothing but what the Dockerfile copies.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from copy import copy
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

DOCKER = ROOT / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES = [pattern.removesuffix("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
PORTS = {"server": 50051, "metrics": 9464, "gateway": 8000}


@dataclass
class Stage:
    """One stage of the Dockerfile, with what it inherits from the stage that it starts from."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)
    """Its own: name and text."""
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)

    def of(self, name: str) -> list[str]:
        """The texts of its instructions of that name."""
        return [text for instruction, text in self.instructions if instruction == name]


@cache
def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile by name."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", "").splitlines() if line]
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "ARG":
            arguments |= [rest.split("=", 1)]
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            parent = found.get(base)
            for argument, value in arguments.items():
                base = base.replace(f"${{{argument}}}", value)
            stage = found[alias] = Stage(base)
            if parent:
                inherited = ("env", "labels", "volumes", "ports", "user", "entrypoint", "command", "health_check")
                for what in inherited:
                    setattr(stage, what, copy(getattr(parent, what)))
        elif found:
            stage.instructions.append((name, rest))
            _leave(stage, name, rest)
    return found


def _leave(stage: Stage, name: str, text: str) -> None:
    if name == "ENV":
        stage.env |= dict(word.split("=", 1) for word in shlex.split(text))
    elif name == "LABEL":
        stage.labels |= dict(word.split("=", 1) for word in shlex.split(text))
    elif name == "VOLUME":
        stage.volumes = json.loads(text)
    elif name == "EXPOSE":
        stage.ports = [int(port) for port in text.split()]
    elif name == "USER":
        stage.user = text
    elif name == "ENTRYPOINT":
        stage.entrypoint, stage.command = json.loads(text), []
    elif name == "CMD":
        stage.command = json.loads(text)
    elif name == "HEALTHCHECK":
        stage.health_check = json.loads(text.partition("CMD ")[2])


IMAGES = [
    name for name, stage in stages().items() if any("/opt/recall /opt/recall" in text for text in stage.of("COPY"))
]
"""The stages that are images."""


def extras(image: str) -> list[str]:
    """The extras of the project that an image installs."""
    (source,) = re.findall(r"--from=(\S+) /opt/recall", " ".join(stages()[image].of("COPY")))
    (wanted,) = re.findall(r"sh install\.sh (\S+) /opt/recall", " ".join(stages()[source].of("RUN")))
    return wanted.split(",")


def copied() -> set[str]:
    """The files and directories of the repository that go into the builds."""
    texts = [text for stage in stages().values() for text in stage.of("COPY") if "--from" not in text]
    return {word for text in texts for word in text.split()[:-1]}


def admitted(path: Path) -> bool:
    """Whether .dockerignore lets a path, relative to the root, into the build; its last word on it counts."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(fnmatch(str(p), pattern) for p in (path, *path.parents)):
            verdict = line.startswith("!")
    return verdict


def needed(wanted: list[str]) -> set[str]:
    """Names of the packages that these extras bring here, with what those bring, and so on."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    own = [*PROJECT["dependencies"], f"{PROJECT['name']}[{','.join(wanted)}]"]
    todo: list[tuple[Requirement, set[str]]] = [(Requirement(text), set()) for text in own]
    while todo:
        requirement, asked_with = todo.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in asked_with or {""}):
            continue
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:
            every = [text for extra in requirement.extras for text in PROJECT["optional-dependencies"][extra]]
            todo += [(Requirement(text), set()) for text in every]
        elif (name, str(requirement.extras)) not in seen:
            seen.add((name, str(requirement.extras)))
            names.add(name)
            todo += [(Requirement(text), requirement.extras) for text in metadata.requires(name) or []]
    return names


def tool(name: str) -> Path:
    """A program that is installed for the tests."""
    return Path(sys.executable).parent / name


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which is near."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def build_environment() -> dict[str, str]:
    """The variables of the Dockerfile's builds, and what lets pip do without a network."""
    arguments = dict(text.split("=", 1) for text in stages()["build"].of("ARG"))
    path = f"{tool('.')}:{os.environ['PATH']}"
    return {**arguments, "PATH": path, "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}


def build_wheel(directory: Path) -> Path:
    """The project's wheel, of nothing but what the Dockerfile copies, by the command that it runs."""
    for source in copied():
        if (ROOT / source).is_dir():
            for file in filter(Path.is_file, (ROOT / source).rglob("*")):
                if admitted(file.relative_to(ROOT)):
                    (directory / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, directory / file.relative_to(ROOT))
        elif source == PROJECT["readme"]:
            (directory / source).write_text("Its text is in no image.\n")
        elif "/" not in source:
            shutil.copy(ROOT / source, directory)
    (command,) = stages()["project"].of("RUN")
    built = run(["/bin/sh", "-ec", command], cwd=directory, env=build_environment())
    assert built.returncode == 0, built.stderr
    (wheel,) = (directory / "wheels").glob("mind_recall-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for package in PACKAGES:  # one that is missing would be found in the working tree all the same
        assert f"{package}/__init__.py" in names, package
    return wheel


def make_environment(image: str, wheel: Path, directory: Path) -> Path:
    """What an image has in /opt/recall: the packages of its extras and the project's wheel, nothing else."""
    venv.create(directory, with_pip=False)
    (site,) = directory.glob("lib/python*/site-packages")
    for name in needed(extras(image)):
        for here, part in _parts(name):
            target = site / part
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(here)
    installed = run([tool("uv"), "pip", "install", "--offline", "--no-deps", "--python", directory, wheel])
    assert installed.returncode == 0, installed.stderr
    return directory


def _parts(name: str) -> list[tuple[Path, Path]]:
    """Where the packages, modules and other files of a distribution are, and where they belong."""
    distribution = metadata.distribution(name)
    site = Path(str(distribution.locate_file("")))
    files = [Path(*file.parts) for file in distribution.files or [] if ".." not in file.parts]  # not the scripts
    modules = {file.parent for file in files if file.name == "__init__.py"}
    parts = {next((parent for parent in file.parents[::-1] if parent in modules), file) for file in files}
    return [(site / part, part) for part in parts]


class Container:
    """Runs an image's commands, with its environment variables and packages, and changes for where it runs."""

    def __init__(
        self, image: str, environment: Path, directory: Path, variables: dict[str, str], changes: dict[str, str]
    ) -> None:
        """`variables` come on top of the image's; `changes` replaces parts of variables and words."""
        self.directory = directory
        self.changes = changes
        self._bin = environment / "bin"
        given = stages()[image].env | variables
        self.env = {name: self._changed(value) for name, value in given.items()}
        self.env |= {"PATH": f"{self._bin}:{os.environ['PATH']}", "HOME": str(directory)}

    def _changed(self, text: str) -> str:
        for old, new in self.changes.items():
            text = text.replace(old, new)
        return text

    def command(self, *words: str) -> list[str]:
        """The command as it runs here."""
        assert (self._bin / words[0]).exists(), f"{words[0]} is not in the image"
        return [str(self._bin / words[0]), *map(self._changed, words[1:])]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return run([*self.command(*words)], env=self.env, cwd=self.directory)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it; it writes to log.txt."""
        with (self.directory / "log.txt").open("w") as log:
            return subprocess.Popen(self.command(*words), env=self.env, cwd=self.directory, stdout=log, stderr=log)

"""`make images` with engines that only write down what they are told."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.build_images import CPU_TARGETS, find_engine
from tests.commands import run_here
from tests.images import DOCKER, DOCKERFILE, ROOT

Install = Callable[..., None]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """What the engines are told, a command a line."""
    return tmp_path / "calls.txt"


@pytest.fixture
def install(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs an engine that answers `info` with an exit code, and `build` with another. No other engine is there."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")

    def of(engine: str, info: int = 0, build: int = 0) -> None:
        (program := tmp_path / engine).write_text(
            f"#!/bin/sh\nif [ $1 = info ]; then echo 'no daemon' >&2; exit {info}; fi\n"
            f'echo "{engine} $*" >> {calls}\nexit {build}\n'
        )
        program.chmod(0o755)

    return of


def test_the_first_engine_that_is_ready_builds_the_images_of_the_compose_files(install: Install, calls: Path) -> None:
    install("docker", info=1)
    install("podman")
    install("buildah")
    done = run_here("tests.build_images", "--base", "localhost/python:3.11")
    assert done.returncode == 0, done.stderr
    commands = calls.read_text().splitlines()
    assert len(commands) == len(CPU_TARGETS)
    compose = [yaml.safe_load((DOCKER / name).read_text()) for name in ("compose.yaml", "compose.demo.yaml")]
    services = [service for file in compose for service in file["services"].values() if "build" in service]
    named = {service["build"]["target"]: service["image"] for service in services}
    assert named.keys() == set(CPU_TARGETS)
    for target, command in zip(CPU_TARGETS, commands, strict=True):
        assert command.startswith("podman build --format docker --build-arg PYTHON=localhost/python:3.11 ")
        assert command.endswith(f" --file {DOCKERFILE} --target {target} --tag {named[target]} {ROOT}")
        assert f"mind-recall-{target}:local built with podman in " in done.stdout


def test_one_target_is_built_with_the_engine_that_was_asked_for(install: Install, calls: Path) -> None:
    install("docker")
    install("buildah")
    done = run_here("tests.build_images", "server-gpu", "--engine", "buildah")
    assert done.returncode == 0, done.stderr
    (command,) = calls.read_text().splitlines()
    assert command.startswith("buildah build --format docker ")
    assert " --target server-gpu " in command


def test_the_commit_and_its_time_are_handed_in(install: Install, calls: Path, tmp_path: Path) -> None:
    install("docker")
    (git := tmp_path / "git").write_text('#!/bin/sh\necho "told $3"\n')
    git.chmod(0o755)
    assert run_here("tests.build_images", "server").returncode == 0
    assert "--build-arg REVISION=told --format=%H --build-arg SOURCE_DATE_EPOCH=told --format=%ct " in calls.read_text()
    assert "--format docker" not in calls.read_text()  # Docker has no such option


def test_without_an_engine_every_reason_is_told(install: Install) -> None:
    install("docker", info=1)
    done = run_here("tests.build_images")
    assert done.returncode == 2
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "`docker info` failed: no daemon; podman is not installed; buildah is not installed" in told


def test_a_build_that_fails_ends_the_command(install: Install, calls: Path) -> None:
    install("docker", build=3)
    assert find_engine() == "docker"
    done = run_here("tests.build_images")
    assert done.returncode == 1
    assert "docker ended with exit code 3" in done.stderr
    assert len(calls.read_text().splitlines()) == 1


def test_a_target_that_does_not_exist_is_refused() -> None:
    done = run_here("tests.build_images", "servre")
    assert done.returncode == 2
    assert "'servre': expected one of server, server-gpu, indexer, gateway, trainer" in " ".join(
        done.stderr.replace("│", " ").split()
    )

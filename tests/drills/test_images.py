"""What an image installs, in an environment of its own, run as the image and the compose files would run it."""

import hashlib
import re
import shlex
import shutil
import signal
import subprocess
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.artifacts import make_artifact
from tests.images import (
    DOCKER,
    IMAGES,
    PORTS,
    ROOT,
    Container,
    build_environment,
    build_wheel,
    make_environment,
    run,
    stages,
)
from tests.ports import free_port
from tests.project.test_docker import DEMO, OURS, SERVICES, variables


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes what an image has installed, once."""
    directory = tmp_path_factory.mktemp("images")
    (directory / "build").mkdir()
    wheel = build_wheel(directory / "build")

    def of(image: str) -> Path:
        made = directory / image
        return made if made.exists() else make_environment(image, wheel, made)

    return of


def test_two_builds_of_the_same_commit_give_the_same_files(tmp_path: Path) -> None:
    """What they leave in /opt/recall, dependencies aside: bytes, modes and times, compiled modules too."""
    epoch = int(build_environment()["SOURCE_DATE_EPOCH"])
    builds = []
    for _ in range(2):
        build, target = tmp_path / "build", tmp_path / "opt"
        build.mkdir()
        build_wheel(build)
        venv.create(target, with_pip=False)
        done = run(["/bin/sh", DOCKER / "install-own.sh", target], cwd=build, env=build_environment())
        assert done.returncode == 0, done.stderr
        files = sorted(path for path in target.rglob("*") if path.is_file())
        assert {path.lstat().st_mtime for path in (target, *target.rglob("*"))} == {epoch}
        builds.append({path: (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files})
        shutil.rmtree(build)
        shutil.rmtree(target)
    assert builds[0] == builds[1]
    assert any(path.match("server/__pycache__/app.*.pyc") for path in builds[0])


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_installs_is_enough_for_what_it_runs(
    image: str, environment: Callable[[str], Path], tmp_path: Path
) -> None:
    container = Container(image, environment(image), tmp_path, {}, {})
    words = (
        [[]]
        if image != "trainer"
        else [service["command"][:1] for service in DEMO["services"].values() if "<<" in service]
    )
    words = words if image != "trainer" else [["mind.prepare"], ["mind.train"], ["indexer", "nightly"]]
    for command in words:
        result = container.run(*stages()[image].entrypoint, *command, "--help")
        assert result.returncode == 0, result.stderr
        assert "usage" in result.stdout.lower()
    modules = {
        "server": "server.app, server.watching.tracing",
        "server-gpu": "server.app, mind.paddle_encoder",
        "indexer": "mind.milvus.store, indexer.rollout.servers",
        "gateway": "clients.gateway.app",
        "trainer": "mind.training.loop, indexer.nightly.steps, indexer.nightly.report",
    }
    result = container.run("python", "-c", f"import {modules[image]}")
    assert result.returncode == 0, result.stderr


def test_commands_of_the_readme_parse(environment: Callable[[str], Path], tmp_path: Path) -> None:
    text = (DOCKER / "README.md").read_text()
    jobs = re.findall(r"run --rm indexer (\w[^`\n]*)", text)
    assert jobs
    for words in jobs:
        container = Container("indexer", environment("indexer"), tmp_path, {}, {})
        result = container.run(*stages()["indexer"].entrypoint, *shlex.split(words), "--help")
        assert result.returncode == 0, words
    for files in re.findall(r"docker compose ((?:--file \S+ )+)", text):
        for file in re.findall(r"--file (\S+)", files):
            assert (ROOT / file).is_file(), file
    for target in re.findall(r"--target (\S+)", text):
        assert target in IMAGES


@contextmanager
def started(container: Container, image: str, timeout_s: float = 30) -> Iterator[subprocess.Popen[str]]:
    """An image's entry point, healthy by its own health check."""
    health_check = stages()[image].health_check
    assert container.run(*health_check).returncode != 0, "somebody else answers"
    process = container.start(*stages()[image].entrypoint)
    log = container.directory / "log.txt"
    try:
        deadline = time.monotonic() + timeout_s
        while (healthy := container.run(*health_check)).returncode != 0 and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert healthy.returncode == 0, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def test_compose_builds_a_release_and_serves_it(
    environment: Callable[[str], Path], tmp_path: Path, milvus_server_uri: str
) -> None:
    make_artifact(tmp_path / "artifacts")
    ports = {name: free_port() for name in PORTS}
    here = {"http://milvus:19530": milvus_server_uri, "/artifacts": str(tmp_path / "artifacts")}
    for host in ("0.0.0.0", "127.0.0.1", "server"):
        here |= {f"{host}:{number}": f"127.0.0.1:{ports[name]}" for name, number in PORTS.items()}
    made: dict[str, Container] = {}
    for service, image in OURS.items():
        (tmp_path / service).mkdir()
        made[service] = Container(image, environment(image), tmp_path / service, variables(service), here)

    built = made["indexer"].run(*stages()["indexer"].entrypoint, *SERVICES["indexer"]["command"])
    assert built.returncode == 0, built.stderr
    assert "live " in built.stdout

    with started(made["server"], "server") as server:
        scrape = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{PORTS['metrics']}/metrics').read())"
        assert 'recall_serving{channel="live"} 1.0' in made["server"].run("python", "-c", scrape).stdout
        with started(made["gateway"], "gateway") as gateway:
            ready = stages()["gateway"].health_check[-1].replace("/healthz", "/readyz")
            assert made["gateway"].run("python", "-c", ready).returncode == 0
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(timeout=30) in (0, -signal.SIGTERM)  # uvicorn ends by the signal it was sent
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, (tmp_path / "server" / "log.txt").read_text()

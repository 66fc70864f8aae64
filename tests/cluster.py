"""What a Kubernetes cluster would not start, found without one: references, commands, addresses and network policies.

Takes the resources of a kustomization in the order in which they are applied, and gives the faults in words. It knows
the kinds of resources in docker/kubernetes and no others. Schemas are not its business.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import typer
from typer.exceptions import TyperException

from clients.cli import app as client_app
from clients.gateway.options import app as gateway_app
from indexer.__main__ import app as indexer_app
from server.options import app as server_app
from tests.images import stages

Resource = dict[str, Any]
PROGRAMS = {"indexer": indexer_app, "recall-client": client_app, "recall-gateway": gateway_app, "server": server_app}
MODULES = ("mind.prepare", "mind.train")
"""Programs of the trainer besides the indexer."""
MILVUS_PORT = 19530
_ADDRESS = re.compile(r"(?<![\w.-])([a-z][a-z0-9.-]*):(\d{2,5})(?![\d/])")


@dataclass(frozen=True)
class Pod:
    """The pods of one Deployment or CronJob."""

    name: str
    template: Resource
    job: Resource | None = None
    """The specification of the Job, if it is one."""

    @property
    def spec(self) -> Resource:
        """What its containers and volumes are."""
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def labels(self) -> dict[str, str]:
        """By which selectors find it."""
        return self.template["metadata"]["labels"]  # type: ignore[no-any-return]

    @property
    def containers(self) -> list[Resource]:
        """Those that run before the others, and the others."""
        return self.spec.get("initContainers", []) + self.spec["containers"]  # type: ignore[no-any-return]

    def ports(self) -> dict[str | int, int]:
        """The ports of its containers by name and by number."""
        ports = [port for container in self.containers for port in container.get("ports", [])]
        return {key: port["containerPort"] for port in ports for key in (port["name"], port["containerPort"])}


def selects(selector: Resource, labels: dict[str, str]) -> bool:
    """Whether a label selector finds a pod with these labels. An empty one finds all."""
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules), "another operator"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in rules
    )


@dataclass
class Cluster:
    """Resources that were applied, in order, and the secrets that somebody made before."""

    resources: list[Resource]
    secrets: dict[str, set[str]] = field(default_factory=dict)
    """Keys by the name of the secret."""

    def of(self, kind: str) -> dict[str, Resource]:
        """The resources of a kind by name."""
        return {each["metadata"]["name"]: each for each in self.resources if each["kind"] == kind}

    def pods(self) -> list[Pod]:
        """The pods that the resources make."""
        jobs = {name: each["spec"]["jobTemplate"]["spec"] for name, each in self.of("CronJob").items()}
        deployed = [Pod(name, each["spec"]["template"]) for name, each in self.of("Deployment").items()]
        return deployed + [Pod(name, job["template"], job) for name, job in jobs.items()]

    def faults(self) -> list[str]:
        """All that would not start, would not be found, or would not be let through."""
        return [
            *self._order(),
            *(f"{pod.name}: {fault}" for pod in self.pods() for fault in self._of_pod(pod)),
            *self._selectors(),
            *self._connections(),
        ]

    def _order(self) -> Iterator[str]:
        seen = set()
        for each in self.resources:
            key = (each["kind"], each["metadata"]["name"])
            namespace = each["metadata"].get("namespace")
            if each["kind"] != "Namespace" and namespace is None:
                yield f"{' '.join(key)} has no namespace"
            elif each["kind"] != "Namespace" and ("Namespace", namespace) not in seen:
                yield f"{' '.join(key)} is applied before its namespace"
            if key in seen:
                yield f"{' '.join(key)} is there twice"
            seen.add(key)

    def _of_pod(self, pod: Pod) -> Iterator[str]:
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for volume in volumes.values():
            yield from self._volume(volume)
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        yield from (f"no container mounts the volume {name}" for name in volumes.keys() - mounted)
        account = pod.spec.get("serviceAccountName", "default")
        if account != "default" and account not in self.of("ServiceAccount"):
            yield f"there is no service account {account}"
        if pod.job:
            names = {container["name"] for container in pod.containers}
            rules = pod.job.get("podFailurePolicy", {}).get("rules", [])
            asked = {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}
            yield from (f"podFailurePolicy: there is no container {name}" for name in asked - names)
        for container in pod.containers:
            yield from _mounts(container, volumes)
            yield from _commands(pod, container)
            yield from _resources(container)
            for variable in container.get("env", []):
                yield from self._variable(variable)

    def _volume(self, volume: Resource) -> Iterator[str]:
        if "persistentVolumeClaim" in volume:
            if (name := volume["persistentVolumeClaim"]["claimName"]) not in self.of("PersistentVolumeClaim"):
                yield f"there is no claim {name}"
        elif "configMap" in volume:
            yield from self._keys("ConfigMap", volume["configMap"]["name"], volume["configMap"])
        elif "secret" in volume:
            yield from self._keys("Secret", volume["secret"]["secretName"], volume["secret"])
        elif "emptyDir" not in volume:
            yield f"volume {volume['name']} is of no known type"

    def _keys(self, kind: str, name: str, wanted: Resource) -> Iterator[str]:
        maps = {map_: set(each["data"]) for map_, each in self.of("ConfigMap").items()}
        there = maps if kind == "ConfigMap" else self.secrets
        if wanted.get("optional"):
            return
        if name not in there:
            yield f"there is no {kind} {name}"
            return
        keys = {item["key"] for item in wanted.get("items", [])} | ({wanted["key"]} if "key" in wanted else set())
        yield from (f"{kind} {name} has no key {key}" for key in keys - there[name])

    def _variable(self, variable: Resource) -> Iterator[str]:
        source = variable.get("valueFrom", {})
        for field_, kind in {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}.items():
            if field_ in source:
                yield from self._keys(kind, source[field_]["name"], source[field_])

    def _selectors(self) -> Iterator[str]:
        pods = self.pods()
        for name, deployment in self.of("Deployment").items():
            if not selects(deployment["spec"]["selector"], deployment["spec"]["template"]["metadata"]["labels"]):
                yield f"Deployment {name} does not select its own pods"
        for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            for name, each in self.of(kind).items():
                if not any(selects(each["spec"][key], pod.labels) for pod in pods):
                    yield f"{kind} {name} selects no pod"
        for name, service in self.of("Service").items():
            behind = self._behind(service)
            if not behind:
                yield f"Service {name} selects no pod"
            ports = [port["targetPort"] for port in service["spec"]["ports"]]
            yield from (
                f"Service {name}: {pod.name} has no port {p}" for pod in behind for p in ports if p not in pod.ports()
            )
        for name, scaler in self.of("HorizontalPodAutoscaler").items():
            target = scaler["spec"]["scaleTargetRef"]
            if target["name"] not in self.of(target["kind"]):
                yield f"HorizontalPodAutoscaler {name}: there is no {target['kind']} {target['name']}"
            if scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
                yield f"HorizontalPodAutoscaler {name}: minReplicas is larger than maxReplicas"

    def _behind(self, service: Resource) -> list[Pod]:
        wanted = {"matchLabels": service["spec"]["selector"]}
        return [pod for pod in self.pods() if selects(wanted, pod.labels)]

    def _connections(self) -> Iterator[str]:
        """Each `host:port` that a pod is told leads to a port of pods, and its network policies let it in."""
        (namespace,) = self.of("Namespace")
        for pod in self.pods():
            for host, port in sorted(self._addresses(pod)):
                name = host.removesuffix(f".{namespace}.svc")
                if port == MILVUS_PORT and name.removesuffix("-milvus") in self.of("Milvus"):
                    continue
                service = self.of("Service").get(name)
                if service is None:
                    yield f"{pod.name}: {host}:{port} leads nowhere: there is no Service {name}"
                    continue
                for other in self._behind(service):
                    inside = _inside(service, other, port)
                    if inside is None:
                        yield f"{pod.name}: {host}:{port} leads nowhere: {other.name} has no such port"
                    elif not self._let_in(pod, other, inside):
                        yield f"{pod.name}: no network policy lets it call {other.name} at port {inside}"

    def _addresses(self, pod: Pod) -> set[tuple[str, int]]:
        """The addresses in its arguments, variables and configuration files."""
        names = [volume["configMap"]["name"] for volume in pod.spec.get("volumes", []) if "configMap" in volume]
        maps = self.of("ConfigMap")
        texts = [text for name in names if name in maps for text in maps[name]["data"].values()]
        for container in pod.containers:
            texts += container.get("args", []) + [each["value"] for each in container.get("env", []) if "value" in each]
        lines = [line.partition(" #")[0] for text in texts for line in text.splitlines()]
        return {(host, int(port)) for line in lines for host, port in _ADDRESS.findall(line)}

    def _let_in(self, caller: Pod, called: Pod, port: int) -> bool:
        policies = [each["spec"] for each in self.of("NetworkPolicy").values()]
        for_it = [policy for policy in policies if selects(policy["podSelector"], called.labels)]
        rules = [rule for policy in for_it for rule in policy.get("ingress", [])]
        return not for_it or any(
            port in [called.ports().get(each["port"]) for each in rule["ports"]] and _from(rule, caller)
            for rule in rules
        )


def _from(rule: Resource, caller: Pod) -> bool:
    """Whether a rule of a network policy admits a pod of the same namespace."""
    return any("podSelector" in source and selects(source["podSelector"], caller.labels) for source in rule["from"])


def _inside(service: Resource, pod: Pod, port: int) -> int | None:
    """The port of a pod that a port of its service leads to. A headless service gives the address of the pod itself."""
    if service["spec"].get("clusterIP") == "None":
        return pod.ports().get(port)
    found = [each["targetPort"] for each in service["spec"]["ports"] if each["port"] == port]
    return pod.ports().get(found[0]) if found else None


def _mounts(container: Resource, volumes: dict[str, Resource]) -> Iterator[str]:
    paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"there is no volume {mount['name']}"
        if paths.count(mount["mountPath"]) > 1:
            yield f"{mount['mountPath']} is mounted twice"
        outer = [path for path in paths if mount["mountPath"].startswith(f"{path}/")]
        yield from (f"{mount['mountPath']} is inside the volume {path}" for path in outer)


def _resources(container: Resource) -> Iterator[str]:
    requests, limits = (container["resources"].get(key, {}) for key in ("requests", "limits"))
    for what in requests.keys() & limits.keys():
        if quantity(requests[what]) > quantity(limits[what]):
            yield f"requests {requests[what]} of {what}, more than the limit {limits[what]}"


def quantity(text: str | int) -> float:
    """A quantity of Kubernetes, such as 500m or 2Gi, as a number."""
    matched = re.fullmatch(r"(\d+)(m|k|M|G|Ki|Mi|Gi)?", str(text))
    assert matched, text
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(matched[1]) * units.get(matched[2], 1)


def _commands(pod: Pod, container: Resource) -> Iterator[str]:
    image = container["image"].rpartition("/")[2].partition(":")[0].removeprefix("mind-recall-")
    if image not in stages():
        yield f"there is no image {container['image']}"
        return
    entrypoint, command = stages()[image].entrypoint, stages()[image].command
    words = container.get("command", entrypoint) + container.get("args", [] if "command" in container else command)
    yield from _parse(words)
    tls = "RECALL_TLS_CERT" in {variable["name"] for variable in container.get("env", [])}
    for kind in ("startup", "readiness", "liveness"):
        probe = container.get(f"{kind}Probe", {})
        for how in ("grpc", "httpGet", "tcpSocket"):
            if how in probe and probe[how]["port"] not in pod.ports():
                yield f"{kind}Probe: there is no port {probe[how]['port']}"
        yield from (f"{kind}Probe: {fault}" for fault in _parse(probe.get("exec", {}).get("command", [])))
        if tls and "grpc" in probe:
            yield f"{kind}Probe: the kubelet's gRPC probes do not speak TLS"


def _parse(words: list[str]) -> Iterator[str]:
    """What a program of ours says of its command line, without running it."""
    words = words[2:] if words[:2] == ["python", "-m"] else words
    if not words or words[0] in MODULES:
        return
    if words[0] not in PROGRAMS:
        yield f"{words[0]} is no program of the image"
        return
    try:
        command, options = typer.main.get_command(PROGRAMS[words[0]]), words[1:]
        if isinstance(command, typer.core.TyperGroup) and options:
            command, options = command.commands[options[0]], options[1:]
        command.make_context(words[0], list(options))
    except KeyError as error:
        yield f"{words[0]} has no command {error}"
    except (TyperException, typer.Exit) as error:
        yield f"{' '.join(words)}: {getattr(error, 'message', error)}"

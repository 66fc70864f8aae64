"""The Kubernetes manifests on a simulated cluster: every reference resolves, and a mistake is found."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster import Cluster, Resource
from tests.project.test_kubernetes import KUBERNETES, SIZES, certificate, containers, only, rendered

CERTIFICATE = certificate()
TLS = {CERTIFICATE["spec"]["secretName"]: {"ca.crt", "tls.crt", "tls.key"}}
"""The secret that cert-manager makes of a Certificate."""
CHOICES = [(), ("tls",), ("release-only",), ("release-only", "tls"), ("gpu", "pod-monitor", "queue-depth", "tls")]


def kustomized(size_name: str, components: tuple[str, ...], directory: Path) -> list[Resource]:
    """The resources of a size with components, in the order in which kubectl applies them."""
    here = {
        "resources": [os.path.relpath(KUBERNETES / "sizes" / size_name, directory)],
        "components": [os.path.relpath(KUBERNETES / "components" / name, directory) for name in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(here))
    return rendered(directory)


@pytest.mark.parametrize("components", CHOICES, ids="-".join)
@pytest.mark.parametrize("size_name", SIZES)
def test_everything_that_is_named_is_there(size_name: str, components: tuple[str, ...], tmp_path: Path) -> None:
    resources = kustomized(size_name, components, tmp_path)
    assert Cluster(resources, TLS if "tls" in components else {}).faults() == []


def _spec(resources: list[Resource], kind: str, name: str) -> Resource:
    spec = only(resources, kind, name)["spec"]
    return spec.get("jobTemplate", {}).get("spec", spec)["template"]["spec"]  # type: ignore[no-any-return]


def _server(resources: list[Resource]) -> Resource:
    return _spec(resources, "Deployment", "recall-server")


def _gateway(resources: list[Resource]) -> Resource:
    return _spec(resources, "Deployment", "recall-gateway")


def _nightly(resources: list[Resource]) -> Resource:
    return _spec(resources, "CronJob", "recall-indexer")


def _without(kind: str, name: str) -> Callable[[list[Resource]], object]:
    return lambda resources: resources.remove(only(resources, kind, name))


MISTAKES: dict[str, tuple[Callable[[list[Resource]], object], str]] = {
    "order": (lambda r: r.append(r.pop(0)), "Service recall is applied before its namespace"),
    "claim": (_without("PersistentVolumeClaim", "recall-data"), "recall-indexer: there is no claim recall-data"),
    "secret": (
        lambda r: _server(r)["volumes"].append({"name": "x", "secret": {"secretName": "recall-tsl"}}),
        "recall-server: there is no Secret recall-tsl",
    ),
    "variable": (
        lambda r: _server(r)["containers"][0]["env"][-1]["valueFrom"]["secretKeyRef"].pop("optional"),
        "recall-server: there is no Secret recall-milvus",
    ),
    "account": (lambda r: _server(r).update(serviceAccountName="me"), "recall-server: there is no service account me"),
    "mount": (
        lambda r: _gateway(r)["containers"][0]["volumeMounts"].append({"name": "home", "mountPath": "/home"}),
        "recall-gateway: there is no volume home",
    ),
    "nested": (
        lambda r: _nightly(r)["containers"][0]["volumeMounts"].append({"name": "tmp", "mountPath": "/etc/recall/tls"}),
        "recall-indexer: /etc/recall/tls is inside the volume /etc/recall",
    ),
    "idle volume": (
        lambda r: _gateway(r)["volumes"].append({"name": "home", "emptyDir": {}}),
        "recall-gateway: no container mounts the volume home",
    ),
    "probe's port": (
        lambda r: _gateway(r)["containers"][0]["livenessProbe"]["httpGet"].update(port="web"),
        "recall-gateway: livenessProbe: there is no port web",
    ),
    "probe's command": (
        lambda r: _server(r)["containers"][0].update(livenessProbe={"exec": {"command": ["recall-client", "healthy"]}}),
        "recall-server: livenessProbe: recall-client has no command 'healthy'",
    ),
    "probe over TLS": (
        lambda r: _server(r)["containers"][0]["env"].append({"name": "RECALL_TLS_CERT", "value": "/x"}),
        "recall-server: startupProbe: the kubelet's gRPC probes do not speak TLS",
    ),
    "option": (
        lambda r: _nightly(r)["containers"][0]["args"].append("--frobnicate"),
        "recall-indexer: indexer nightly --config /etc/recall/nightly.yaml --server recall-all:50051 --frobnicate: "
        "No such option: --frobnicate",
    ),
    "image": (
        lambda r: _server(r)["containers"][0].update(image="mind-recall-serve:1"),
        "recall-server: there is no image mind-recall-serve:1",
    ),
    "memory": (
        lambda r: _server(r)["containers"][0]["resources"]["limits"].update(memory="1M"),
        "recall-server: requests 800M of memory, more than the limit 1M",
    ),
    "service": (
        _without("Service", "recall"),
        "recall-gateway: recall:50051 leads nowhere: there is no Service recall",
    ),
    "milvus": (
        _without("Milvus", "recall"),
        "recall-server: recall-milvus.recall.svc:19530 leads nowhere: there is no Service recall-milvus",
    ),
    "service's port": (
        lambda r: only(r, "Service", "recall-gateway")["spec"]["ports"][0].update(targetPort="web"),
        "Service recall-gateway: recall-gateway has no port web",
    ),
    "selector": (
        lambda r: only(r, "Service", "recall")["spec"].update(selector={"app": "recall"}),
        "Service recall selects no pod",
    ),
    "network policy": (
        lambda r: only(r, "NetworkPolicy", "recall-server")["spec"]["ingress"].pop(0),
        "recall-gateway: no network policy lets it call recall-server at port 50051",
    ),
    "metrics port": (
        lambda r: only(r, "NetworkPolicy", "recall-server")["spec"]["ingress"].pop(1),
        "recall-indexer: no network policy lets it call recall-server at port 9464",
    ),
    "scaler": (
        lambda r: only(r, "HorizontalPodAutoscaler", "recall-server")["spec"]["scaleTargetRef"].update(name="server"),
        "HorizontalPodAutoscaler recall-server: there is no Deployment server",
    ),
    "exit code": (
        lambda r: only(r, "CronJob", "recall-indexer")["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0][
            "onExitCodes"
        ].update(containerName="night"),
        "recall-indexer: podFailurePolicy: there is no container night",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str) -> None:
    make, told = MISTAKES[mistake]
    resources = copy.deepcopy(rendered(KUBERNETES / "sizes" / "1m"))
    make(resources)
    assert told in Cluster(resources).faults()


def test_a_secret_without_a_key_is_found(tmp_path: Path) -> None:
    resources = kustomized("1m", ("tls",), tmp_path)
    assert (
        "recall-gateway: Secret recall-tls has no key ca.crt"
        in Cluster(resources, {"recall-tls": {"tls.crt", "tls.key"}}).faults()
    )


def test_the_certificate_has_the_names_by_which_servers_are_called(tmp_path: Path) -> None:
    resources = kustomized("1m", ("tls",), tmp_path)
    names = CERTIFICATE["spec"]["dnsNames"]
    services = {each["metadata"]["name"] for each in resources if each["kind"] == "Service"}
    servers = {name for name in services if name in ("recall", "recall-all")}
    assert servers | {"localhost", f"recall.{CERTIFICATE['metadata']['namespace']}.svc"} <= set(names)
    (server,) = containers({"spec": _server(resources)})
    for kind in ("startup", "readiness", "liveness"):
        assert "--server" not in server[f"{kind}Probe"]["exec"]["command"]  # so that it asks localhost

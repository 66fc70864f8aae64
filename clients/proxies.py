"""Finds the proxy that gRPC takes from the environment, and the targets that must not use it."""

import re
from collections.abc import Mapping

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables in the order in which gRPC reads them; only in lower case."""
_NO_PROXY = ("no_grpc_proxy", "no_proxy")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


def hosts_of(target: str) -> list[str]:
    """Return the hosts of a target such as `host:port`, `dns:///host:port` or `ipv4:1.2.3.4:50051,1.2.3.5:50051`."""
    addresses = re.sub(r"^[a-z0-9+-]+:(//[^/]*/|(?=.*:))", "", target, count=1)
    return [re.sub(r":\d+$", "", address).strip("[]") for address in addresses.split(",")]


def is_local(target: str) -> bool:
    """Whether a target is this machine: only a Unix socket or loopback addresses."""
    if target.startswith(("unix:", "unix-abstract:", "vsock:")):
        return True
    return all(_LOOPBACK.fullmatch(host) for host in hosts_of(target))


def proxy_of(target: str, environment: Mapping[str, str]) -> str:
    """Return the variable with the proxy that gRPC uses for a target, as `name=value` without password; empty without
    one.
    """
    if is_local(target):
        return ""
    for name in PROXY_VARIABLES:
        if value := environment.get(name):
            spared = next((environment[other] for other in _NO_PROXY if other in environment), "")
            suffixes = [part.strip() for part in spared.split(",") if part.strip()]
            if any(host.endswith(suffix) for host in hosts_of(target) for suffix in suffixes):
                return ""
            return f"{name}={re.sub(r'//[^/@]*@', '//', value)}"
    return ""

"""What the servers say that they serve, asked over gRPC: before a release counts as done, before a collection goes.

Every address that a name stands for is asked, and of a port that several processes share each of them.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from indexer.errors import RefusedError, ServersError
from protos.recall.v1 import recall_pb2, recall_pb2_grpc

CALL_TIMEOUT_S = 5
"""Longest wait for one server's answer."""
PAUSE_S = 0.2
"""Between two rounds of questions."""
MOST_CONNECTIONS = 20
"""Connections for every process of a port, which the kernel spreads by chance, until all have been met."""


@dataclass(frozen=True)
class Servers:
    """Which servers there are, and how to get in."""

    targets: tuple[str, ...]
    """`host:port` each; a name may stand for several addresses."""
    token: str = ""
    """Sent as `authorization: Bearer <token>`, if there is one."""
    ca_cert: Path | None = None
    """PEM file that their certificates are checked against; without it the connection is not encrypted."""
    client_cert: Path | None = None
    """PEM file for mutual TLS; needs `client_key`."""
    client_key: Path | None = None
    """Private key of `client_cert`."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, by its option."""
        for target in self.targets:
            host, _, port = target.rpartition(":")
            if not (host and port.isdecimal()):
                raise RefusedError(f"--server {target}: expected host:port")
        if bool(self.client_cert) != bool(self.client_key) or (self.client_cert and not self.ca_cert):
            raise RefusedError("--server-client-cert needs --server-client-key and --server-ca-cert")


@dataclass(frozen=True)
class Serving:
    """What one server process serves."""

    address: str
    instance: str
    """Tells the processes of one address apart."""
    collection: str
    """Empty if it has no release."""
    previous_collection: str
    """What requests in progress and a rollback may still use; may be empty."""
    refused: str
    """Why it did not take the newest release over; may be empty."""
    refused_collection: str | None
    """The collection that it refused; empty if it refused none, None if the server is too old to tell."""

    def refuses(self, collection: str) -> bool:
        """Whether the server checked this collection and refused it."""
        if self.refused_collection is None:
            return collection in self.refused
        return collection == self.refused_collection

    def __str__(self) -> str:
        """For people."""
        refused = f", refused: {self.refused}" if self.refused else ""
        return f"{self.address} serves {self.collection or 'nothing'}{refused}"


def collections_in_use(servers: Servers) -> set[str]:
    """Collections that some server serves or would roll back to.

    Raises:
        ServersError: one cannot be asked, so what it uses is not known.
    """
    found = [serving for address, name in _addresses(servers) for serving in _processes(servers, address, name)]
    return {name for serving in found for name in (serving.collection, serving.previous_collection) if name}


def wait_until_serving(
    servers: Servers, collection: str, timeout_s: float, on_progress: Callable[[int, int], None]
) -> int:
    """Return when every process of every server serves a collection.

    Args:
        servers: all of them.
        collection: the one that was released.
        timeout_s: longest wait.
        on_progress: told the number of addresses that are done, and of all.

    Returns:
        The number of server processes.

    Raises:
        ServersError: one refused the release, or did not take it over in time.
    """
    deadline = time.monotonic() + timeout_s
    addresses = _addresses(servers)
    waiting = dict.fromkeys(addresses, "has not been asked")
    processes = 0
    while True:
        on_progress(len(addresses) - len(waiting), len(addresses))
        for address, name in list(waiting):
            try:
                found = _processes(servers, address, name)
            except ServersError as error:
                waiting[address, name] = str(error)
                continue
            behind = [serving for serving in found if serving.collection != collection]
            if refused := [serving for serving in behind if serving.refuses(collection)]:
                raise ServersError(f"{refused[0]}; `python -m indexer rollback` takes the release back")
            if not behind:
                processes += len(found)
                del waiting[address, name]
            else:
                waiting[address, name] = str(behind[0])
        if not waiting:
            on_progress(len(addresses), len(addresses))
            return processes
        if time.monotonic() > deadline:
            raise ServersError(
                f"after {timeout_s:g} s (--wait-timeout-s) {len(waiting)} of {len(addresses)} servers do not serve "
                f"{collection}: {'; '.join(waiting.values())}"
            )
        time.sleep(PAUSE_S)


def _addresses(servers: Servers) -> list[tuple[str, str]]:
    """Address and host name of every server."""
    found: dict[tuple[str, str], None] = {}
    for target in servers.targets:
        host, _, port = target.rpartition(":")
        try:
            known = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except (OSError, OverflowError) as error:
            raise ServersError(f"--server {target}: {error}") from error
        for family, *_, address in known:
            literal = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
            found[f"{literal}:{port}", host] = None
    return list(found)


def _processes(servers: Servers, address: str, name: str) -> list[Serving]:
    """What every process behind an address serves; each is met by chance, on a connection of its own."""
    met: dict[str, Serving] = {}
    expected, asked = 1, 0
    while len(met) < expected:
        if asked >= MOST_CONNECTIONS * expected:
            raise ServersError(f"{address}: only {len(met)} of {expected} processes were met on {asked} connections")
        info = _ask(servers, address, name)
        asked += 1
        expected = info.processes
        met[info.instance] = Serving(
            address=address,
            instance=info.instance,
            collection=info.collection,
            previous_collection=info.previous_collection,
            refused=info.refused_release,
            refused_collection=info.refused_collection if info.HasField("refused_collection") else None,
        )
    return list(met.values())


def _ask(servers: Servers, address: str, name: str) -> recall_pb2.GetServerInfoResponse:
    metadata = [("authorization", f"Bearer {servers.token}")] if servers.token else None
    with _channel(servers, address, name) as channel:
        try:
            info: recall_pb2.GetServerInfoResponse = recall_pb2_grpc.RecallServiceStub(channel).GetServerInfo(
                recall_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            raise ServersError(f"{address} cannot be asked: {error.details() or error.code().name}") from error
    return info


@contextmanager
def _channel(servers: Servers, address: str, name: str) -> Iterator[grpc.Channel]:
    options: list[tuple[str, str | int]] = [("grpc.use_local_subchannel_pool", 1)]  # never a connection made before
    if not servers.ca_cert:
        with grpc.insecure_channel(address, options) as channel:
            yield channel
        return
    try:
        authority = servers.ca_cert.read_bytes()
        certificate = servers.client_cert.read_bytes() if servers.client_cert else None
        key = servers.client_key.read_bytes() if servers.client_key else None
    except OSError as error:
        raise RefusedError(f"{error.filename}: cannot be read: {error.strerror}") from error
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    options.append(("grpc.ssl_target_name_override", name))
    with grpc.secure_channel(address, credentials, options) as channel:
        yield channel

"""Asks the recall servers over gRPC which collections they serve in which channels.

`publish --wait` uses this to wait until a release is served; `prune` uses it to keep collections that are in use. Every
address of a host name is asked. Where several processes share a port, each of them is asked.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from indexer.errors import RefusedError, ServersError
from mind.milvus.channels import LIVE
from protos.recall.v1 import recall_pb2, recall_pb2_grpc

CALL_TIMEOUT_S = 5
"""Maximum time to wait for the answer of one server."""
PAUSE_S = 0.2
"""Pause between two rounds in which all servers are asked."""
MOST_CONNECTIONS = 20
"""Maximum number of connections for each process of a port. The kernel assigns connections to processes by chance, so
it may take several until all processes have answered."""


@dataclass(frozen=True)
class Servers:
    """The addresses of the recall servers, and the credentials for them."""

    targets: tuple[str, ...]
    """The addresses, each as `host:port`. A host name may stand for several addresses."""
    token: str = ""
    """The token, sent as `authorization: Bearer <token>`; empty sends none."""
    ca_cert: Path | None = None
    """PEM file that the servers' certificates are checked against. Without it the connection is not encrypted."""
    client_cert: Path | None = None
    """PEM file with the client certificate for mutual TLS; needs `client_key` and `ca_cert`."""
    client_key: Path | None = None
    """PEM file with the private key of `client_cert`."""

    def __post_init__(self) -> None:
        """Check the values. Raises RefusedError, which names the option."""
        for target in self.targets:
            host, _, port = target.rpartition(":")
            if not (host and port.isdecimal()):
                raise RefusedError(f"--server {target}: expected host:port")
        if bool(self.client_cert) != bool(self.client_key) or (self.client_cert and not self.ca_cert):
            raise RefusedError(
                "mutual TLS needs --server-client-cert, --server-client-key and --server-ca-cert together"
            )


@dataclass(frozen=True)
class Serving:
    """The answer of one server process about one channel: what it serves there."""

    address: str
    instance: str
    """An id that differs between the processes of one address."""
    collection: str
    """The collection that it serves; empty if it has no release."""
    previous_collection: str
    """The previous collection, which requests in progress and a rollback may still use; empty if there is none."""
    refused: str
    """Why the server refused the newest release; empty if it did not."""
    refused_collection: str | None
    """The collection that it refused; empty if it refused none, None if the server is too old to report it."""
    channel: str = LIVE
    """The channel that this is about."""

    def refuses(self, collection: str) -> bool:
        """Return whether the server checked this collection and refused it."""
        if self.refused_collection is None:
            return collection in self.refused
        return collection == self.refused_collection

    def __str__(self) -> str:
        """Say in one sentence what the server serves and what it refused."""
        refused = f", refused: {self.refused}" if self.refused else ""
        where = "" if self.channel == LIVE else f" in channel {self.channel}"
        return f"{self.address} serves {self.collection or 'nothing'}{where}{refused}"


def collections_in_use(servers: Servers) -> set[str]:
    """Return the names of the collections that a server serves in a channel or would roll back to.

    Raises:
        ServersError: a server did not answer, so the collections that it uses are unknown.
    """
    found: set[str] = set()
    for address, name in _addresses(servers):
        for info in _processes(servers, address, name):
            found |= {info.collection, info.previous_collection}
            for channel in info.channels:
                found |= {channel.collection, channel.previous_collection}
    return found - {""}


def wait_until_serving(
    servers: Servers,
    collection: str,
    timeout_s: float,
    on_progress: Callable[[int, int], None],
    channel: str = LIVE,
) -> int:
    """Wait until every process of every server serves a collection in a channel.

    Args:
        servers: the servers to ask.
        collection: the collection that was released.
        timeout_s: maximum time to wait.
        on_progress: called with the number of addresses that serve the collection, and of all addresses.
        channel: the channel that it was released in.

    Returns:
        The number of server processes.

    Raises:
        ServersError: a server refused the release, does not serve the channel, or did not take the release over in
            time.
    """
    deadline = time.monotonic() + timeout_s
    addresses = _addresses(servers)
    waiting = dict.fromkeys(addresses, "has not been asked")
    processes = 0
    while True:
        on_progress(len(addresses) - len(waiting), len(addresses))
        for address, name in list(waiting):
            try:
                infos = _processes(servers, address, name)
            except ServersError as error:
                waiting[address, name] = str(error)
                continue
            found = [serving_in(channel, info, address) for info in infos]
            behind = [serving for serving in found if serving.collection != collection]
            if refused := [serving for serving in behind if serving.refuses(collection)]:
                option = "" if channel == LIVE else f" --channel {channel}"
                raise ServersError(f"{refused[0]}; `python -m indexer rollback{option}` takes the release back")
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
    """Return the address and the host name of every server."""
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


def serving_in(channel: str, info: recall_pb2.GetServerInfoResponse, address: str) -> Serving:
    """Return what a server process serves in a channel.

    Raises:
        ServersError: the server does not serve the channel.
    """
    told: recall_pb2.ChannelInfo | recall_pb2.GetServerInfoResponse | None
    if info.channels:
        told = next((one for one in info.channels if one.name == channel), None)
        refused_collection = told.refused_collection if told else None
    else:  # a server of an earlier version, which knows no channels
        told = info if channel == LIVE else None
        refused_collection = info.refused_collection if info.HasField("refused_collection") else None
    if told is None:
        served = ", ".join(one.name for one in info.channels) or LIVE
        raise ServersError(
            f"{address} does not serve channel {channel}, but {served}; start it with `--channel {channel}` too, or "
            "leave it out of --server"
        )
    return Serving(
        address=address,
        instance=info.instance,
        collection=told.collection,
        previous_collection=told.previous_collection,
        refused=told.refused_release,
        refused_collection=refused_collection,
        channel=channel,
    )


def _processes(servers: Servers, address: str, name: str) -> list[recall_pb2.GetServerInfoResponse]:
    """Ask every process behind an address. Each connection reaches one of them by chance."""
    met: dict[str, recall_pb2.GetServerInfoResponse] = {}
    expected, asked = 1, 0
    while len(met) < expected:
        if asked >= MOST_CONNECTIONS * expected:
            raise ServersError(
                f"{address}: only {len(met)} of {expected} server processes answered on {asked} connections; try again"
            )
        info = _ask(servers, address, name)
        asked += 1
        expected = info.processes
        met[info.instance] = info
    return list(met.values())


def _ask(servers: Servers, address: str, name: str) -> recall_pb2.GetServerInfoResponse:
    metadata = [("authorization", f"Bearer {servers.token}")] if servers.token else None
    with _connection(servers, address, name) as connection:
        try:
            info: recall_pb2.GetServerInfoResponse = recall_pb2_grpc.RecallServiceStub(connection).GetServerInfo(
                recall_pb2.GetServerInfoRequest(), timeout=CALL_TIMEOUT_S, metadata=metadata
            )
        except grpc.RpcError as error:
            raise ServersError(_silence(address, error.details() or error.code().name)) from error
    return info


def _silence(address: str, details: str) -> str:
    """That a server did not answer, and what starts one where there is none."""
    if "connection refused" in details.lower():
        return f"{address} did not answer (connection refused); `python -m server --listen {address}` starts a server"
    return f"{address} did not answer: {details}"


@contextmanager
def _connection(servers: Servers, address: str, name: str) -> Iterator[grpc.Channel]:
    options: list[tuple[str, str | int]] = [("grpc.use_local_subchannel_pool", 1)]  # always a new connection
    if not servers.ca_cert:
        with grpc.insecure_channel(address, options) as connection:
            yield connection
        return
    try:
        authority = servers.ca_cert.read_bytes()
        certificate = servers.client_cert.read_bytes() if servers.client_cert else None
        key = servers.client_key.read_bytes() if servers.client_key else None
    except OSError as error:
        raise RefusedError(f"{error.filename}: cannot be read: {error.strerror}") from error
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    options.append(("grpc.ssl_target_name_override", name))
    with grpc.secure_channel(address, credentials, options) as connection:
        yield connection

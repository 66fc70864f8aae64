"""Runs a real Milvus 2.3.5 in the foreground until Ctrl-C: `make milvus`. `python -m tests.milvus --help`.

It is the one of the PyPI package `milvus` (Linux, x86-64). The command of that package shows no port and takes another
one without a word when the port seems held; here it is the port that was asked for, or an error.
"""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psutil
import typer

PORT, DATA = 19530, Path("data/milvus")
ETCD_PORTS = (2379, 2380)
"""The ports of Milvus' own etcd, which cannot be moved: one such server a machine."""
START_TIMEOUT_S, LEAVE_TIMEOUT_S = 120, 60
_GRACE_S = 2
"""How long Milvus waits for its clients when it is told to leave; by itself half an hour."""
_TELL_EVERY_S = 5


def launched(data: Path, port: int) -> Any:
    """Start Milvus with its data in a directory and on a port; the `milvus.MilvusServer`. Does not wait for it."""
    from milvus import MilvusServer, MilvusServerConfig  # not installed everywhere

    config = MilvusServerConfig(data_dir=str(data), proxy_port=port)
    config.set("common.gracefulStopTimeout", _GRACE_S)
    config.try_bind_port = _reserved  # its own takes a port for held while connections to it linger after a restart
    server = MilvusServer(config, wait_for_started=False)
    server.start()
    return server


def _reserved(port: int) -> socket.socket | None:
    """A socket that holds a port, None if somebody listens there."""
    try:
        return socket.create_server(("", port))
    except OSError:
        return None


def is_healthy(server: Any) -> bool:
    """Whether Milvus says of itself that it is healthy."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.webservice_port}/healthz", timeout=5) as answer:
            return b"OK" in answer.read()
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes], timeout_s: float = LEAVE_TIMEOUT_S) -> None:
    """End Milvus with SIGTERM, and with SIGKILL after the timeout or at Ctrl-C; its data stay."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def refusal(port: int, fixed: Sequence[int] = ETCD_PORTS) -> str:
    """Why Milvus cannot listen on a port and on the fixed ones; empty if it can."""
    for wanted in (port, *fixed):
        reserved = _reserved(wanted)
        if reserved is None:
            other = (
                "or choose another port, PORT=..." if wanted == port else "since Milvus cannot use another port for it"
            )
            return f"port {wanted} is held{_holder(wanted)}; stop that, {other}"
        reserved.close()
    return ""


def _holder(port: int) -> str:
    """The process that listens on a port, as part of a sentence; empty if the system does not tell."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = PORT,
    data: Annotated[Path, typer.Option(metavar="DIR", help="Directory of its data and logs; they stay.")] = DATA,
) -> None:
    """Run a real Milvus 2.3.5 on this machine until Ctrl-C, for trying things and for tests.

    It takes the port that it is told or ends with an error. It listens on all interfaces, without a password.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if find_spec("milvus") is None:
        _fail("the package milvus is not installed: it exists for Linux on x86-64; docker/README.md has containers")
    if why := refusal(port):
        _fail(why)
    if not (data / "bin" / "milvus").exists():
        _say("unpacking Milvus: 10 s, once")
    data.mkdir(parents=True, exist_ok=True)
    _say(f"starting Milvus 2.3.5 on port {port}, data in {data}, logs in {data / 'logs'}")
    server = launched(data, port)
    try:
        _wait(server, data)
        _say(_welcome(server, port))
        server.server_proc.wait()
        _fail(f"Milvus ended with exit code {server.server_proc.returncode}; {_log(data)} may say why")
    except KeyboardInterrupt:
        _say(f"stopping: {LEAVE_TIMEOUT_S} s at most; the data stay in {data}")
    finally:
        stop(server.server_proc)


def _wait(server: Any, data: Path) -> None:
    """Wait until Milvus is healthy, and tell every few seconds that it is not yet."""
    started = told = time.monotonic()
    while not is_healthy(server):
        now = time.monotonic()
        if server.server_proc.poll() is not None:
            _fail(f"Milvus ended with exit code {server.server_proc.returncode}; {_log(data)} may say why")
        if now - started > START_TIMEOUT_S:
            _fail(f"Milvus did not come up within {START_TIMEOUT_S} s; {_log(data)} may say why")
        if now - told >= _TELL_EVERY_S:
            _say(f"still starting after {now - started:.0f} s; after a kill it takes up to a minute")
            told = now
        time.sleep(0.2)


def _welcome(server: Any, port: int) -> str:
    """The address, and from where it can be reached. Ends the program if Milvus does not listen where it must."""
    sockets = psutil.Process(server.server_proc.pid).net_connections("tcp")
    listening = [connection.laddr for connection in sockets if connection.status == psutil.CONN_LISTEN]
    if port not in {address.port for address in listening}:
        _fail(f"Milvus does not listen on port {port}, but on {sorted(address.port for address in listening)}")
    far = sorted({address.port for address in listening if not address.ip.startswith(("127.", "::1"))})
    return f"""Milvus 2.3.5 answers at http://127.0.0.1:{port}; Ctrl-C stops it

    export RECALL_MILVUS_URI=http://127.0.0.1:{port}

Milvus 2.3.5 cannot be told to listen on this machine alone, and asks for no password. Where others can reach this
machine, a firewall must keep them from the ports {", ".join(map(str, far))}."""


def _log(data: Path) -> Path:
    return data / "logs" / "milvus-stderr.log"


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(why: str) -> NoReturn:
    sys.exit(f"error: {why}")


if __name__ == "__main__":
    typer.run(main)

"""Runs the real Milvus 2.3.5 of the PyPI package `milvus` until standard input ends, so it dies with its parent.

    python -m tests.milvus_server DATA_DIRECTORY BINARY_CACHE

Prints the URI once the server is healthy. Its embedded etcd needs port 2380, which cannot be moved: runs on one
machine take turns, by a lock file.
"""

import fcntl
import select
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from milvus import MilvusServer, MilvusServerConfig

START_TIMEOUT_S = 90


def main(data: Path, cache: Path) -> None:
    """Start it, say where it is, wait for the parent to go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    cache.mkdir(parents=True, exist_ok=True)
    (data / "bin").symlink_to(cache)  # unpacking the binary takes 10 s: once is enough
    with (Path(tempfile.gettempdir()) / "mind-recall-milvus.lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if _parent_gone(timeout_s=0.5):
                return
        port = _free_port()
        server = MilvusServer(MilvusServerConfig(data_dir=str(data), proxy_port=port), wait_for_started=False)
        server.start()
        try:
            _wait_until_healthy(server, data)
            if server.listen_port != port:
                sys.exit(f"asked for port {port}, Milvus listens on {server.listen_port}")
            print(f"http://127.0.0.1:{port}", flush=True)
            while server.server_proc.poll() is None and not _parent_gone(timeout_s=1):
                pass
        finally:
            server.stop()


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parent_gone(timeout_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_healthy(server: MilvusServer, data: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.server_proc.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.webservice_port}/healthz", timeout=5) as answer:
                if b"OK" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    log = (data / "logs" / "milvus-stderr.log").read_text(errors="replace")[-2000:]
    sys.exit(f"Milvus did not start; does another one run on this machine (port 2380)?\n{log}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

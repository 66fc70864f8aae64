"""Runs the real Milvus 2.3.5 of the PyPI package `milvus` until standard input ends, so it dies with its parent.

    python -m tests.milvus_server DATA_DIRECTORY BINARY_CACHE

Prints the URI once the server is healthy, then obeys the lines `kill`, `terminate`, `start`, `pause` and `resume`, and
answers each with itself; `Milvus` is the other side. Its embedded etcd needs port 2380, which cannot be moved: runs on
one machine take turns, by a lock file.
"""

import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import psutil

from tests import ROOT
from tests.milvus import is_healthy, launched, stop
from tests.ports import free_port

START_TIMEOUT_S = 90
TERMINATE_TIMEOUT_S = 300
"""How long Milvus gets to end by itself. A SIGKILL can bring deleted items back (docs/how-to/milvus.md), and a busy
machine needs more than a minute."""
ATTEMPTS, PAUSE_S = 3, 5
"""To start, where Milvus ends at once; and the time between two of them."""
URI_FILE, FAILED_FILE = "uri.txt", "failed.txt"
"""One of them appears in the data directory once the server is healthy, or has failed to start."""
QUICK = {
    "DATACOORD_SEGMENT_ASSIGNMENTEXPIRATION": "200",
    "INDEXCOORD_SCHEDULER_INTERVAL": "100",
    "PROXY_TIMETICKINTERVAL": "100",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "100",
    "QUERYCOORD_CHECKINTERVAL": "100",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "100",
    "QUERYCOORD_DISTPULLINTERVAL": "100",
    "QUERYCOORD_UPDATENEXTTARGETINTERVAL": "1",
}
"""Settings, as environment variables, by which Milvus looks for work several times a second: ms, the last one s.

By its own it waits up to a second before it flushes, loads or releases: 11 s for a small collection, 5 s with these.
"""


class Milvus:
    """A Milvus server in a process of its own that can be killed, paused and started again. A context manager."""

    def __init__(self, data: Path, cache: Path, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """Start it with a new data directory, and do not wait.

        Args:
            data: where it keeps its data; made if it is not there.
            cache: keeps its unpacked binary.
            settings: environment variables for it, such as QUICK.
        """
        command = [sys.executable, "-m", "tests.milvus_server", str(data.resolve()), str(cache.resolve())]
        data.mkdir(parents=True, exist_ok=True)
        self.uri_file = data / URI_FILE
        """Appears once the server is healthy, with its address, for other processes."""
        self._errors = data / "errors.txt"
        pipe = subprocess.PIPE
        with self._errors.open("w") as stderr:
            environment = os.environ | settings
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=stderr, text=True
            )

    @cached_property
    def uri(self) -> str:
        """Its address, once it is healthy.

        Raises:
            RuntimeError: it did not start; says why.
        """
        uri = self._read()
        if not uri:
            self.stop()
            raise RuntimeError(f"the Milvus server did not start:\n{self._errors.read_text()}")
        return uri

    def kill(self) -> None:
        """End it with SIGKILL; its data stay."""
        self._tell("kill")

    def terminate(self) -> None:
        """End it with SIGTERM, and with SIGKILL if it is still there after five minutes; its data stay."""
        self._tell("terminate")

    def start(self) -> None:
        """Start it again after `kill` or `terminate`, on the same port and data; does not wait until it answers."""
        self._tell("start")

    def pause(self) -> None:
        """Stop it with SIGSTOP: connections stay open, nobody answers."""
        self._tell("pause")

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._tell("resume")

    def stop(self) -> None:
        """End it for good."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        """The server itself, healthy."""
        _ = self.uri
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    def _tell(self, order: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if answer != order:
            raise RuntimeError(f"{order!r}: the Milvus server answered {answer!r}")

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def main(data: Path, cache: Path) -> None:
    """Start it, say where it is, do as the parent says until it goes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    cache.mkdir(parents=True, exist_ok=True)
    (data / "bin").symlink_to(cache)  # unpacking the binary takes 10 s: once is enough
    with (Path(tempfile.gettempdir()) / "mind-recall-milvus.lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if _parent_gone(timeout_s=0.5):
                return
        try:
            server, port = _start(data)
        except SystemExit:
            (data / FAILED_FILE).touch()
            raise
        try:
            if server.listen_port != port:
                sys.exit(f"asked for port {port}, Milvus listens on {server.listen_port}")
            uri = f"http://127.0.0.1:{port}"
            (data / "uri").write_text(uri)
            (data / "uri").rename(data / URI_FILE)  # whole or not at all
            print(uri, flush=True)
            _obey(server)
        finally:
            if server.server_proc.poll() is None:
                server.server_proc.send_signal(signal.SIGCONT)
            server.stop()


def _start(data: Path) -> tuple[Any, int]:
    """Start Milvus on a free port and wait until it is healthy; try again where it ends at once.

    Another Milvus may be on its way out, and hold port 2380 for a moment.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S if attempt else 0)
        port = free_port()
        with (data / "bin" / "unpacking.lock").open("w") as unpacking:  # another process may unpack it there, too
            fcntl.flock(unpacking.fileno(), fcntl.LOCK_EX)
            server = launched(data, port)
        try:
            if _is_healthy_in_time(server):
                return server, port
        except BaseException:
            server.stop()
            raise
        server.stop()
    log = (data / "logs" / "milvus-stderr.log").read_text(errors="replace")[-2000:]
    sys.exit(f"Milvus did not start; does another one run on this machine (port 2380)?\n{log}")


def _obey(server: Any) -> None:
    """Do as told until standard input ends."""
    process = psutil.Process(server.server_proc.pid)
    # The wrapper's own start would take other ports while connections to the old ones linger.
    command, environment, directory = process.cmdline(), process.environ(), process.cwd()
    while order := sys.stdin.readline().strip():
        match order:
            case "kill":
                server.server_proc.kill()
                server.server_proc.wait()
            case "terminate":
                stop(server.server_proc, TERMINATE_TIMEOUT_S)
            case "start":
                logs = {name: server.proc_fds[name] for name in ("stdout", "stderr")}
                server.server_proc = subprocess.Popen(command, cwd=directory, env=environment, **logs)
            case "pause":
                server.server_proc.send_signal(signal.SIGSTOP)
            case "resume":
                server.server_proc.send_signal(signal.SIGCONT)
            case _:
                sys.exit(f"{order!r}: no such order")
        print(order, flush=True)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parent_gone(timeout_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], timeout_s)[0])


def _is_healthy_in_time(server: Any) -> bool:
    """Wait until Milvus says that it is healthy; false if it ended, or not within `START_TIMEOUT_S`."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.server_proc.poll() is None and time.monotonic() < deadline:
        if is_healthy(server):
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

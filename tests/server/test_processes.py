"""Several server processes behind one port: callers are spread over them, and they start and end together."""

import re
import signal
import socket
import subprocess
import sys
from collections import Counter

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.processes import ARENAS
from tests.server.test_service import ROOT, Server, running
from tests.waiting import wait_until

NO_MILVUS = ("--milvus-uri", "http://127.0.0.1:1", "--processes", "2")


def pids(server: Server) -> list[int]:
    """Of the two that listen."""
    log = server.wait_for(r"(?s)\[(\d+)\] server.app: listening.*\[(\d+)\] server.app: listening")
    return [int(log[1]), int(log[2])]


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: not psutil.pid_exists(pid))


def test_connections_are_spread_and_all_end_with_sigterm() -> None:
    with running(*NO_MILVUS) as server:
        both = pids(server)
        assert len(set(re.findall(r"listening on (\S+)", "".join(server.log)))) == 1
        # Without a pool of its own a channel shares the connection of another.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(server.address, options) for _ in range(40)]
        for channel in channels:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        port = int(server.address.rpartition(":")[2])
        callers = Counter(
            pid
            for pid in both
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
        )
        assert sum(callers.values()) == 40
        assert min(callers[pid] for pid in both) >= 5
        for channel in channels:
            channel.close()
        assert server.stop() == 0
        for pid in both:
            assert not psutil.pid_exists(pid)


def test_when_one_is_killed_the_others_end() -> None:
    with running(*NO_MILVUS) as server:
        victim, other = pids(server)
        psutil.Process(victim).kill()
        assert server.process.wait(30) == 1
        server.wait_for("a server process ended by itself; the others are stopped")
        wait_until_gone(other)


def test_nobody_outlives_a_killed_parent() -> None:
    with running(*NO_MILVUS) as server:
        both = pids(server)
        server.stop(signal.SIGKILL)
        for pid in both:
            wait_until_gone(pid)


@pytest.mark.parametrize("shares", [False, True])
def test_an_address_that_is_taken(shares: bool) -> None:
    with socket.socket() as taken:
        if shares:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "server", "--listen", address, *NO_MILVUS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: --listen {address}: the address cannot be used, or is taken\n"


def test_a_fault_in_mapped_memory_is_printed() -> None:
    """Such as that of a model file that somebody made shorter while it was mapped."""
    with running("--milvus-uri", "http://127.0.0.1:1") as server:
        server.wait_for("listening on")
        assert server.stop(signal.SIGBUS) == -signal.SIGBUS
        server.wait_for("Fatal Python error: Bus error")


def test_what_large_arrays_took_goes_back_to_the_system() -> None:
    """Also after the first of them, from which on the C library would keep memory for more of them."""
    script = """
import numpy as np, psutil
from server.processes import LARGE_BYTES, keep_little_memory
keep_little_memory()
process = psutil.Process()
before = process.memory_info().rss
first = np.ones(3 * LARGE_BYTES, np.uint8)
del first
several = [np.ones(2 * LARGE_BYTES, np.uint8) for _ in range(8)]
kept = np.ones(100_000, np.uint8)  # above them in the heap, if that is where they are
del several
print(process.memory_info().rss - before < LARGE_BYTES)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\n"


def test_arrays_of_a_batch_take_the_memory_of_the_batch_before() -> None:
    script = """
import resource
import numpy as np
from server.processes import LARGE_BYTES, keep_little_memory
keep_little_memory()
def search():
    return [np.ones(LARGE_BYTES // 2, np.uint8) for _ in range(4)]
search()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    search()
pages = 20 * 2 * LARGE_BYTES // resource.getpagesize()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "True\n"


def test_threads_share_few_heaps() -> None:
    script = """
import ctypes, threading
from server.processes import keep_little_memory
keep_little_memory()
together = threading.Barrier(8)
def run():
    together.wait()
    kept.append(bytearray(10_000))
    together.wait()
kept = []
threads = [threading.Thread(target=run) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 1 <= done.stdout.count("<heap nr=") <= ARENAS

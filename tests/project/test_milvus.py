"""What `make milvus` refuses; `tests/drills/test_milvus.py` starts it."""

import os
import socket
from pathlib import Path

import psutil

from tests.commands import run_here
from tests.milvus import refusal
from tests.ports import free_port


def test_a_port_that_is_held_is_an_error_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = run_here("tests.milvus", "--port", port, "--data", tmp_path / "data")
    us = f"process {os.getpid()} ({psutil.Process().name()})"
    assert done.stderr == f"error: port {port} is held by {us}; stop that, or choose another port, PORT=...\n"
    assert (done.returncode, done.stdout, (tmp_path / "data").exists()) == (1, "", False)


def test_a_second_milvus_is_refused_at_the_port_that_cannot_be_moved() -> None:
    port = free_port()
    assert refusal(port, fixed=()) == ""
    with socket.create_server(("127.0.0.1", 0)) as etcd:
        fixed = etcd.getsockname()[1]
        why = refusal(port, fixed=[fixed])
    assert why.startswith(f"port {fixed} is held by process {os.getpid()} ")
    assert why.endswith("since Milvus cannot use another port for it")

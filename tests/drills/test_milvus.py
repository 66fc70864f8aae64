"""`make milvus` takes the port that it is told, also again after a restart, and ends while clients are connected."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from tests import ROOT
from tests.milvus import LEAVE_TIMEOUT_S
from tests.ports import free_port


@contextmanager
def make_milvus(port: int, data: Path) -> Iterator[str]:
    """What the command prints once Milvus answers; ended by Ctrl-C, which a terminal sends to Milvus too."""
    command = [sys.executable, "-m", "tests.milvus", "--port", str(port), "--data", str(data)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            said = ""
            while "Ctrl-C stops it" not in said:
                line = process.stdout.readline()
                assert line, f"it ended with {process.wait()} after {said!r}"
                said += line
            yield said
            os.killpg(process.pid, signal.SIGINT)
            process.wait(LEAVE_TIMEOUT_S + 10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.usefixtures("alone")
def test_it_takes_its_port_again_with_its_data_and_leaves_while_clients_are_connected(tmp_path: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with make_milvus(port, tmp_path / "data") as said:
        assert f"Milvus 2.3.5 answers at {uri}" in said
        client = MilvusClient(uri, timeout=30)
        client.create_collection("kept", 8)
    with make_milvus(port, tmp_path / "data") as said:
        assert f"Milvus 2.3.5 answers at {uri}" in said
        again = MilvusClient(uri, timeout=30)
        assert again.list_collections() == ["kept"]
        again.close()
    client.close()

"""The benchmark of what being watched costs, at toy size: it runs, and what it times is what the server does."""

import re
import subprocess
import sys
from pathlib import Path

from server.instrumentation import make_metrics
from server.watching.telemetry import Telemetry
from tests import ROOT
from tests.bench import hooks
from tests.conftest import remove_item_collections


def test_the_hooks_count_every_call() -> None:
    metrics = make_metrics()
    assert hooks.microseconds(Telemetry(metrics)) > 0
    made = hooks.CALLS * hooks.ROUNDS
    for name, labels in (
        ("recall_request_duration_seconds_count", {"method": "Recall", "status": "OK", "channel": ""}),
        ("recall_queue_wait_seconds_count", {}),
        ("recall_users_total", {"status": "OK"}),
    ):
        assert metrics.registry.get_sample_value(name, labels) == made
    assert metrics.registry.get_sample_value("recall_batch_users_count") == made / hooks.BATCH


def test_all_servers_take_turns(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.observability", "--milvus-uri", milvus_server_uri]
    command += ["--items", "1000", "--rounds", "1", "--seconds", "0.2", "--workdir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("silent", "silent, another one", "metrics, samples, JSON logs", "traces of 1 %"):
        assert len(re.findall(rf"│ {name} +│ +[\d,]+ │", done.stdout)) == 2
    assert re.search(r"│ metrics +│ +[\d.]+ │ +[\d.]+% │", done.stdout)

"""The serving benchmark at toy size: it runs, compares like with like, and shows what it measured."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench.serving.load import Refused, Run
from tests.conftest import remove_item_collections

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(240)
def test_the_three_are_measured_side_by_side(milvus_server_uri: str, tmp_path: Path) -> None:
    remove_item_collections(milvus_server_uri)
    command = [sys.executable, "-m", "tests.bench.serving", "--milvus-uri", milvus_server_uri, "--items", "2000"]
    command += ["--workdir", str(tmp_path), "--rounds", "1", "--seconds", "0.4", "--users", "1,8", "--callers", "1,4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    for title in ("Closed loop", "Open loop", "Overload"):
        assert title in done.stdout
    results = json.loads((tmp_path / "2000" / "results.json").read_text())
    assert [(row["subject"], row["users"], row["load"]) for row in results["closed"][:4]] == [
        ("ours", 1, "1"),
        ("article", 1, "1"),
        ("floor", 1, "1"),
        ("ours", 1, "4"),
    ]
    for row in results["closed"] + results["open"]:
        assert row["recall"] > 0.99
        assert row["users_per_s"] > 0 and row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert all(set(row["outcomes"]) <= {"OK"} for row in results["closed"])
    assert all("OK" in row["outcomes"] for row in results["open"])  # a busy machine may turn some away
    assert "<svg" in (tmp_path / "2000" / "latency.svg").read_text()


async def test_latency_counts_from_when_a_call_was_due() -> None:
    async def slow(body: bytes) -> bytes:
        await asyncio.sleep(0.05)
        if body == b"odd":
            raise Refused("RESOURCE_EXHAUSTED")
        return b""

    run = Run(slow, [b"even", b"odd"])
    await run.closed(callers=2, seconds=0.2)
    assert 3 <= run.outcomes["OK"] <= 4 and 3 <= run.outcomes["RESOURCE_EXHAUSTED"] <= 4
    assert 0.05 <= np.median(run.latency_s) < 0.1

    run = Run(slow, [b"even"])
    await run.open(calls_per_s=200, seconds=0.5, seed=0)
    assert run.outcomes["OK"] == 100  # none waits for another
    assert np.median(run.latency_s) < 0.15

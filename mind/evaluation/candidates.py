"""Ranked lists that were made elsewhere: read from files, or asked of a running service.

The service is asked by our own command-line client in a process of its own: this package knows neither gRPC nor Milvus.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mind.data.paddlerec import write_eval
from mind.errors import DataError, MindError
from mind.sequences import EvalCases, Int64, Sequences

TIMEOUT_MS = 60_000
"""Longest wait for one request of up to 256 users; Milvus Lite needs seconds with many items."""


@dataclass(frozen=True)
class Service:
    """A running service, as it describes itself."""

    address: str
    model_version: str
    collection: str
    max_top_k: int


def read_candidates(file: Path, cases: EvalCases, top_n: int) -> Int64:
    """Ranked lists of JSON lines, in the order of `cases`: [U, top_n] int64, -1 where a list is shorter.

    Raises:
        DataError: a line is no such JSON, or a test user has no line.
    """
    lists: dict[int, list[int]] = {}
    number = 0
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            number += 1
            row = json.loads(line)
            ranked_ids = [int(item) for item in row["item_ids"][:top_n]]
            if len(set(ranked_ids)) < len(ranked_ids):
                raise ValueError("item_ids has repeats")
            lists[int(row["user_id"])] = np.array(ranked_ids, np.int64).tolist()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f'{file}: line {number}: expected {{"user_id": 1, "item_ids": [..]}}: {error}') from error
    missing = [user for user in cases.history.user_id.tolist() if user not in lists]
    if missing:
        raise DataError(f"{file}: {len(missing)} of {len(cases)} test users have no line, user {missing[0]} for one")
    ranked = np.full((len(cases), top_n), -1, np.int64)
    for row_number, user in enumerate(cases.history.user_id.tolist()):
        ranked[row_number, : len(lists[user])] = lists[user]
    return ranked


def describe_service(address: str, top_n: int) -> Service:
    """What runs at `address`.

    Raises:
        MindError: nothing answers there, or it gives fewer than `top_n` candidates.
    """
    info: dict[str, Any] = json.loads(_client(address, "info", "--format", "json"))
    service = Service(address, info["model_version"], info["collection"], info["limits"]["max_top_k"])
    if top_n > service.max_top_k:
        raise MindError(f"--server {address}: top_n is {top_n}, its max_top_k {service.max_top_k}")
    return service


def ask_service(service: Service, cases: EvalCases, top_n: int) -> Int64:
    """The service's lists for all test users, in their order: [U, top_n] int64, -1 where a list is shorter.

    Raises:
        MindError: the service failed, or released another model meanwhile.
    """
    with tempfile.TemporaryDirectory() as directory:
        questions, answers = Path(directory, "users.txt"), Path(directory, "answers.jsonl")
        numbered = EvalCases(_numbered(cases.history), _numbered(cases.target))  # a user may occur twice in the data
        write_eval(questions, numbered)
        _client(
            service.address, "recall", "--input", str(questions), "--output", str(answers), "--top-k", str(top_n)
        )  # fmt: skip
        ranked = read_candidates(answers, numbered, top_n)
    now = describe_service(service.address, top_n)
    if now != service:
        raise MindError(
            f"--server {service.address}: released {now.collection} while it was asked, {service.collection} before; "
            "evaluate again"
        )
    return ranked


def _numbered(sequences: Sequences) -> Sequences:
    return Sequences(np.arange(len(sequences)), sequences.offsets, sequences.item_id)


def _client(address: str, command: str, *arguments: str) -> str:
    """What `recall-client` printed."""
    words = [sys.executable, "-m", "clients", command, "--server", address, "--timeout-ms", str(TIMEOUT_MS), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if line.startswith("error: ")), lines[-1])
        raise MindError(f"--server {address}: {reason.removeprefix('error: ')}")
    return done.stdout

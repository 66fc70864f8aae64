"""What the serving benchmark measures with: data, Milvus, a released collection, and a process for each part.

Everything is seeded, so a second run in the same directory finds its model and its collection where they were.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import numpy as np
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients import RecallClient
from mind.artifact import load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import item_ids, nearest_items
from mind.keys import Keys
from mind.neighbours import MAX_NEIGHBOURS
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary
from mind.weights import Weights
from tests import ROOT
from tests.artifacts import hyper_parameters_of
from tests.bench.machine import console, describe
from tests.ports import free_port

SEED = 2024
DIM, INTERESTS, MAXLEN, TOP_K = 64, 4, 20, 50
ITEMS_A_CLUSTER = 200
USERS = 20_000
"""Histories that requests are made of."""
GOLDEN = 64
WIDTH = 132
"""Least width of a console that the tables fit in."""
SEARCH_PARAMS = {"ef": 128}
INDEX = (
    "--index-param",
    "M=32",
    "--index-param",
    "efConstruction=200",
    "--search-param",
    "ef=128",
    "--interest-cosine",
    "1",
)
"""The default index, with one search for each interest, as the floor has; searched with `SEARCH_PARAMS`."""
START_S = 120

# One thread each: two cores are shared by everybody.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def synthetic(items: int, users: int = USERS, dim: int = DIM) -> tuple[Weights, Sequences]:
    """A model and histories: items lie in clusters, and the items of a history in one to four of these.

    Item vectors are 2.5 long, as training makes them, so that routing tells a history's clusters apart.
    """
    rng = np.random.default_rng(SEED)
    clusters = max(items // ITEMS_A_CLUSTER, 4)
    centre = _unit(rng.normal(size=(clusters, dim)))
    cluster = np.sort(rng.integers(0, clusters, items))
    item = _unit(centre[cluster] + 0.5 * _unit(rng.normal(size=(items, dim))))
    length = 2.5 * rng.lognormal(0, 0.05, (items, 1))
    embedding = np.concatenate([np.zeros((1, dim)), item * length]).astype(np.float32)
    item_id = np.cumsum(rng.integers(1, 9, items)) + 1_000
    histories = _histories(rng, users, cluster, clusters, item_id)
    hist_index, seq_len = pad_histories(Vocabulary(item_id), histories, GOLDEN)
    weights = Weights(
        item_id=item_id,
        item_embedding=embedding,
        popularity=rng.integers(1, 1_000, items),
        bilinear=np.eye(dim, dtype=np.float32),
        routing_logits=rng.normal(size=(INTERESTS, MAXLEN)).astype(np.float32),
        recency_logits=-0.2 * np.arange(MAXLEN, dtype=np.float32),
        focus=np.array([2.0], np.float32),
        golden_hist_index=hist_index,
        golden_seq_len=seq_len,
        golden_interest_vectors=np.zeros((GOLDEN, INTERESTS, dim), np.float32),
    )
    weights.golden_interest_vectors[:] = NumpyEncoder(weights, hyper_parameters_of(weights)).encode(hist_index, seq_len)
    return weights, histories


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _histories(rng: np.random.Generator, users: int, cluster: Int64, clusters: int, item_id: Int64) -> Sequences:
    start = np.searchsorted(cluster, np.arange(clusters + 1))
    filled = np.flatnonzero(np.diff(start))
    lengths = rng.integers(4, MAXLEN + 1, users)
    offsets = np.append(0, np.cumsum(lengths))
    user = np.repeat(np.arange(users), lengths)
    own = rng.choice(filled, (users, INTERESTS))
    tastes = rng.integers(1, INTERESTS + 1, users)
    chosen = own[user, rng.integers(0, tastes[user])]
    row = start[chosen] + (rng.uniform(size=len(user)) * (start[chosen + 1] - start[chosen])).astype(np.int64)
    return Sequences(np.arange(users), offsets, item_id[row])


def pad_histories(vocabulary: Vocabulary, histories: Sequences, users: int) -> tuple[Int64, Int64]:
    """Rows of what the model knows of the first `users` histories: [users, L] and [users] int64."""
    hist_index, seq_len, _ = vocabulary.look_up(histories.item_id, histories.offsets[: users + 1], MAXLEN)
    return hist_index, seq_len


def write_data(directory: Path, items: int, users: int = USERS, dim: int = DIM) -> Path:
    """Write model and histories; gives the model's directory."""
    weights, histories = synthetic(items, users, dim)
    write_histories(directory, histories)
    weights = with_random_neighbours(weights)
    return write_artifact(directory / "artifacts", hyper_parameters_of(weights), weights, {}, {})


def with_random_neighbours(weights: Weights) -> Weights:
    """The weights with as many neighbours of each item as there may be. They get no bonus, so none by default."""
    rng, items = np.random.default_rng(7), len(weights.item_id)
    weight = -np.sort(-rng.random((items, MAX_NEIGHBOURS), np.float32), axis=1)
    return replace(
        weights,
        neighbour_offsets=np.append(0, MAX_NEIGHBOURS * np.arange(items + 1)),
        neighbour_row=rng.integers(1, items + 1, weight.size, np.int32),
        neighbour_weight=weight.ravel().astype(np.float16),
        neighbour_bonus=np.zeros(1, np.float32),
    )


def begin(workdir: Path, items: int) -> tuple[Path, Path]:
    """Print the machine, and write the data for a catalogue of that size; gives its directory and the model's."""
    directory = workdir / str(items)
    directory.mkdir(parents=True, exist_ok=True)
    console.width = max(console.width, WIDTH)
    console.print(describe())
    return directory, write_data(directory, items)


def write_histories(directory: Path, histories: Sequences) -> None:
    """Keep what requests are made of where the load generator finds it."""
    np.savez(directory / "histories.npz", offsets=histories.offsets, item_id=histories.item_id)


def read_histories(directory: Path) -> Sequences:
    """What `write_histories` wrote."""
    with np.load(directory / "histories.npz") as file:
        return Sequences(np.arange(len(file["offsets"]) - 1), file["offsets"], file["item_id"])


def user_id_of(user: int) -> str:
    """What a user of the histories is called where the service remembers users."""
    return f"user {user}"


def write_keys(directory: Path, item_id: Int64, keys: Keys) -> None:
    """Keep the text ids of items, [N] int64, where the load generator finds them."""
    np.savez(directory / "keys.npz", item_id=item_id, key=np.array(keys.at(np.arange(len(keys)))))


def read_keys(directory: Path) -> dict[int, str]:
    """What `write_keys` wrote."""
    with np.load(directory / "keys.npz") as file:
        return dict(zip(file["item_id"].tolist(), file["key"].tolist(), strict=True))


def exact_candidates(artifact: Path, directory: Path, users: int) -> list[list[int]]:
    """What an exact search finds for the first `users` histories."""
    model = load_artifact(artifact)
    encoder = NumpyEncoder(model.weights, model.hyper_parameters)
    vectors = encoder.encode(*pad_histories(model.vocabulary, read_histories(directory), users))
    found = item_ids(model.vocabulary, nearest_items(vectors, model.weights.item_embedding, TOP_K, batch_size=32))
    return [row.tolist() for row in found]


def build_and_publish(artifact: Path, uri: str, index: Sequence[str] = INDEX) -> str:
    """What a user does to release a model; gives the collection's name."""
    indexer(uri, "build", "--artifact", str(artifact), "--publish", *index)
    found = json.loads(indexer(uri, "status", "--format", "json", capture_output=True).stdout)
    return str(next(each["collection"] for each in found if each["state"] == "live"))


def indexer(uri: str, *command: str, **how: Any) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of `python -m indexer`; `how` is for `subprocess.run`."""
    return subprocess.run([sys.executable, "-m", "indexer", *command, "--milvus-uri", uri], cwd=ROOT, check=True, **how)


class Worker:
    """A process of this benchmark that answers JSON lines; see `answer_lines`."""

    def __init__(self, *command: str) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | _ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._answer()

    def ask(self, **question: Any) -> Any:
        """Send a question, wait for its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def stop(self) -> None:
        """The end of its input is the end of the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@contextmanager
def worker(*command: str) -> Iterator[Worker]:
    """A `Worker`, stopped at the end."""
    started = Worker(*command)
    try:
        yield started
    finally:
        started.stop()


def answer_lines(answer: Callable[[dict[str, Any]], Any]) -> None:
    """The other side of `Worker`: answer questions until standard input ends."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


@contextmanager
def milvus(directory: Path, uri: str = "") -> Iterator[tuple[str, int | None]]:
    """A real Milvus server with its data in a directory, or the one at `uri`: URI, and process id if it is ours."""
    if uri:
        yield uri, None
        return
    data, cache = directory / "milvus", directory / "milvus-2.3.5"
    data.mkdir(parents=True, exist_ok=True)
    (data / "bin").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.milvus_server", str(data.resolve()), str(cache.resolve())]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            uri = process.stdout.readline().strip()
            if not uri:
                raise RuntimeError("Milvus did not start")
            yield uri, process.pid
        finally:
            process.stdin.close()
            process.wait(timeout=60)


@contextmanager
def running(*command: str, log: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server process with more environment variables, stopped at the end."""
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=os.environ | _ONE_THREAD | variables, stdout=file, stderr=file
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextmanager
def our_server(
    directory: Path,
    uri: str,
    *options: str,
    variables: Mapping[str, str] = MappingProxyType({}),
    log: str = "server.log",
) -> Iterator[tuple[str, int]]:
    """`python -m server`: address and process id; `log`: its file in the directory."""
    address = f"127.0.0.1:{free_port()}"
    command = ["-m", "server", "--listen", address, "--artifacts", str(directory / "artifacts"), "--milvus-uri", uri]
    with running(*command, *options, log=directory / log, variables=variables) as process:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)

            def serving() -> bool:
                with suppress(grpc.RpcError):
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
                return False

            _wait(serving, process, directory / log)
        yield address, process.pid


@contextmanager
def article_server(directory: Path, artifact: Path, uri: str) -> Iterator[tuple[str, int]]:
    """The article's stack: address and process id."""
    port = free_port()
    command = ["-m", "tests.bench.serving.article", str(artifact), uri, str(port)]
    with running(*command, log=directory / "article.log", variables={}) as process:

        def listening() -> bool:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            return False

        _wait(listening, process, directory / "article.log")
        yield f"127.0.0.1:{port}", process.pid


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def read_columns(client: RecallClient, log: Path, names: Sequence[str]) -> tuple[float, float]:
    """Have a server read columns of attributes; gives their size in MB and the seconds that took, as its log says."""
    client.recall([[]], top_k=TOP_K, return_attributes=names)
    for _ in range(600):
        if said := re.search(r"are in memory: (\S+) MB, read in (\S+) s", log.read_text()):
            return float(said[1]), float(said[2])
        time.sleep(1)
    raise SystemExit(f"the server has not read the attributes within 600 s; see {log}")


@contextmanager
def watching(pids: Sequence[int]) -> Iterator[list[float]]:
    """At the end, the list holds the processor time of each process and its children since then, in seconds."""
    before = [_cpu_seconds(pid) for pid in pids]
    spent: list[float] = []
    yield spent
    spent += [_cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]


def memory_gb(pid: int) -> float:
    """Resident memory of a process and its children."""
    return sum(each.memory_info().rss for each in _family(pid)) / 1e9


def _cpu_seconds(pid: int) -> float:
    """So far."""
    return sum(sum(each.cpu_times()[:2]) for each in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]

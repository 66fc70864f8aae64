"""Where the processor time of a call with one user goes: `python -m tests.bench.one_call`.

Servers in one process answer the same request, one call after the other, in turn: gRPC alone; gRPC whose handler reads
the request itself; gRPC that asks another process before it answers; gRPC with our door before it; the whole server
with a store that answers at once; and the whole server with a Milvus in another process that answers at once. Each does
one part more than another, and the difference is that part.
"""

import asyncio
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import grpc
import numpy as np
import typer
import uvloop
from pymilvus.grpc_gen import milvus_pb2
from rich.table import Table

from mind.artifact import Float32, load_artifact, newest_artifact
from mind.hits import Hits
from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.connection import Connection
from mind.milvus.internals import SEARCH
from mind.milvus.wire import write_search
from protos.recall.v1 import recall_pb2
from server.app import RECALL, SWITCH_S, RecallServer, _tame_garbage_collector
from server.edge.calls import Calls
from server.edge.door import Door
from server.edge.wire import register
from server.settings import Settings
from server.watching.telemetry import SILENT
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.fake_store import FakeStore

METHOD = "/recall.v1.RecallService/Recall"
ITEMS, TOP_K = 20_000, world.TOP_K
CALLS = 100
"""Calls of a turn."""
SERVERS = ("grpc", "reading", "relay", "door", "whole", "milvus")
PARTS = {
    "gRPC: receive a request, send an answer": ({"grpc"}, set()),
    "gRPC: ask another process": ({"relay"}, {"grpc"}),
    "read the request after the call was admitted": ({"reading"}, {"grpc"}),
    "admit, decode, follow the call, write the answer": ({"door"}, {"reading"}),
    "validate, look up, encode, merge": ({"whole"}, {"door"}),
    "write the search, read its hits, watch for its end": ({"milvus", "grpc"}, {"whole", "relay"}),
}
"""The parts of a call: what the first servers take and the others do not."""


class AtOnce(FakeStore):
    """Finds the same items for all."""

    def __init__(self, hits: Hits) -> None:
        super().__init__()
        self.hits = hits

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """Give the hits."""
        return self.hits


class OverGrpc(AtOnce):
    """Asks a process that answers at once, as `MilvusStore` asks Milvus."""

    def __init__(self, hits: Hits, address: str) -> None:
        super().__init__(hits)
        self._milvus = MilvusStore(Session(address))

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """Ask."""
        return await self._milvus.search(collection, vectors, limit, params, timeout_s)


class Session(AioSession):
    """A session whose client knows a channel, and nothing else of Milvus."""

    def __init__(self, address: str) -> None:
        super().__init__(Connection(f"http://{address}"))
        self._address = address

    async def _connect(self) -> Any:
        return Client(grpc.aio.insecure_channel(self._address))


class Client:
    """As much of an `AsyncMilvusClient` as a search needs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._final_channel = channel

    async def _get_connection(self) -> "Client":
        return self

    def _generate_call_context(self) -> "Client":
        return self

    def to_grpc_metadata(self) -> list[tuple[str, str]]:
        """Name a database, as pymilvus does."""
        return [("dbname", "default")]


class Fixed:
    """A servicer that knows the answer."""

    def __init__(self, answer: recall_pb2.RecallResponse) -> None:
        async def known(request: Any, context: Any) -> recall_pb2.RecallResponse:
            return answer

        for method in RECALL.methods:
            setattr(self, method.name, known)


def hits_of(item_ids: Any) -> Hits:
    """50 hits for each of four interests."""
    queries = world.INTERESTS
    scores = -np.sort(-np.random.default_rng(0).normal(size=(queries, TOP_K)).astype(np.float32), axis=1)
    ids = np.random.default_rng(0).choice(item_ids, (queries, TOP_K))
    return Hits(ids.ravel(), scores.ravel(), np.full(queries, TOP_K))


async def serve(artifacts: Path, milvus: str, ports: SimpleQueue[dict[str, int]]) -> None:
    """Run the servers, and tell their ports."""
    model = load_artifact(newest_artifact(artifacts))
    hits = hits_of(model.weights.item_id)
    settings = Settings(listen="127.0.0.1:0", artifacts=str(artifacts), milvus_uri="http://unused")
    found: dict[str, int] = {}
    for name, store in (("whole", AtOnce(hits)), ("milvus", OverGrpc(hits, milvus))):
        store.publish(model)
        recall = RecallServer(settings, store)
        await recall.start()
        found[name] = recall.port
    async with grpc.aio.insecure_channel(f"127.0.0.1:{found['whole']}") as channel:
        answer = await channel.unary_unary(METHOD)(request_of(model.weights.item_id))

    search = write_search(model.model_version, model.weights.item_embedding[1:5], TOP_K, ())
    ask = grpc.aio.insecure_channel(milvus).unary_unary(SEARCH)

    async def known(request: bytes, context: Any) -> bytes:
        return answer

    async def relayed(request: bytes, context: Any) -> bytes:
        await ask(search, timeout=30)
        return answer

    async def read(requests: Any, context: Any) -> bytes:
        await context.read()
        return answer

    plain, reading, relay, guarded = (grpc.aio.server() for _ in range(4))
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
    for server, handler in ((plain, unary(known)), (reading, stream(read)), (relay, unary(relayed))):
        handlers = {"Recall": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(RECALL.full_name, handlers),))
    door = Door(settings, Calls(SILENT, access_log=False))
    register(door.guard(Fixed(recall_pb2.RecallResponse.FromString(answer)), RECALL, counted=True), RECALL, guarded)
    for name, other in (("grpc", plain), ("reading", reading), ("relay", relay), ("door", guarded)):
        found[name] = other.add_insecure_port("127.0.0.1:0")
        await other.start()
    _tame_garbage_collector()  # as a server does
    sys.setswitchinterval(SWITCH_S)
    ports.put(found)
    await asyncio.Event().wait()


async def be_milvus(ports: SimpleQueue[dict[str, int]]) -> None:
    """Answer every search at once with the same hits."""
    hits, results = hits_of(np.arange(1_000, 9_000)), milvus_pb2.SearchResults()
    results.results.num_queries, results.results.top_k = len(hits.lengths), TOP_K
    results.results.ids.int_id.data.extend(hits.item_ids)
    results.results.scores.extend(hits.scores)
    results.results.topks.extend(hits.lengths)
    answer = results.SerializeToString()

    async def search(request: bytes, context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    _, service, method = SEARCH.split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(search)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ports.put({"milvus": port})
    await asyncio.Event().wait()


def in_thread(run: Any) -> None:
    """Answer `{}` with the ports and the processor time of this process so far, until standard input ends."""
    ports: SimpleQueue[dict[str, int]] = SimpleQueue()

    def loop() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(ports))

    threading.Thread(target=loop, daemon=True).start()
    found = ports.get(timeout=world.START_S)
    world.answer_lines(lambda _: {"ports": found, "cpu_s": time.process_time()})


def request_of(item_ids: Any) -> bytes:
    """One user with 12 clicks."""
    user = recall_pb2.User(hist_item=item_ids[:: len(item_ids) // 12][:12])
    return recall_pb2.RecallRequest(users=[user], top_k=TOP_K).SerializeToString()


def measure(server: world.Worker, ask: dict[str, Any], request: bytes, turns: int) -> dict[str, Float32]:
    """[turns, 2] of each server: the median ms of a call, and the processor time of the server for one, in µs."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ask}
    for turn in range(turns + 3):  # three to warm up
        for name, call in ask.items():
            before, took = server.ask()["cpu_s"], []
            for _ in range(CALLS):
                started = time.perf_counter()
                call(request, timeout=30)
                took.append(time.perf_counter() - started)
            spent = (server.ask()["cpu_s"] - before) / CALLS
            if turn >= 3:
                found[name].append((float(np.median(took)) * 1e3, spent * 1e6))
    return {name: np.array(each, np.float32) for name, each in found.items()}


def table_of(found: dict[str, Float32]) -> Table:
    """The parts of a call, and their shares of its processor time."""
    table = Table(title="a call with one user, one caller", title_justify="left")
    for heading in ("part", "p50 ms", "processor time, µs", "share"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    whole = float(np.median(found["milvus"][:, 1]))
    for part, (more, less) in PARTS.items():
        ms, cpu = np.median(sum(found[name] for name in more) - sum(found[name] for name in less), axis=0)
        table.add_row(part, f"{ms:.2f}", f"{cpu:.0f}", f"{cpu / whole:.0%}")
    table.add_row("all of it", f"{np.median(found['milvus'][:, 0]):.2f}", f"{whole:.0f}", "100%")
    return table


def main(turns: Annotated[int, typer.Option(min=1, help="Turns of 100 calls of each server.")] = 60) -> None:
    """Print the parts of a call, in processor time of the server."""
    console.print(describe())
    with TemporaryDirectory() as directory, world.worker("tests.bench.one_call", "be-milvus") as milvus:
        model = load_artifact(world.write_data(Path(directory), ITEMS, users=100))
        address = f"127.0.0.1:{milvus.ask()['ports']['milvus']}"
        artifacts = str(Path(directory) / "artifacts")
        with world.worker("tests.bench.one_call", "serve", artifacts, address) as server:
            ports = server.ask()["ports"]
            channels = {name: grpc.insecure_channel(f"127.0.0.1:{ports[name]}") for name in SERVERS}
            ask = {name: channel.unary_unary(METHOD) for name, channel in channels.items()}
            found = measure(server, ask, request_of(model.weights.item_id), turns)
            for channel in channels.values():
                channel.close()
    console.print(table_of(found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["be-milvus"]:
        in_thread(be_milvus)
    elif sys.argv[1:2] == ["serve"]:
        in_thread(lambda ports: serve(Path(sys.argv[2]), sys.argv[3], ports))
    else:
        typer.run(main)

"""Hostile requests: bytes that are no message, damaged messages, well-formed oddities, broken connections.

    python -m tests.faults.fuzz_requests --requests 100000 [--text-ids]

The server must not crash, hang, grow, or answer with a status that blames itself. Its store is an exact one in memory;
with `--milvus` it is a real Milvus server, and filters on attributes of many types reach it.
"""

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import grpc
import psutil
import typer
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from rich.progress import Progress

from indexer.build import build, choose_index
from indexer.items.attributes import read_attributes
from mind.artifact import load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from protos.recall.v1 import admin_pb2, recall_pb2
from tests.artifacts import make_artifact
from tests.faults.damage import damaged
from tests.faults.fake_server import TOKEN, fake_server
from tests.faults.ground import own_milvus
from tests.faults.odd_requests import ADMIN, PATIENT_S, RECALL, Asked, odd_requests
from tests.faults.tally import Tally, console
from tests.releases import publish
from tests.server.test_service import running

IN_FLIGHT = 16
MAX_GROWTH_MB = 40
"""Of the server, after its first fifth of the requests."""
_OURS = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "UNIMPLEMENTED"}
_OTHERS = _OURS | {"UNKNOWN", "NOT_FOUND"}
"""Of health and reflection, whose code is gRPC's: it answers UNKNOWN to what is no message."""
_KINDS = {
    f"/{service.full_name}/{method.name}": method
    for service in (
        recall_pb2.DESCRIPTOR.services_by_name["RecallService"],
        admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
    )
    for method in service.methods
}


class Fuzzer:
    """Sends calls to one server and judges what comes back."""

    def __init__(self, address: str, tally: Tally, rng_seed: int) -> None:
        """`rng_seed`: number n of the same seed is the same request."""
        self._address = address
        self._tally = tally
        self._seed = rng_seed

    async def messages(self, requests: int, progress: Progress) -> None:
        """Random bytes and damaged messages, many at a time."""
        numbers = iter(progress.track(range(requests), description="bytes"))
        async with grpc.aio.insecure_channel(self._address) as channel:

            async def caller() -> None:
                for number in numbers:
                    kind, asked = broken_message(random.Random(f"{self._seed}/{number}"))
                    call = channel.unary_unary(asked.path)(asked.body, timeout=asked.timeout_s, metadata=asked.metadata)
                    try:
                        self._judge(kind, asked, "OK", "", await call, f"--seed {self._seed}, number {number}")
                    except grpc.aio.AioRpcError as error:
                        self._refused(kind, asked, error, f"--seed {self._seed}, number {number}")

            await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))

    def odd(self, requests: int, text: bool, progress: Progress) -> None:
        """Well-formed requests that hypothesis makes up. `text`: whether the items of the server have text ids."""
        advance = progress.add_task("odd", total=requests)
        with grpc.insecure_channel(self._address) as channel:

            @seed(self._seed)
            @settings(
                max_examples=requests,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(odd_requests(text))
            def ask(asked: Asked) -> None:
                says = f"--seed {self._seed}, {asked}"[:1000]
                method = channel.unary_unary(asked.path)
                try:
                    answer = method(asked.body, timeout=asked.timeout_s, metadata=asked.metadata)
                    self._judge("odd messages", asked, "OK", "", answer, says)
                except grpc.RpcError as error:
                    self._refused("odd messages", asked, error, says)
                progress.advance(advance)

            ask()

    def connections(self, connections: int, progress: Progress) -> None:
        """Connections that speak no HTTP/2, or stop in the middle."""
        host, _, port = self._address.rpartition(":")
        http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
        hellos = [http2, b"", b"GET / HTTP/1.1\r\n\r\n"]
        for number in progress.track(range(connections), description="connections"):
            rng = random.Random(f"{self._seed}/connection/{number}")
            with socket.create_connection((host, int(port)), timeout=PATIENT_S) as connection:
                try:
                    connection.sendall(damaged(rng, rng.choice(hellos), rng.randbytes(64)))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                    self._tally.add("connections", "closed")
                except TimeoutError:
                    self._tally.add("connections", "open", "late", f"--seed {self._seed}, connection {number}")
                except OSError:
                    self._tally.add("connections", "reset")

    def _refused(self, kind: str, asked: Asked, error: Any, says: str) -> None:
        reasons = [str(value) for key, value in error.trailing_metadata() or () if key == "error-reason"]
        self._judge(kind, asked, error.code().name, "".join(reasons), b"", f"{says}: {error.details()}")

    def _judge(self, kind: str, asked: Asked, code: str, reason: str, answer: bytes, says: str) -> None:
        hurried = asked.timeout_s is not None and asked.timeout_s < PATIENT_S
        if code == "DEADLINE_EXCEEDED":
            self._tally.add(kind, code, "" if hurried else "late", f"{asked.path}: {says}")
            return
        problem = "" if code in (_OURS if asked.path in _KINDS else _OTHERS) else "failed"
        if asked.path in _KINDS and not problem:
            problem = "" if right(asked, code, reason, answer) else "wrong"
        self._tally.add(kind, code, problem, f"{code} of {asked.path}: {says}")


def right(asked: Asked, code: str, reason: str, answer: bytes) -> bool:
    """Whether an outcome fits the request: broken bytes are refused as such, an answer keeps the contract."""
    method = _KINDS[asked.path]
    kind: Any = GetMessageClass(method.input_type)
    try:
        request = kind.FromString(asked.body)
    except DecodeError:
        return reason in ("MALFORMED", "OVERLOADED", "ADMIN_TOKEN")
    if reason == "MALFORMED":
        return False
    if code != "OK" or method.name not in ("Recall", "Explain", "SimilarItems"):
        return True
    found: Any = GetMessageClass(method.output_type)()
    found.ParseFromString(answer)
    if method.name == "SimilarItems":
        pairs = zip(request.queries, found.results, strict=False)
        same = len(request.queries) == len(found.results)
        return same and all(right_of_query(request, query, result) for query, result in pairs)
    users = list(request.users) if method.name == "Recall" else [request.user]
    results = list(found.results) if method.name == "Recall" else [found.candidates]
    return len(users) == len(results) and all(
        right_of_user(request, user, result) for user, result in zip(users, results, strict=True)
    )


def right_of_user(request: Any, user: recall_pb2.User, result: recall_pb2.UserCandidates) -> bool:
    """Whether one user's candidates fit the request."""
    items: list[Any] = [*result.item_ids, *result.item_keys]
    excluded: set[Any] = {*user.exclude_item_ids, *user.exclude_item_keys}
    history: set[Any] = {*user.hist_item, *user.hist_item_keys}
    pinned: set[Any] = {*request.pin_item_ids, *request.pin_item_keys}
    return (
        not (result.item_ids and result.item_keys)
        and len(items) == len(result.scores) == len(result.interest) <= request.top_k
        and len(set(items)) == len(items)
        and "" not in items
        and not set(items) & excluded
        and not (request.exclude_history and set(items) & history - pinned)
        and set(result.unknown_item_keys) <= set(user.hist_item_keys)
    )


def right_of_query(request: Any, query: recall_pb2.ItemQuery, result: recall_pb2.SimilarItems) -> bool:
    """Whether the items similar to those of a query fit the request."""
    items: list[Any] = [*result.item_ids, *result.item_keys]
    left_out: set[Any] = {*query.item_ids, *query.item_keys, *query.exclude_item_ids, *query.exclude_item_keys}
    return (
        not (result.item_ids and result.item_keys)
        and len(items) == len(result.scores) == len(result.source) <= request.top_k
        and len(result.weights) in (0, len(items))
        and len(set(items)) == len(items)
        and not set(items) & left_out
        and all(-1.001 <= score <= 1.001 for score in result.scores)
        and all(0 <= place < len(query.item_ids) + len(query.item_keys) for place in result.unknown)
    )


def broken_message(rng: random.Random) -> tuple[str, Asked]:
    """Random bytes, or a good message after damage, to one of the methods; now and then to one that is none."""
    path, good = rng.choice(_GOOD)
    metadata = (("authorization", f"Bearer {TOKEN}"),) if rng.random() < 0.5 else ()
    if rng.random() < 0.02:
        path = "/" + "".join(rng.choices("abcXYZ019./_", k=rng.randint(1, 60))) + "/x"
    if rng.random() < 0.2:
        size = rng.choice([0, 1, 2, 8, 64, 512, 4_096]) + rng.randint(0, 8)
        return "random bytes", Asked(path, rng.randbytes(size), metadata)
    return "damaged messages", Asked(path, damaged(rng, good, rng.choice(_GOOD)[1]), metadata)


def _good_messages() -> Iterator[tuple[str, bytes]]:
    user = recall_pb2.User(hist_item=[1000, 1007, 1014], exclude_item_ids=[1021])
    rest: dict[str, Any] = {"top_k": 10, "exclude_history": True, "merge_strategy": 2}
    rest |= {"channel": "b", "split_key": "ann"}
    rest |= {"at_most": [{"attribute": "vector_source", "count": 8}], "per_interest_min": 2, "diversity": 0.5}
    rest |= {"boosts": [{"filter": "item_id > 1100", "add": 0.5}, {"filter": "item_id < 1050", "add": -1}]}
    rest |= {"explore": {"share": 0.2, "filter": "item_id > 1007", "seed": 7}, "now_unix_s": 1_800_000_000}
    pinned = {"pin_item_ids": [1014, 5]}
    for users in (1, 3, 64):
        message = recall_pb2.RecallRequest(users=[user] * users, **rest, **pinned)
        yield f"{RECALL}/Recall", message.SerializeToString()
    yield (
        f"{RECALL}/Recall",
        recall_pb2.RecallRequest(users=[{"hist_item": [1000] * 3_000}], top_k=1).SerializeToString(),
    )
    yield f"{RECALL}/Explain", recall_pb2.ExplainRequest(user=user, **rest).SerializeToString()
    keyed = recall_pb2.User(hist_item_keys=["KIT-1", "KIT-2"], exclude_item_keys=["KIT-3", "ключ"])
    yield f"{RECALL}/Recall", recall_pb2.RecallRequest(users=[keyed] * 3, **rest).SerializeToString()
    query = recall_pb2.ItemQuery(item_ids=[1000, 1007], exclude_item_ids=[1021])
    for queries in (1, 64):
        similar = recall_pb2.SimilarItemsRequest(queries=[query] * queries, top_k=10, filter="item_id > 1100")
        yield f"{RECALL}/SimilarItems", similar.SerializeToString()
    of_text = recall_pb2.ItemQuery(item_keys=["KIT-1", "ключ"])
    yield f"{RECALL}/SimilarItems", recall_pb2.SimilarItemsRequest(queries=[of_text], top_k=5).SerializeToString()
    update = recall_pb2.UserUpdate(user_id="ann", append_item_ids=[1000], shown_item_ids=[1007, 1014])
    yield f"{RECALL}/UpsertUsers", recall_pb2.UpsertUsersRequest(users=[update]).SerializeToString()
    rest |= {"exclude_shown": True}
    yield f"{RECALL}/Recall", recall_pb2.RecallRequest(users=[{"user_id": "ann"}], **rest).SerializeToString()
    token = b"\x01\x05digest..items\x01\x00\x00\x00" + (1000).to_bytes(8, "little")
    paged = recall_pb2.RecallRequest(users=[user], page_token=token, **rest)
    yield f"{RECALL}/Recall", paged.SerializeToString()
    token = b"\x01\x07digest..b/items\x01\x00\x00\x00" + (1000).to_bytes(8, "little")
    paged = recall_pb2.RecallRequest(users=[user], page_token=token, **rest)
    yield f"{RECALL}/Recall", paged.SerializeToString()
    feedback = recall_pb2.LogFeedbackRequest(kind="click", item_ids=[1000], user_id="ann")
    yield f"{RECALL}/LogFeedback", feedback.SerializeToString()
    yield f"{RECALL}/DeleteUsers", recall_pb2.DeleteUsersRequest(user_ids=["ann"]).SerializeToString()
    yield f"{RECALL}/CountItems", b""
    items = recall_pb2.GetItemsRequest(item_ids=[1000, 1007], return_attributes=["title"])
    yield f"{RECALL}/GetItems", items.SerializeToString()
    yield f"{RECALL}/GetServerInfo", b""
    yield f"{ADMIN}/Reload", b""
    drop = admin_pb2.DropItemsRequest(collection="items_0123456789ab_01234567", allow_live=True)
    yield f"{ADMIN}/DropItems", drop.SerializeToString()
    yield "/grpc.health.v1.Health/Check", b"\n\x19recall.v1.RecallService"
    yield "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b":\x00"


_GOOD = list(_good_messages())


def drill(address: str, server: psutil.Process, requests: int, rng_seed: int, text: bool = False) -> bool:
    """Fuzz a server; whether it stood it. `text`: whether its items have text ids."""
    tally = Tally()
    fuzzer = Fuzzer(address, tally, rng_seed)
    odd, connections = requests // 4, requests // 50
    broken = requests - odd - connections
    memory_mb = []
    with Progress(console=console, transient=True) as progress:
        for share in (0.2, 0.4, 0.4):
            asyncio.run(fuzzer.messages(int(broken * share), progress))
            fuzzer.odd(int(odd * share), text, progress)
            fuzzer.connections(int(connections * share), progress)
            memory_mb.append(server.memory_info().rss / 2**20)
    growth = memory_mb[-1] - memory_mb[0]
    alive = server.is_running() and server.status() != psutil.STATUS_ZOMBIE
    console.print(tally.table(f"hostile requests, seed {rng_seed}"))
    shown = ", ".join(f"{memory:.1f}" for memory in memory_mb)
    console.print(f"server {'alive' if alive else 'DEAD'}; MB after 20, 60 and 100 %: {shown}")
    return tally.clean and alive and growth < MAX_GROWTH_MB


@contextmanager
def _on_milvus(directory: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a server before a real Milvus."""
    with own_milvus() as (milvus, data):
        model = load_artifact(make_artifact(data / "artifacts"))
        items = data / "items.csv"
        rows = (f"{item},Title {item},{1990 + item % 10},Drama|Comedy" for item in model.weights.item_id.tolist())
        items.write_text("\n".join(["item_id,title,year,genres", *rows]))
        attributes = read_attributes(items, model.weights.item_id, multi_valued=["genres"])
        with Store(Connection(milvus.uri)) as store:
            publish(store, build(store, model, attributes, choose_index(False, None, {}, {})).collection)
        token = data / "token"
        token.write_text(TOKEN)
        options = ("--milvus-uri", milvus.uri, "--artifacts", str(data / "artifacts"), "--admin-token-file", str(token))
        with running(*options) as server:
            server.wait_for("health is SERVING")
            yield server.address, psutil.Process(server.process.pid)
            (directory / "server.log").write_text("".join(server.log))


def main(
    requests: Annotated[int, typer.Option(min=100, help="In all.")] = 100_000,
    rng_seed: Annotated[int, typer.Option("--seed", help="The same seed, the same requests.")] = 2024,
    milvus: Annotated[bool, typer.Option("--milvus", help="A real Milvus instead of a store in memory.")] = False,
    text: Annotated[bool, typer.Option("--text-ids", help="Items with text ids, in a store in memory.")] = False,
) -> None:
    """Fuzz the service's requests."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        with _on_milvus(directory) if milvus else fake_server(directory, text) as (address, server):
            stood = drill(address, server, requests, rng_seed, text)
        tracebacks = (directory / "server.log").read_text().count("Traceback")
    console.print(f"tracebacks in the server's log: {tracebacks}")
    raise typer.Exit(int(not stood or tracebacks > 0))


if __name__ == "__main__":
    typer.run(main)

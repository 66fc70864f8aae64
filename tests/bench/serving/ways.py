"""The ways to ask a service: what a request is in bytes, and how it goes out. Answers are read only to be checked."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from clients.requests import NO_RULES, neighbours_of
from protos.recall.v1 import recall_pb2
from tests.bench.serving.http2 import CallError, Channel

Call = Callable[[bytes], Awaitable[bytes]]
"""Sends a body, gives the answer's; raises CallError."""


class Grpc:
    """RecallService.Recall, bytes in and out; one connection for all callers."""

    method = "Recall"

    def __init__(self, address: str, timeout_s: float) -> None:
        """Calls take turns among the addresses, if there are several."""
        parts = [each.rpartition(":") for each in address.removeprefix("ipv4:").split(",")]
        addresses = [(host, int(port)) for host, _, port in parts]
        self._channel = Channel(addresses, f"/recall.v1.RecallService/{self.method}", timeout_s)

    async def __call__(self, body: bytes) -> bytes:
        """See `Call`."""
        return await self._channel(body)

    async def close(self) -> None:
        """Give the connections back."""
        self._channel.close()

    @staticmethod
    def body(
        histories: list[list[Any]],
        top_k: int,
        filter_: str = "",
        exclude_history: bool = False,
        neighbours: str = "default",
        attributes: tuple[str, ...] = (),
        rules: Mapping[str, Any] = NO_RULES,
        user_ids: Sequence[str] = (),
    ) -> bytes:
        """A request, of integers or of text ids; `rules`: more of its fields, `user_ids`: of all users or of none."""
        field = "hist_item_keys" if isinstance(histories[0][0], str) else "hist_item"
        users = [recall_pb2.User(**{field: history}) for history in histories]
        for user, user_id in zip(users, user_ids, strict=False):
            user.user_id = user_id
        asked = {"top_k": top_k, "filter": filter_, "exclude_history": exclude_history, "return_attributes": attributes}
        asked["neighbours"] = neighbours_of(neighbours)
        return recall_pb2.RecallRequest(users=users, **asked, **rules).SerializeToString()

    @staticmethod
    def item_ids(answer: bytes) -> list[list[Any]]:
        """The candidates of every user."""
        results = recall_pb2.RecallResponse.FromString(answer).results
        return [[*result.item_ids, *result.item_keys] for result in results]


class Similar(Grpc):
    """RecallService.SimilarItems: a query for the newest click of each history."""

    method = "SimilarItems"

    @staticmethod
    def body(
        histories: list[list[Any]],
        top_k: int,
        filter_: str = "",
        exclude_history: bool = False,
        neighbours: str = "default",
        attributes: tuple[str, ...] = (),
        *_: Any,
    ) -> bytes:
        """A request; with `neighbours` on, by embedding and neighbours. Exclusions and rules are ignored."""
        by = recall_pb2.SOURCE_BOTH if neighbours == "on" else recall_pb2.SOURCE_SEARCH
        queries = [recall_pb2.ItemQuery(item_ids=history[-1:]) for history in histories]
        asked = {"top_k": top_k, "filter": filter_, "by": by, "return_attributes": attributes}
        return recall_pb2.SimilarItemsRequest(queries=queries, **asked).SerializeToString()


class Http:
    """POST /rec/recall over connections that are kept; as many as there are calls at the same time."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects when it must."""
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._timeout_s = timeout_s

    async def __call__(self, body: bytes) -> bytes:
        """See `Call`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    kept = bool(self._idle)
                    connection = self._idle.pop() if kept else await asyncio.open_connection(*self._address)
                    try:
                        status, answer = await self._post(*connection, body)
                        break
                    except (asyncio.IncompleteReadError, ConnectionError):
                        if not kept:  # one that was kept may have been closed meanwhile
                            raise
        except TimeoutError as error:
            raise CallError("DEADLINE_EXCEEDED") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise CallError("UNAVAILABLE") from error
        self._idle.append(connection)
        if status != 200:
            raise CallError(f"HTTP {status}")
        return answer

    @staticmethod
    async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
        head = "POST /rec/recall HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        writer.write(head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        return int(status.split()[1]), await reader.readexactly(length)

    async def close(self) -> None:
        """Give the connections back."""
        for _, writer in self._idle:
            writer.close()

    @staticmethod
    def body(histories: list[list[Any]], top_k: int, *_: Any) -> bytes:
        """A request. The article's service knows no filters, neighbours, attributes and rules, and excludes nothing."""
        return json.dumps({"top_k": top_k, "hist_item": histories}).encode()

    @staticmethod
    def item_ids(answer: bytes) -> list[list[int]]:
        """The candidates of every user."""
        found: list[list[int]] = json.loads(answer)["item_ids"]
        return found

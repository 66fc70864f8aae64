"""gRPC reflection with a bounded number of streams."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.edge.door import abort, without_history
from server.edge.receiving import Receiver, only_request
from server.edge.streams import Streams
from server.edge.wire import decoder
from server.errors import DeadlineExceededError, ServerError

REFLECTION: Any = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

Context = grpc.aio.ServicerContext[Any, Any]


class ReflectionServicer(reflection.aio.ReflectionServicer):
    """Describes the services of this server. Use it with `server.edge.wire.register`."""

    def __init__(self, names: list[str], streams: Streams, receiver: Receiver) -> None:
        """Make the servicer. `names`: the services; `streams` counts callers; `receiver` receives requests."""
        super().__init__(names)
        self._streams = streams
        self._receiver = receiver
        self._decode = decoder(REFLECTION.methods_by_name["ServerReflectionInfo"], max_users=0)

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - its stub misses that it yields
        self, _: object, context: Context
    ) -> AsyncIterator[bytes]:
        """Answer the requests of a stream. A stream ends when no further request comes in time."""
        try:
            with self._streams.one(context.peer()):
                answers: Any = super().ServerReflectionInfo(self._requests(context), context)
                async for answer in answers:
                    yield answer.SerializeToString()
        except ServerError as error:
            await abort(context, without_history(error), ())

    async def _requests(self, context: Context) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        received: bytes | None = only_request(await self._receiver.receive(context), "ServerReflectionRequest")
        while received is not None:
            yield self._decode(received)
            try:
                received = await self._receiver.receive(context)
            except DeadlineExceededError:
                return

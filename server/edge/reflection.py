"""gRPC reflection with a bounded number of streams."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.edge.door import abort
from server.edge.streams import Streams
from server.errors import OverloadedError


class ReflectionServicer(reflection.aio.ReflectionServicer):
    """Describes the services of this server."""

    def __init__(self, names: list[str], streams: Streams) -> None:
        """`names`: of the services; `streams`: counts callers."""
        super().__init__(names)
        self._streams = streams

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - its stub misses that it yields
        self,
        request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer the requests of a stream."""
        try:
            with self._streams.one(context.peer()):
                answers: Any = super().ServerReflectionInfo(request_iterator, context)
                async for answer in answers:
                    yield answer
        except OverloadedError as error:
            await abort(context, error, ())

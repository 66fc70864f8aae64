"""`grpc.health.v1` with streams that end when the server stops: a stopping gRPC server waits for all streams."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

LIVENESS = "liveness"
"""Health service that is SERVING while Milvus is away too, as restarting the process would not help then."""


class HealthServicer(health.aio.HealthServicer):
    """Tells watchers NOT_SERVING when the server stops, then ends their streams."""

    def __init__(self) -> None:
        """Make a servicer that knows no service yet."""
        super().__init__()
        self._ending = asyncio.Event()

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Tell a watcher every change until the server stops."""
        watching = asyncio.create_task(super().Watch(request, context))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()

    def end_streams(self) -> None:
        """End the streams of all watchers."""
        self._ending.set()

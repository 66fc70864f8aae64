"""grpc.health.v1 whose streams end with the server: gRPC waits for them, and they would never end by themselves."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

LIVENESS = "liveness"
"""Service that is SERVING whenever the process answers: restarting it helps no server whose Milvus is away."""


class HealthServicer(health.aio.HealthServicer):
    """Watchers hear NOT_SERVING, then their stream ends."""

    def __init__(self) -> None:
        """As gRPC's own."""
        super().__init__()
        self._ending = asyncio.Event()

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Tell every change until the server stops."""
        watching = asyncio.create_task(super().Watch(request, context))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()

    def end_streams(self) -> None:
        """Watch no more."""
        self._ending.set()

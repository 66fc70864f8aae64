"""The service `grpc.health.v1`, with a limited number of watchers. Their streams end when the server stops.

A stopping gRPC server waits for all streams. The servicer of the library is not used, because it has a fault: when a
watcher leaves, the others of the same service get no more changes (grpcio-health-checking 1.81.1).
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.edge.door import abort, without_history
from server.edge.receiving import Receiver, only_request
from server.edge.streams import Streams
from server.edge.wire import decoder
from server.errors import InvalidRequestError, ServerError

HEALTH: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
LIVENESS = "liveness"
"""The health service that is SERVING even if Milvus does not answer, because a restart of the process would not help.
"""
MAX_NAME = 256
"""Maximum length of the name of a service in characters."""

Context = grpc.aio.ServicerContext[Any, Any]


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers the status of services, and sends changes to watchers. Use it with `server.edge.wire.register`."""

    def __init__(self, streams: Streams, receiver: Receiver) -> None:
        """Make a servicer without services. `streams` counts watchers, and `receiver` receives requests."""
        self._streams = streams
        self._receiver = receiver
        self._decode = decoder(HEALTH.methods_by_name["Check"], max_users=0)
        self._status: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._stopping = self._ending = False

    async def Check(self, _: object, context: Context) -> bytes:  # noqa: N802
        """Answer the status of a service."""
        try:
            service = await self._service(context)
        except ServerError as error:
            await abort(context, without_history(error), ())
        if service not in self._status:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {service!r}")
        return health_pb2.HealthCheckResponse(status=self._status[service]).SerializeToString()

    async def Watch(self, _: object, context: Context) -> None:  # noqa: N802
        """Send every change to a watcher until the server stops."""
        try:
            with self._streams.one(context.peer()):
                await self._watch(await self._service(context), context)
        except ServerError as error:
            await abort(context, without_history(error), ())

    def set(self, service: str, status: int) -> None:
        """Set the status of a service (`health_pb2.HealthCheckResponse.ServingStatus`) and tell its watchers."""
        if not self._stopping:
            self._status[service] = status
            self._tell()

    def stop(self) -> None:
        """Report from now on that no service is serving."""
        self._stopping = True
        self._status = dict.fromkeys(self._status, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._tell()

    def end_streams(self) -> None:
        """Send the last change to all watchers, and end their streams."""
        self._ending = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _watch(self, service: str, context: Context) -> None:
        told = None
        while True:
            changed, ending = self._changed, self._ending
            status = self._status.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status).SerializeToString())
                told = status
            if ending:
                return
            await changed.wait()

    async def _service(self, context: Context) -> str:
        """Read the name of the service from the request of a call. Raises ServerError."""
        request = self._decode(only_request(await self._receiver.receive(context), "HealthCheckRequest"))
        name: str = request.service
        if len(name) > MAX_NAME:
            why = f"has {len(name)} characters, the limit is {MAX_NAME}"
            raise InvalidRequestError("service", why, "SERVICE_NAME_TOO_LONG")
        return name

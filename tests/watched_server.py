"""A server on an exact store in memory, with somebody listening: for tests of metrics, logs and traces."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mind.artifact import load_artifact
from protos.recall.v1 import admin_pb2_grpc, recall_pb2_grpc
from server.app import RecallServer
from server.settings import Settings
from server.watching.telemetry import Telemetry
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore
from tests.server.test_server import Running, until_health

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def watched(tmp_path: Path, telemetry: Telemetry, **options: Any) -> AsyncIterator[Running]:
    """A server with a release of 200 items (ids 1000, 1007, ...) that is SERVING."""
    artifacts = tmp_path / "artifacts"
    settings = Settings(listen="127.0.0.1:0", artifacts=str(artifacts), **({"watch_interval_s": 0.05} | options))
    store = FakeStore()
    collection = store.publish(load_artifact(make_artifact(artifacts)))
    server = RecallServer(settings, store, telemetry=telemetry)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await until_health(health, SERVING)
            recall, admin = recall_pb2_grpc.RecallServiceStub(channel), admin_pb2_grpc.AdminServiceStub(channel)
            yield Running(server, store, recall, admin, health, collection)
    finally:
        await server.stop(0)

"""Puts the server together and runs it until it is told to stop."""

import asyncio
import gc
import logging
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mind.artifact import Artifact
from mind.encoder import Encoder, NumpyEncoder
from mind.errors import ConfigError
from protos.recall.v1 import admin_pb2, admin_pb2_grpc, recall_pb2, recall_pb2_grpc
from server.admin import AdminService
from server.door import Door
from server.pipeline import CandidatePipeline
from server.release import Releases, watch
from server.service import RecallService
from server.settings import Settings
from server.store import ItemStore, MilvusStore
from server.user_service import UserService
from server.user_store import MilvusUserStore, UserStore

logger = logging.getLogger(__name__)

RECALL = recall_pb2.DESCRIPTOR.services_by_name["RecallService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]

GC_THRESHOLDS = (20_000, 20, 20)
"""Of `gc.set_threshold`: objects that requests in progress hold are far fewer, so only a leak reaches them."""


class RecallServer:
    """A gRPC server around a store; start it, stop it."""

    def __init__(self, settings: Settings, store: ItemStore, user_store: UserStore | None = None) -> None:
        """Raises ConfigError if the address is taken or the token file cannot be used.

        `user_store`: None if users are not remembered.
        """
        self._settings = settings
        self._store = store
        self._encode_on = ThreadPoolExecutor(1, "encode")
        self._health = health.aio.HealthServicer()
        self.releases = Releases(store, settings.artifacts, _encoder_maker(settings))
        pipeline = CandidatePipeline(
            store,
            self._encode_on,
            search_timeout_ms=settings.search_timeout_ms,
            max_overfetch=settings.max_overfetch,
            max_batch_users=settings.max_batch_users,
            max_queued_users=settings.max_queued_users,
            workers=settings.search_workers,
        )
        self._door = Door(settings.max_concurrent_requests)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                # or a second server on this port would silently take half the callers
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ],
        )
        self._users = UserService(settings, user_store, self._encode_on)
        recall = RecallService(settings, self.releases, pipeline, store, self._users)
        recall = self._door.guard(recall, RECALL, counted=True)
        recall_pb2_grpc.add_RecallServiceServicer_to_server(recall, self._server)
        if settings.admin_token_file:
            admin = AdminService(_read_token(settings), self.releases, store)
            admin = self._door.guard(admin, ADMIN, counted=False)
            admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = [RECALL.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME]
            names += [ADMIN.full_name] if settings.admin_token_file else []
            reflection.enable_server_reflection(names, self._server)
        try:
            self.port = self._server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise ConfigError(f"--listen {settings.listen}: the address cannot be used, or is taken") from error
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen, NOT_SERVING until the first release is loaded, and follow releases from then on."""
        await self._set_health(False)
        await self._server.start()
        watching = watch(self.releases, self._settings.watch_interval_s, self._set_health)
        self._watching = [asyncio.create_task(work) for work in (watching, self._users.follow(self.releases))]

    async def stop(self, drain_s: float) -> None:
        """Say NOT_SERVING, let calls in progress finish, `drain_s` seconds at most, and go."""
        for task in self._watching:
            task.cancel()
        await self._health.enter_graceful_shutdown()
        await self._door.close(drain_s)
        await self._server.stop(0)
        await self._store.close()
        self._encode_on.shutdown()

    async def _set_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", RECALL.full_name):
            await self._health.set(name, status)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError for options that cannot work."""
    store = MilvusStore(
        settings.milvus_uri,
        settings.milvus_token.get_secret_value(),
        settings.milvus_db_name,
        settings.milvus_ca_cert,
        settings.search_timeout_ms / 1000,
    )
    timeout_s = settings.search_timeout_ms / 1000
    is_lite = settings.milvus_uri.endswith(".db")
    server = RecallServer(settings, store, MilvusUserStore(store, is_lite, timeout_s) if settings.users else None)
    stopping = asyncio.Event()  # after Paddle, whose import resets signal handlers
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if parent := multiprocessing.parent_process():
        asyncio.get_running_loop().add_reader(parent.sentinel, stopping.set)  # killed, it cannot tell us to stop
    await server.start()
    _tame_garbage_collector()
    logger.info("listening on %s", settings.listen.rpartition(":")[0] + f":{server.port}")
    await stopping.wait()
    logger.info("stopping: calls in progress get %g s", settings.drain_timeout_s)
    await server.stop(settings.drain_timeout_s)
    logger.info("stopped")


def _tame_garbage_collector() -> None:
    """Look for cycles seldom, and never among what imports made: it held every caller up, by 20 ms of a p99 of 70."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _encoder_maker(settings: Settings) -> Callable[[Artifact], Encoder]:
    if settings.encoder == "numpy":
        return lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    try:
        from mind.paddle_encoder import PaddleEncoder, check_device  # only now is Paddle needed
    except ModuleNotFoundError as error:
        raise ConfigError("--encoder paddle: PaddlePaddle is not installed; it is the extra cpu or gpu") from error
    check_device(settings.device)
    return lambda artifact: PaddleEncoder.from_artifact(artifact, settings.device)


def _read_token(settings: Settings) -> str:
    file = settings.admin_token_file
    try:
        token = file.read_text(encoding="utf-8").strip() if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--admin-token-file {file}: cannot be read: {error}") from error
    if len(token) < 16:
        raise ConfigError(f"--admin-token-file {file}: the token has {len(token)} characters, the least is 16")
    return token

"""Puts the server together and runs it until it is told to stop."""

import asyncio
import gc
import logging
import multiprocessing
import signal
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc

from mind.encoders import EncoderName, encoder_maker
from mind.errors import ConfigError
from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.aio_user_store import MilvusUserStore
from mind.transfer import Models
from protos.recall.v1 import admin_pb2, recall_pb2
from server.channels import Channels
from server.edge.admin import AdminService
from server.edge.calls import Calls
from server.edge.channel_health import ChannelHealth
from server.edge.door import Door
from server.edge.feedback import FeedbackLog
from server.edge.health import HEALTH, HealthServicer
from server.edge.receiving import MAX_ARRIVING_OF_STRANGERS, MAX_REQUEST_BYTES_OF_STRANGERS, Receiver
from server.edge.reflection import REFLECTION, ReflectionServicer
from server.edge.service import RecallService
from server.edge.shadow import Shadow
from server.edge.streams import Streams
from server.edge.tls import server_credentials
from server.edge.tokens import Tokens
from server.edge.user_service import UserService
from server.edge.wire import keep_quiet_about_callers, register
from server.errors import Failure, StoreUnavailableError
from server.instrumentation import make_telemetry
from server.loader import Loader
from server.ports import ItemStore
from server.release import Release
from server.releases import Releases
from server.serving.attributes import Attributes
from server.serving.breaker import Breaker
from server.serving.local import LocalItems, index_maker
from server.serving.matching import MatchingItems
from server.serving.pipeline import CandidatePipeline
from server.serving.popular import PopularItems
from server.serving.similar_batches import SimilarItems
from server.settings import Settings
from server.signals import leave_when_told
from server.users.ports import UserStore
from server.watching.line_sink import LineSink
from server.watching.loop_lag import watch_loop_lag
from server.watching.telemetry import SILENT, Telemetry

logger = logging.getLogger(__name__)

RECALL = recall_pb2.DESCRIPTOR.services_by_name["RecallService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]

GC_THRESHOLDS = (20_000, 20, 20)
"""For `gc.set_threshold`: requests in progress hold far fewer objects, so only a leak reaches these numbers."""

SWITCH_S = 0.0001
"""For `sys.setswitchinterval`: how long the event loop keeps threads waiting that score items between two products."""

MAX_CONCURRENT_STREAMS = 1_000
"""Maximum number of calls in progress on one connection. Clients keep more to themselves until some have ended."""
MAX_PENDING_CALLS = 10_000
"""Maximum number of calls that gRPC has and that the door has not seen yet, of all connections."""

MAX_METADATA_BYTES = 16 * 1024
"""Maximum size of a call's metadata."""
MAX_CONNECTIONS = 20_000
"""Maximum number of connections. gRPC closes further ones at once."""

FIRST_LOOK_S = 10.0
"""Longest time that a starting server waits for its first release, and then for the collections of remembered users,
before it answers calls, with an error if need be."""


class RecallServer:
    """A gRPC server that searches a store."""

    def __init__(
        self,
        settings: Settings,
        store: ItemStore,
        user_store: UserStore | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Put the server together and take its port; nothing is answered before `start`.

        Args:
            settings: the options.
            store: Milvus, as far as items are concerned.
            user_store: Milvus, as far as users are concerned; None if users are not remembered.
            telemetry: is told what happens.

        Raises:
            ConfigError: the address is taken, or certificates, tokens or the feedback log cannot be used.
        """
        self._settings = settings
        self._breaker = Breaker(self._probe(store), self._on_breaker)
        # Loading is not guarded: a collection that is not loaded keeps the breaker open, and loading it closes it.
        self._store = store = self._breaker.guard(store, unguarded=("loaded", "load", "close"))
        self._telemetry = telemetry
        self._encode_on = ThreadPoolExecutor(1, "encode")
        self._streams = Streams()
        self._receiver = Receiver(MAX_ARRIVING_OF_STRANGERS, MAX_REQUEST_BYTES_OF_STRANGERS)
        self._health = HealthServicer(self._streams, self._receiver)
        self.channels = self._make_channels(store)
        self.releases = self.channels.default
        """The releases of the default channel."""
        told = self._health, RECALL.full_name, self.channels, settings.degraded, telemetry.metrics
        self._channel_health = ChannelHealth(*told)
        channels = len(self.channels)
        self.local, matching = LocalItems(store, channels), MatchingItems(store, channels=channels)
        attributes = Attributes(store, settings.attribute_cache_mb * 2**20, lambda: self.channels.served)
        make_pipeline = partial(
            CandidatePipeline,
            store,
            self._encode_on,
            search_timeout_ms=settings.search_timeout_ms,
            max_overfetch=settings.max_overfetch,
            max_batch_users=settings.max_batch_users,
            max_queued_users=settings.max_queued_users,
            local=self.local,
            matching=matching,
            attributes=attributes,
            popular=PopularItems(store, channels),
            search=settings.search,
        )
        pipeline = make_pipeline(
            workers=settings.search_workers,
            degraded=settings.degraded,
            telemetry=telemetry,
            on_encoder_lost=self._channel_health.lose_encoder,
        )
        self.shadow = self._make_shadow(make_pipeline(workers=1), pipeline) if settings.shadow else None
        """Asks the shadow channels; None if there are none."""
        self.similar_items = SimilarItems(settings, self.local, matching, telemetry)
        self._door = Door(settings, Calls(telemetry, settings.access_log))
        if telemetry.metrics:
            telemetry.metrics.follow_channels(settings.channels)
            telemetry.metrics.follow(
                lambda: self._door.in_progress, lambda: pipeline.queued_users + self.similar_items.queued
            )
        self._server = grpc.aio.server(options=_channel_options(settings))
        self._users = UserService(settings, user_store and self._breaker.guard(user_store), self._encode_on)
        self._feedback = FeedbackLog(self._sink(), settings.feedback_sample)
        answers = pipeline, self.similar_items, store, self._users, attributes, self._feedback, self.shadow
        service = RecallService(settings, self.channels, *answers)
        self._add_services(service)
        self.port = self._listen()
        self._watching: list[asyncio.Task[None]] = []

    def _make_channels(self, store: ItemStore) -> Channels:
        settings = self._settings
        models = Models(settings.artifacts, settings.artifact_cache)
        make_encoder = encoder_maker(EncoderName(settings.encoder), settings.device)
        loader = Loader(store, models, make_encoder, index_maker(settings.search))

        def follow(channel: str) -> Releases:
            releases: Releases

            def on_check(release: Release | None, error: Failure | None) -> None:
                self._on_check(releases, release, error)

            return (releases := Releases(store, loader, channel, settings.keep_previous, on_check))

        return Channels([follow(channel) for channel in settings.channels])

    def _make_shadow(self, asked: CandidatePipeline, live: CandidatePipeline) -> Shadow:
        """The shadow of the live pipeline. `asked`: a pipeline of its own, which counts nothing."""
        settings, metrics = self._settings, self._telemetry.metrics

        def busy() -> bool:  # the batches of live are as full as they need be
            return self._breaker.open or live.queued_users >= settings.max_batch_users / 2

        return Shadow(settings.shadows, settings, self.channels, asked, busy, metrics.shadow if metrics else None)

    def _add_services(self, recall: RecallService) -> None:
        settings = self._settings
        tokens = self._tokens(settings.token_file, "--token-file", "TOKEN") if settings.token_file else None
        register(self._door.guard(recall, RECALL, counted=True, tokens=tokens), RECALL, self._server)
        if settings.admin_token_file:
            admin_tokens = self._tokens(settings.admin_token_file, "--admin-token-file", "ADMIN_TOKEN")
            admin = AdminService(self.channels, self._store)
            register(self._door.guard(admin, ADMIN, counted=False, tokens=admin_tokens), ADMIN, self._server)
        register(self._health, HEALTH, self._server)
        if settings.reflection:
            names = [RECALL.full_name, HEALTH.full_name, REFLECTION.full_name]
            names += [ADMIN.full_name] if settings.admin_token_file else []
            register(ReflectionServicer(names, self._streams, self._receiver), REFLECTION, self._server)

    def _sink(self) -> LineSink | None:
        path, metrics = self._settings.feedback_log, self._telemetry.metrics
        if not path:
            return None
        try:
            return LineSink(path, metrics.count_feedback) if metrics else LineSink(path)
        except OSError as error:
            raise ConfigError(f"--feedback-log {path}: {error}") from error

    def _tokens(self, file: Path, option: str, reason: str) -> Tokens:
        return Tokens(file, option, reason, self._telemetry.on_read(option))

    def _listen(self) -> int:
        settings = self._settings
        try:
            if settings.tls_cert and settings.tls_key:
                files = settings.tls_cert, settings.tls_key, settings.tls_client_ca
                credentials = server_credentials(*files, self._telemetry.on_read("--tls-cert"))
                return self._server.add_secure_port(settings.listen, credentials)
            return self._server.add_insecure_port(settings.listen)
        except RuntimeError as error:
            raise ConfigError(f"--listen {settings.listen}: the address cannot be used, or is taken") from error

    async def start(self) -> None:
        """Follow releases, and answer calls once the first release is loaded or known to be missing.

        Otherwise a caller that knows several servers would send its calls to the one that has nothing to answer with.
        """
        keep_quiet_about_callers()
        looked, not_looked_at = asyncio.Event(), set(self._settings.channels)

        async def on_health(channel: str, usable: bool) -> None:
            await self._channel_health.set_usable(channel, usable)
            not_looked_at.discard(channel)
            if not not_looked_at:
                looked.set()

        watching = self.channels.watch(self._settings.watch_interval_s, on_health)
        self._watching = [asyncio.create_task(watching)]
        self._watching.append(asyncio.create_task(self.local.follow(self._followed)))
        if self._telemetry.metrics:
            lag = watch_loop_lag(self._telemetry.metrics.count_loop_lag)
            self._watching.append(asyncio.create_task(lag))
        with suppress(TimeoutError):
            await asyncio.wait_for(looked.wait(), FIRST_LOOK_S)
        preparing = asyncio.create_task(self._users.prepare(self.channels))
        self._watching.append(preparing)
        await asyncio.wait([preparing], timeout=FIRST_LOOK_S)
        self._watching.append(asyncio.create_task(self._users.follow(self.channels)))
        await self._server.start()

    def _followed(self) -> list[Release]:
        """The releases whose changes of items must be known without asking Milvus."""
        always = self._settings.degraded or self._settings.search == "local"
        return [release for release in self.channels.served if always or release.adds_neighbours]

    async def stop(self, drain_s: float) -> None:
        """Say NOT_SERVING, let calls in progress finish for at most `drain_s` seconds, and stop."""
        for task in self._watching:
            task.cancel()
        self._health.stop()
        await self._door.close()
        self._health.end_streams()
        await self._server.stop(drain_s)  # hangs up, so that callers go to other servers; a second stop crashes it
        if self.shadow:
            await self.shadow.close()
        self._breaker.close()
        await self._store.close()
        self._encode_on.shutdown()
        self._feedback.close()
        self._telemetry.close()

    async def _on_breaker(self) -> None:
        await self._channel_health.set_away(self._breaker.open)

    def _on_check(self, releases: Releases, release: Release | None, error: Failure | None) -> None:
        metrics = self._telemetry.metrics
        if metrics and release and not error:
            served = releases.channel, release.model_version, release.collection
            metrics.set_release(*served, miscounted=bool(releases.miscounted))
        elif metrics and not isinstance(error, StoreUnavailableError):  # which says nothing about the release
            metrics.set_refused(releases.channel, new_reason=str(error) != releases.refused)

    def _probe(self, store: ItemStore) -> Callable[[], Awaitable[None]]:
        timeout_s = self._settings.search_timeout_ms / 1000

        async def search(release: Release) -> None:
            params = dict(release.fingerprint.search_params)
            await store.search(release.collection, release.item_embedding[1:2], 1, params, timeout_s)

        async def probe() -> None:
            served = self.channels.served or [self.releases.current]
            said = await asyncio.gather(*map(search, served), return_exceptions=True)
            away = [error for error in said if isinstance(error, StoreUnavailableError)]
            if len(away) == len(said):  # one collection that can be searched is enough: Milvus is there
                raise away[0]

        return probe


def _channel_options(settings: Settings) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),  # otherwise gRPC refuses some calls at random from 8 KB on
        # otherwise calls beyond that, which came before the client knew the limit, end with a bare UNAVAILABLE
        ("grpc.http.overload_protection", 0),
        # otherwise gRPC ends calls with a bare CANCELLED from 1,000 on, before the door sees them
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        # otherwise a second server on this port would silently take half of the callers
        ("grpc.so_reuseport", int(settings.processes > 1)),
    ]
    if settings.max_connection_age_s:
        options.append(("grpc.max_connection_age_ms", max(1, int(settings.max_connection_age_s * 1000))))
    return options


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises ConfigError for options that cannot work."""
    telemetry = make_telemetry(settings)
    connection = settings.connection(settings.search_timeout_ms / 1000)
    store = MilvusStore(AioSession(connection, telemetry.count_store_error))
    users = MilvusUserStore(store) if settings.users else None
    server = RecallServer(settings, store, users, telemetry)
    leave_when_told()  # again: the import of Paddle resets signal handlers
    await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if parent := multiprocessing.parent_process():
        asyncio.get_running_loop().add_reader(parent.sentinel, stopping.set)  # the parent was killed
    _tame_garbage_collector()
    sys.setswitchinterval(SWITCH_S)
    address = settings.listen.rpartition(":")[0] + f":{server.port}"
    logger.info("listening on %s%s", address, " with TLS" if settings.tls_cert else "")
    await stopping.wait()
    logger.info("stopping: calls in progress get %g s", settings.drain_timeout_s)
    await server.stop(settings.drain_timeout_s)
    logger.info("stopped")


def _tame_garbage_collector() -> None:
    """Collect cycles rarely, and never look at the objects of imports. That took 20 ms of a p99 latency of 70 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

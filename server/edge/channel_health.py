"""Decides whether each channel of the server can serve, and tells health checks, the log and metrics.

The service "" and RecallService are those of the default channel. `recall.v1.RecallService/b` is that of the channel b.
"""

import logging

from grpc_health.v1 import health_pb2

from server.channels import Channels
from server.edge.health import LIVENESS, HealthServicer
from server.releases import Releases
from server.watching.metrics import Metrics

logger = logging.getLogger(__name__)

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class ChannelHealth:
    """The health of the channels of a server."""

    def __init__(
        self, health: HealthServicer, service: str, channels: Channels, degraded: bool, metrics: Metrics | None
    ) -> None:
        """Say NOT_SERVING for all channels, and SERVING for the process itself.

        Args:
            health: answers health checks.
            service: the full name of the service whose health depends on the channels.
            channels: those that are served.
            degraded: whether requests can be answered while Milvus does not answer.
            metrics: None if they are turned off.
        """
        self._health, self._service, self._channels = health, service, channels
        self._degraded, self._metrics = degraded, metrics
        self._usable: set[str] = set()
        """The channels whose release is loaded and whose collection Milvus, when asked last, had."""
        self._serving: dict[str, bool] = {}
        self._encoder_lost = False
        self._milvus_away = False
        health.set(LIVENESS, SERVING)
        self._tell()

    async def set_usable(self, channel: str, usable: bool) -> None:
        """Tell whether a channel has a release whose collection is in Milvus."""
        (self._usable.add if usable else self._usable.discard)(channel)
        self._tell()

    async def set_away(self, away: bool) -> None:
        """Tell whether Milvus does not answer."""
        self._milvus_away = away
        self._tell()

    async def lose_encoder(self) -> None:
        """Say NOT_SERVING for good, `liveness` included: only a new process gets a failed GPU back."""
        self._encoder_lost = True
        self._health.set(LIVENESS, NOT_SERVING)
        self._tell()

    def _tell(self) -> None:
        for releases in self._channels:
            self._tell_of(releases)

    def _tell_of(self, releases: Releases) -> None:
        channel, default = releases.channel, releases is self._channels.default
        usable = channel in self._usable and not self._encoder_lost
        serving = usable and (self._degraded or not (self._milvus_away or releases.unloaded))
        before, of_channel = self._serving.get(channel, False), "" if default else f" of channel {channel}"
        if serving and not before:
            logger.info("health%s is SERVING", of_channel)
        elif before and not serving:
            silent = "Milvus does not answer" if self._milvus_away else "Milvus lost the collection"
            reason = releases.refused or releases.unloaded or silent
            lost = "the encoder fails at what it could encode before; start this process again"
            logger.warning("health%s is NOT_SERVING: %s", of_channel, lost if self._encoder_lost else reason)
        self._serving[channel] = serving
        if self._metrics:
            self._metrics.set_serving(channel, serving)
        for name in (*(("", self._service) if default else ()), f"{self._service}/{channel}"):
            self._health.set(name, SERVING if serving else NOT_SERVING)

"""Makes the parts that watch the serving path: metrics endpoint, recall samples and traces."""

import logging
import os
from typing import TYPE_CHECKING

from mind.errors import ConfigError
from server.errors import CollectionGoneError, StoreError, StoreUnavailableError
from server.serving.answer import Status
from server.serving.similar import ItemStatus
from server.settings import Settings
from server.watching.metrics import Metrics
from server.watching.sampling import RecallSampling
from server.watching.telemetry import Telemetry

if TYPE_CHECKING:  # OpenTelemetry may not be installed
    from server.watching.tracing import Tracing

logger = logging.getLogger(__name__)

OTEL_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Environment variables of OpenTelemetry that turn traces on, as --otlp-endpoint does."""


def make_telemetry(settings: Settings) -> Telemetry:
    """Make the telemetry that the options ask for.

    Raises:
        ConfigError: the address for metrics cannot be used, or OpenTelemetry is not installed.
    """
    if not settings.metrics_listen:
        return Telemetry(tracing=_tracing(settings.otlp_endpoint))
    metrics = make_metrics()
    _, port = metrics.serve(settings.metrics_listen)
    logger.info("metrics on http://%s:%d/metrics", settings.metrics_listen.rpartition(":")[0], port)
    rate = settings.recall_sample_rate
    sampling = RecallSampling(rate, metrics.count_recall) if rate else None
    return Telemetry(metrics, _tracing(settings.otlp_endpoint), sampling)


def make_metrics() -> Metrics:
    """Make the metrics of a server, with a series for every status and every kind of Milvus error."""
    kinds = (StoreError, StoreUnavailableError, CollectionGoneError)
    return Metrics(Status.__members__, ItemStatus.__members__, [kind.reason for kind in kinds])


def _tracing(endpoint: str) -> "Tracing | None":
    wanted = endpoint or any(os.environ.get(name) for name in OTEL_ENDPOINTS)
    if not wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        from server.watching.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ConfigError("--otlp-endpoint: OpenTelemetry is not installed; it is the extra tracing") from error
    return Tracing(OTLPSpanExporter(endpoint or None))

"""What a server process is told: its options, checked. Knows nothing of command lines; `server.options` does."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from mind.milvus.options import MilvusOptions
from mind.milvus.users import MAX_CAPACITY
from mind.transfer import CACHE

INT32_MAX = 2**31 - 1
"""Of integers that GetServerInfo tells; the others need no more either."""

_TOGETHER = (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert"))
"""Options that need another one."""


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _level(value: object) -> object:
    """The level that a text names in any case; other texts stay as they are, for the message."""
    return value.upper() if isinstance(value, str) and value.upper() in get_args(LogLevel) else value


class Settings(MilvusOptions):
    """What one server process is told."""

    panels: ClassVar = MilvusOptions.panels | {
        "config": "Server",
        "encoder": "Encoder",
        "watch_interval_s": "Serving",
        "max_users": "Limits",
        "tls_cert": "TLS",
        "token_file": "Tokens",
        "users": "Users",
        "admin_token_file": "Methods",
        "log_level": "Logging",
        "metrics_listen": "Metrics and traces",
    }

    config: Path | None = None
    """YAML file with any of these options."""
    listen: str = "127.0.0.1:50051"
    """Address to listen on. 0.0.0.0:50051 admits other machines; port 0 takes a free one."""
    artifacts: str = "artifacts"
    """Directory or URL (s3://bucket/models) of models, one directory per version; the released one is loaded."""
    artifact_cache: Path = CACHE
    """Directory that keeps models from a URL."""
    keep_previous: bool = True
    """Keep the release before the current one in memory, so that rolling back to it takes no loading."""
    encoder: Literal["numpy", "paddle"] = "numpy"
    """What turns histories into interest vectors: numpy (CPU, needs no Paddle) or paddle (the network, CPU or GPU)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the encoder paddle computes; auto takes a GPU if there is one and Paddle's build can use it."""
    watch_interval_s: float = Field(default=5.0, gt=0)
    """Seconds between looks at the release alias."""
    search_timeout_ms: int = Field(default=5_000, gt=0, le=INT32_MAX)
    """Longest wait for Milvus; a caller's shorter deadline wins."""
    degraded: bool = False
    """While Milvus does not answer, give the popular list, labelled as such, instead of an error."""
    drain_timeout_s: float = Field(default=20.0, ge=0)
    """Seconds that calls in progress get to finish after SIGTERM."""
    max_users: int = Field(default=256, gt=0, le=INT32_MAX)
    """Users in one request."""
    max_top_k: int = Field(default=1_000, gt=0, le=10_000)
    """Candidates per user."""
    max_candidates: int = Field(default=150_000, gt=0, le=INT32_MAX)
    """Users times top_k of one request; the default keeps answers under gRPC's default limit of 4 MB."""
    max_history: int = Field(default=10_000, gt=0, le=INT32_MAX)
    """Ids in one user's history. The model looks at the newest few; the rest can only be excluded."""
    max_exclude: int = Field(default=1_000, ge=0, le=INT32_MAX)
    """Ids in one user's exclude_item_ids."""
    max_overfetch: int = Field(default=1_000, ge=0, le=6_000)
    """Extra hits per interest fetched to make up for exclusions; beyond it a user may get fewer candidates."""
    max_filter_chars: int = Field(default=2_000, gt=0, le=INT32_MAX)
    """Length of a filter."""
    max_filter_depth: int = Field(default=16, gt=0, le=32)
    """Parentheses, `not` and signs within one another in a filter."""
    max_request_bytes: int = Field(default=4 * 1024 * 1024, gt=0, le=INT32_MAX)
    """Size of a request message."""
    max_batch_users: int = Field(default=64, gt=0, le=INT32_MAX)
    """Users of different requests that are encoded and searched together, when they wait at the same time."""
    max_queued_users: int = Field(default=4_096, gt=0, le=INT32_MAX)
    """Users that may wait; more are turned away with RESOURCE_EXHAUSTED and a time to come back."""
    search_workers: int = Field(default=2, gt=0, le=64)
    """Batches of one kind in progress at once, and twice as many of all; one more starts when half a full one waits."""
    processes: int = Field(default=1, gt=0, le=256)
    """Servers behind the one address; more than one needs a Milvus server. Each has a queue and limits of its own."""
    max_concurrent_requests: int = Field(default=256, gt=0, le=INT32_MAX)
    """Requests in progress at once; more are turned away with RESOURCE_EXHAUSTED and a time to come back."""
    max_connection_age_s: float = Field(default=0, ge=0, le=INT32_MAX / 1000)
    """Seconds, give or take a tenth, until a caller must connect anew and so finds added servers; 0: never."""
    tls_cert: Path | None = None
    """PEM file with the server's certificate chain; callers then need TLS. Read anew when it changes."""
    tls_key: Path | None = None
    """PEM file with the private key of that certificate."""
    tls_client_ca: Path | None = None
    """PEM file of authorities; callers then need a certificate of one of them (mutual TLS)."""
    token_file: Path | None = None
    """File of tokens, one a line, of which RecallService wants one. Read anew when it changes."""
    users: bool = False
    """Remember users: enables UpsertUsers, FindSimilarUsers, DeleteUsers and user_id in Recall, for every caller."""
    max_stored_history: int = Field(default=500, gt=0, le=MAX_CAPACITY)
    """Newest ids that are kept of a remembered user; as many as the model looks at are kept in any case."""
    max_similar: int = Field(default=20_000, gt=0, le=25_000)
    """Users times top_k of one FindSimilarUsers; keeps answers under gRPC's default limit of 4 MB."""
    admin_token_file: Path | None = None
    """File of tokens, one a line, that enables AdminService, which wants one of them. Read anew when it changes."""
    explain: bool = True
    """Answer Explain, which shows interest vectors and what was dropped."""
    reflection: bool = True
    """Let grpcurl and friends discover the service, without a token too."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "INFO"
    """Least severe messages to log."""
    log_format: Literal["text", "json"] = "text"
    """Log lines for people, or as JSON objects."""
    access_log: bool = False
    """Log every call, not only those that fail."""
    metrics_listen: str = ""
    """Address of /metrics for Prometheus, such as 0.0.0.0:9464; empty: none. The next processes take the next ports."""
    recall_sample_rate: float = Field(default=0.001, ge=0, le=1)
    """With metrics: share of batches of which one user's candidates are compared with an exact search; 0: none."""
    otlp_endpoint: str = ""
    """OpenTelemetry collector (OTLP, gRPC) for traces, such as http://localhost:4317; OTEL_* variables count too."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, needed in _TOGETHER:
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} is {getattr(self, name)}, and {needed} is not given")
        if self.processes > 1 and self.milvus_uri.endswith(".db"):
            raise ValueError(f"processes is {self.processes}: a Milvus Lite file admits one process alone")
        host, colon, port = self.listen.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65536):
            raise ValueError(f"listen is {self.listen!r}: expected host:port, port 0 to 65535")
        host, colon, port = self.metrics_listen.rpartition(":")
        if self.metrics_listen and not (host and port.isdecimal() and int(port) + self.processes - 1 < 65536):
            raise ValueError(
                f"metrics_listen is {self.metrics_listen!r}: expected host:port, a port for each of {self.processes} "
                "processes, up to 65535"
            )
        if self.otlp_endpoint and not re.fullmatch(r"https?://[^/]+/?", self.otlp_endpoint):
            raise ValueError(f"otlp_endpoint is {self.otlp_endpoint!r}: expected http(s)://host:port")
        if self.max_top_k > self.max_candidates:
            raise ValueError(f"max_top_k is {self.max_top_k}, more than max_candidates, {self.max_candidates}")
        return self

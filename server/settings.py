"""The options of a server process, validated. The command line that reads them is `server.options`."""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from mind.milvus.channels import LIVE, MAX_CHANNELS, MAX_NAME, is_channel
from mind.milvus.options import MilvusOptions
from mind.milvus.shown import MAX_SHOWN, TTL_DAYS
from mind.milvus.users import MAX_CAPACITY
from mind.transfer import CACHE

INT32_MAX = 2**31 - 1
"""Maximum of integer options. GetServerInfo returns some of them as int32."""

_TOGETHER = (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert"))
"""Pairs of options: the first one needs the second one."""


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _level(value: object) -> object:
    """Write the name of a log level in capitals. Other texts stay as they are, so that an error can show them."""
    return value.upper() if isinstance(value, str) and value.upper() in get_args(LogLevel) else value


def _names(value: object) -> object:
    """Split an environment variable into names. A list of flags stays as it is."""
    return re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value


def _shares(given: tuple[str, ...]) -> dict[str, float]:
    """The shares of channels that an option gives, in its order."""
    pairs = (text.partition("=") for text in given)
    return {channel: float(share) for channel, _, share in pairs}


class Settings(MilvusOptions):
    """The options of one server process."""

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
    """Address to listen on. 0.0.0.0:50051 accepts other machines. Port 0 takes a free port."""
    artifacts: str = "artifacts"
    """Directory or URL (s3://bucket/models) of models, one directory per version. The server loads the released one."""
    artifact_cache: Path = CACHE
    """Directory that stores models downloaded from a URL, the 4 used last. It deletes only what it downloaded."""
    keep_previous: bool = True
    """Keep the previous release, so that a rollback to it loads nothing."""
    encoder: Literal["numpy", "cupy", "paddle"] = "numpy"
    """Encoder of histories: numpy (CPU), cupy (the same on an NVIDIA GPU) or paddle (the network, on CPU or GPU)."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Device of the encoder paddle. auto takes a GPU if there is one and Paddle's build can use it."""
    watch_interval_s: float = Field(default=5.0, gt=0)
    """Seconds between checks of the release alias."""
    channel: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Channel to serve, such as live or b; without one, live. Repeatable. The first one is the default channel."""
    split: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Share of the requests without a channel that get this one, such as b=0.1, by a hash of their key. Repeatable."""
    shadow: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Share of the requests to the default channel that are also asked of this one, such as b=0.05, and compared."""
    search_timeout_ms: int = Field(default=5_000, gt=0, le=INT32_MAX)
    """Maximum time to wait for Milvus, in milliseconds. A shorter deadline of the caller applies first."""
    search: Literal["milvus", "local"] = "milvus"
    """What finds the nearest items: milvus, or local, the server's memory (needs the extra local, FAISS)."""
    attribute_cache_mb: int = Field(default=256, ge=0, le=INT32_MAX)
    """Memory for attributes of items that requests ask for, in MiB. What does not fit is read for each request."""
    degraded: bool = False
    """While Milvus does not answer, find candidates in the server's memory, with the status DEGRADED."""
    drain_timeout_s: float = Field(default=20.0, ge=0)
    """Seconds that calls in progress have to finish after SIGTERM."""
    max_users: int = Field(default=256, gt=0, le=INT32_MAX)
    """Maximum number of users in one request."""
    max_top_k: int = Field(default=1_000, gt=0, le=10_000)
    """Maximum number of candidates per user."""
    max_candidates: int = Field(default=150_000, gt=0, le=INT32_MAX)
    """Maximum of users times top_k in one request; lower where keys are long. The default keeps answers under 4 MB."""
    max_history: int = Field(default=10_000, gt=0, le=INT32_MAX)
    """Maximum number of ids in one user's history. The model uses the newest; exclude_history applies to all."""
    max_exclude: int = Field(default=1_000, ge=0, le=INT32_MAX)
    """Maximum number of ids in one user's exclude_item_ids."""
    max_overfetch: int = Field(default=1_000, ge=0, le=6_000)
    """Maximum number of extra hits per interest to replace excluded items. Beyond it users may get fewer candidates."""
    max_filter_chars: int = Field(default=2_000, gt=0, le=INT32_MAX)
    """Maximum length of a filter in characters."""
    max_filter_depth: int = Field(default=16, gt=0, le=32)
    """Maximum nesting of parentheses, `not` and signs in a filter."""
    max_return_attributes: int = Field(default=16, gt=0, le=64)
    """Maximum number of attributes that a request can ask for with the candidates."""
    max_query_items: int = Field(default=100, gt=0, le=10_000)
    """Maximum number of items in one query for similar items."""
    max_paged: int = Field(default=5_000, gt=0, le=10_000)
    """Maximum number of candidates of a user on all pages of a list together. Later pages search deeper."""
    max_at_most: int = Field(default=8, gt=0, le=64)
    """Maximum number of attributes in the rule at_most of a request."""
    max_diverse_top_k: int = Field(default=500, gt=0, le=2_000)
    """Maximum number of candidates per user of a request with diversity, which compares half as many items more."""
    max_boosts: int = Field(default=8, gt=0, le=64)
    """Maximum number of boosts of a request."""
    max_pins: int = Field(default=50, gt=0, le=1_000)
    """Maximum number of items that a request pins to the first places."""
    max_request_bytes: int = Field(default=4 * 1024 * 1024, gt=0, le=INT32_MAX)
    """Maximum size of a request message in bytes."""
    max_batch_users: int = Field(default=64, gt=0, le=INT32_MAX)
    """Maximum number of waiting users, of any requests, that are encoded and searched in one batch."""
    max_queued_users: int = Field(default=4_096, gt=0, le=INT32_MAX)
    """Maximum number of waiting users. More are refused with RESOURCE_EXHAUSTED and a time to retry."""
    search_workers: int = Field(default=2, gt=0, le=64)
    """Maximum batches of one kind in progress; twice as many in all. One more starts if half a full batch waits."""
    processes: int = Field(default=1, gt=0, le=256)
    """Server processes behind the address, each with its own queue and limits. More than one needs a Milvus server."""
    max_concurrent_requests: int = Field(default=256, gt=0, le=INT32_MAX)
    """Maximum number of requests in progress. More are refused with RESOURCE_EXHAUSTED and a time to retry."""
    max_connection_age_s: float = Field(default=0, ge=0, le=INT32_MAX / 1000)
    """Seconds (plus or minus 10 %) until a caller must reconnect, so that it finds added servers. 0 is never."""
    tls_cert: Path | None = None
    """PEM file with the server's certificate chain. It turns TLS on. Read again when it changes."""
    tls_key: Path | None = None
    """PEM file with the private key of --tls-cert."""
    tls_client_ca: Path | None = None
    """PEM file of certificate authorities. Callers then need a client certificate from one of them (mutual TLS)."""
    token_file: Path | None = None
    """File with one token per line. RecallService then needs one of them. Read again when it changes."""
    users: bool = False
    """Enable remembered users: UpsertUsers, FindSimilarUsers, DeleteUsers and user_id in Recall, for every caller."""
    max_stored_history: int = Field(default=500, gt=0, le=MAX_CAPACITY)
    """Number of newest ids to store per remembered user. The server stores at least as many as the model uses."""
    max_shown: int = Field(default=MAX_SHOWN, gt=0, le=MAX_SHOWN)
    """Number of newest items that count as shown to a remembered user, and maximum number of them in one update."""
    shown_ttl: float = Field(default=TTL_DAYS, gt=0, le=365)
    """Days after which an item that was shown to a user does not count as shown any more."""
    max_similar: int = Field(default=20_000, gt=0, le=25_000)
    """Maximum of users times top_k in one FindSimilarUsers. It keeps answers under gRPC's default limit of 4 MB."""
    admin_token_file: Path | None = None
    """File with one token per line. It enables AdminService, which needs one of them. Read again when it changes."""
    explain: bool = True
    """Enable Explain, which returns interest vectors and dropped hits."""
    feedback_log: str = ""
    """File that gets feedback (LogFeedback) as JSON lines, or - for standard output. Empty is off."""
    feedback_sample: float = Field(default=0.0, ge=0, le=1)
    """Share of the answers whose candidates are written to --feedback-log too."""
    reflection: bool = True
    """Let grpcurl and similar tools discover the service. This needs no token."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "INFO"
    """Lowest severity of messages to log."""
    log_format: Literal["text", "json"] = "text"
    """Format of log lines: text for people or JSON objects."""
    access_log: bool = False
    """Log every call, not only failed ones."""
    metrics_listen: str = ""
    """Address of /metrics for Prometheus, such as 0.0.0.0:9464. Empty is off. Further processes take the next ports."""
    recall_sample_rate: float = Field(default=0.001, ge=0, le=1)
    """Share of batches in which one user's candidates are compared with an exact search, for the metrics. 0 is off."""
    otlp_endpoint: str = ""
    """OpenTelemetry collector (OTLP, gRPC) for traces, such as http://localhost:4317. OTEL_* variables apply too."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels to serve, the default one first."""
        return self.channel or (LIVE,)

    @property
    def splits(self) -> dict[str, float]:
        """The share of each channel that requests are split to, in the order of the options."""
        return _shares(self.split)

    @property
    def shadows(self) -> dict[str, float]:
        """The share of requests that each shadow channel is asked."""
        return _shares(self.shadow)

    @model_validator(mode="after")
    def _usable_channels(self) -> Self:
        for number, name in enumerate(self.channel):
            if not is_channel(name):
                raise ValueError(f"channel is {name!r}: expected 1 to {MAX_NAME} of a-z, 0-9 and -, from a letter on")
            if name in self.channel[:number]:
                raise ValueError(f"channel is {name} twice")
        if len(self.channel) > MAX_CHANNELS:
            raise ValueError(f"channel is given {len(self.channel)} times, the limit is {MAX_CHANNELS}")
        self._check_shares("split", self.split, "gets what is left")
        self._check_shares("shadow", self.shadow, "is what it is compared with")
        if (total := sum(self.splits.values())) > 1 + 1e-9:
            raise ValueError(f"split is {total:g} for all channels together, the limit is 1")
        return self

    def _check_shares(self, option: str, given: tuple[str, ...], of_default: str) -> None:
        """Raise ValueError for a share that cannot be used. `of_default`: why the default channel has none."""
        default, *others = self.channels
        for number, text in enumerate(given):
            name, _, share = text.partition("=")
            if not re.fullmatch(r"(0|1|0?\.\d+|1\.0+)", share) or not 0 < float(share) <= 1:
                raise ValueError(f"{option} is {text!r}: expected a channel and a share of at most 1, such as b=0.1")
            if name not in others:
                rest = f"; {default} {of_default}" if name == default else ""
                raise ValueError(f"{option} is {text}: expected one of the other channels of the server{rest}")
            if name in (each.partition("=")[0] for each in given[:number]):
                raise ValueError(f"{option} is given twice for {name}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, needed in _TOGETHER:
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} is {getattr(self, name)}, but {needed} is not given; give both")
        if self.encoder == "cupy" and self.device == "cpu":
            raise ValueError("device is cpu, but encoder is cupy, which needs a GPU; take the encoder numpy")
        if self.processes > 1 and self.milvus_uri.endswith(".db"):
            raise ValueError(
                f"processes is {self.processes}: only one process can use a Milvus Lite file; use a Milvus server"
            )
        if self.processes > 1 and self.feedback_log == "-":
            raise ValueError(
                f"feedback_log is -, but processes is {self.processes}, which would mix lines; name a file"
            )
        if self.feedback_sample and not self.feedback_log:
            raise ValueError(f"feedback_sample is {self.feedback_sample:g}, but feedback_log is not given; give both")
        host, colon, port = self.listen.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65536):
            raise ValueError(f"listen is {self.listen!r}: expected host:port, port 0 to 65535")
        host, colon, port = self.metrics_listen.rpartition(":")
        if self.metrics_listen and not (host and port.isdecimal() and int(port) + self.processes - 1 < 65536):
            raise ValueError(
                f"metrics_listen is {self.metrics_listen!r}: expected host:port, with a port for each of "
                f"{self.processes} processes, up to 65535"
            )
        if self.otlp_endpoint and not re.fullmatch(r"https?://[^/]+/?", self.otlp_endpoint):
            raise ValueError(f"otlp_endpoint is {self.otlp_endpoint!r}: expected http(s)://host:port")
        if self.max_top_k > self.max_candidates:
            raise ValueError(
                f"max_top_k is {self.max_top_k}: it must not exceed max_candidates, which is {self.max_candidates}"
            )
        return self

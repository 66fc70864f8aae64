"""All that the blocking and the asyncio client have in common: requests, splitting, deadlines, channel settings.

Never makes a call and never waits; the two clients differ in nothing else.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import grpc

from protos.recall.v1 import admin_pb2_grpc, recall_pb2, recall_pb2_grpc

History = Sequence[int] | recall_pb2.User
MergeStrategyName = Literal["best_score", "round_robin"]

_MERGE_STRATEGIES: dict[str, recall_pb2.MergeStrategy] = {
    "best_score": recall_pb2.MERGE_STRATEGY_BEST_SCORE,
    "round_robin": recall_pb2.MERGE_STRATEGY_ROUND_ROBIN,
}

# Every call of this service only reads, so a second attempt is harmless; AdminService is left out on purpose.
# A server that sends grpc-retry-pushback-ms sets the pause itself.
SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "recall.v1.RecallService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # CANCELLED is what gRPC itself answers to a call that reaches a server in its last moment.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ],
    # A failure takes one token, an answer gives back a tenth; at half or less nothing is retried, so that a dying
    # server is not stormed.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# grpc.health.v1.Health/Check, spoken in bytes: the empty request asks about the whole server, and the answer
# is one enum field whose value 1 means SERVING. Saves callers the grpcio-health-checking package.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_REQUEST = b""
HEALTH_SERVING = b"\x08\x01"


@dataclass(frozen=True)
class RecallResult:
    """The answer for a whole batch, however many requests it took."""

    results: list[recall_pb2.UserCandidates]
    """One for each history, in the same order."""
    model_versions: tuple[str, ...]
    """Models that answered, in order of appearance. More than one: a release happened between two requests of the
    batch, and scores of different users do not compare."""
    collections: tuple[str, ...]
    """Their collections."""
    timings: tuple[recall_pb2.StageTimings, ...]
    """Where the time went in the server, one for each request."""


def join_responses(responses: Sequence[recall_pb2.RecallResponse]) -> RecallResult:
    """Answers to the requests of one batch, in the order of the requests, as one."""
    return RecallResult(
        results=[candidates for response in responses for candidates in response.results],
        model_versions=tuple(dict.fromkeys(response.model_version for response in responses)),
        collections=tuple(dict.fromkeys(response.collection for response in responses)),
        timings=tuple(response.timings for response in responses),
    )


def channel_options() -> list[tuple[str, str | int]]:
    """gRPC channel arguments that both clients use; a caller who brings a channel may want them too."""
    return [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        # A request larger than this buffer, 256 KiB by default, would never be tried again.
        ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        # A server that is back is noticed within a second: another may go as soon as the first has come.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Finds a dead peer in five seconds while a call waits. No pings between calls: stock servers hang up on them.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
    ]


@dataclass(frozen=True)
class Deadline:
    """A point in time that several requests may share."""

    at_s: float
    """Seconds of `time.monotonic()`."""

    @classmethod
    def after(cls, timeout_s: float) -> Self:
        """The deadline `timeout_s` seconds from now."""
        _check_timeout(timeout_s)
        return cls(time.monotonic() + timeout_s)

    def remaining_s(self) -> float:
        """Seconds left, 0 when it passed; gRPC answers a call with 0 left with DEADLINE_EXCEEDED and sends nothing."""
        return max(0.0, self.at_s - time.monotonic())


class ClientCore:
    """What a client holds between calls. Thread-safe, like the channel under it."""

    _transport: ClassVar[Any]  # the module grpc or grpc.aio; both open channels in the same words

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout_s: float | None = None,
        tls: bool | str | Path = False,
        client_cert: tuple[str | Path, str | Path] | None = None,
        token: str | None = None,
        max_users: int = 256,
        max_candidates: int = 150_000,
        channel: Any = None,
    ) -> None:
        """Connects on the first call.

        Args:
            target: `host:port`, or any gRPC target; calls are spread over all its addresses.
            timeout_s: deadline of calls that name none.
            tls: True trusts the system's authorities, a path the PEM file of your own.
            client_cert: PEM files of the client's certificate and its key, for mutual TLS.
            token: sent as `authorization: Bearer <token>`. Without TLS it travels in the clear.
            max_users: users in one request; larger batches are split. GetServerInfo tells the server's limit.
            max_candidates: users times top_k in one request, likewise.
            channel: use this channel instead of opening one; it stays the caller's to close.
        """
        if timeout_s is not None:
            _check_timeout(timeout_s)
        self._timeout_s = timeout_s
        self._max_users = max_users
        self._max_candidates = max_candidates
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._owns_channel = channel is None
        self._channel = self._open_channel(target, tls, client_cert) if channel is None else channel
        self._recall = recall_pb2_grpc.RecallServiceStub(self._channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(self._channel)
        self._health_check = self._channel.unary_unary(_HEALTH_CHECK)

    @classmethod
    def _open_channel(
        cls, target: str, tls: bool | str | Path, client_cert: tuple[str | Path, str | Path] | None
    ) -> Any:
        if not tls:
            if client_cert:
                raise ValueError("client_cert needs tls")
            return cls._transport.insecure_channel(target, options=channel_options())
        certificate, key = (Path(path).read_bytes() for path in client_cert) if client_cert else (None, None)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=None if tls is True else Path(tls).read_bytes(),
            private_key=key,
            certificate_chain=certificate,
        )
        return cls._transport.secure_channel(target, credentials, options=channel_options())

    def _deadline(self, timeout_s: float | None) -> Deadline:
        if timeout_s is None:
            timeout_s = self._timeout_s
        if timeout_s is None:
            raise TypeError("timeout_s is required: pass it to the call, or to the constructor for all calls")
        return Deadline.after(timeout_s)

    def _recall_requests(
        self,
        histories: Sequence[History],
        top_k: int,
        filter: str,  # noqa: A002
        exclude_history: bool,
        exclude_item_ids: Sequence[Sequence[int]] | None,
        merge_strategy: str,
    ) -> list[recall_pb2.RecallRequest]:
        """The batch in as few requests as the limits allow; at least one, so that the server judges an empty batch."""
        if exclude_item_ids is None:
            exclude_item_ids = [()] * len(histories)
        if len(exclude_item_ids) != len(histories):
            raise ValueError(f"exclude_item_ids has {len(exclude_item_ids)} lists for {len(histories)} histories")
        users = [_user(*pair) for pair in zip(histories, exclude_item_ids, strict=True)]
        size = max(1, min(self._max_users, self._max_candidates // max(1, top_k)))
        return [
            recall_pb2.RecallRequest(
                users=users[start : start + size],
                top_k=top_k,
                filter=filter,
                exclude_history=exclude_history,
                merge_strategy=_merge_strategy(merge_strategy),
            )
            for start in range(0, max(1, len(users)), size)
        ]

    def _explain_request(
        self,
        history: History,
        top_k: int,
        filter: str,  # noqa: A002
        exclude_history: bool,
        exclude_item_ids: Sequence[int],
        merge_strategy: str,
    ) -> recall_pb2.ExplainRequest:
        return recall_pb2.ExplainRequest(
            user=_user(history, exclude_item_ids),
            top_k=top_k,
            filter=filter,
            exclude_history=exclude_history,
            merge_strategy=_merge_strategy(merge_strategy),
        )


def _user(history: History, exclude_item_ids: Sequence[int]) -> recall_pb2.User:
    if not isinstance(history, recall_pb2.User):
        return recall_pb2.User(hist_item=history, exclude_item_ids=exclude_item_ids)
    if len(exclude_item_ids):
        raise ValueError("exclude_item_ids goes with plain histories; a User message carries its own")
    return history


def _merge_strategy(name: str) -> recall_pb2.MergeStrategy:
    if name not in _MERGE_STRATEGIES:
        raise ValueError(f"merge_strategy is {name!r}, must be one of {', '.join(_MERGE_STRATEGIES)}")
    return _MERGE_STRATEGIES[name]


def _check_timeout(timeout_s: float) -> None:
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout_s is {timeout_s}, must be a positive number of seconds")

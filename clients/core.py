"""Everything that the blocking and the asyncio client share: requests, splitting, deadlines, channel settings.

This module never makes a call and never waits. The two clients differ only in that.
"""

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import grpc

from clients.attributes import attributes_of
from clients.errors import RecallError, from_rpc_error
from clients.ids import ItemIds, fill, ids_of
from clients.proxies import is_local, proxy_of
from clients.requests import (
    MAX_HISTORY,
    MAX_REQUEST_BYTES,
    NO_RULES,
    History,
    MergeStrategyName,
    NeighboursName,
    merge_strategy_of,
    neighbours_of,
    split,
    updates_of,
    user_of,
    users_of,
)
from clients.similar import ItemQuery, similar_requests
from clients.statuses import UserStatus
from protos.recall.v1 import admin_pb2_grpc, recall_pb2, recall_pb2_grpc

__all__ = ["History", "MergeStrategyName", "NeighboursName"]

_BACKOFF: dict[str, Any] = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
}
# Calls of this service only read or delete, so a second attempt is harmless. UpsertUsers may append: it is tried again
# only if the server turned it away before it did anything, or a click might count twice. AdminService is left out on
# purpose. A server that sends grpc-retry-pushback-ms sets the pause itself.
SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "recall.v1.RecallService"}],
            # CANCELLED is what gRPC itself answers to a call that reaches a server in its last moment.
            "retryPolicy": _BACKOFF | {"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"]},
        },
        {
            "name": [{"service": "recall.v1.RecallService", "method": "UpsertUsers"}],
            "retryPolicy": _BACKOFF | {"retryableStatusCodes": ["RESOURCE_EXHAUSTED"]},
        },
    ],
    # A failure takes one token, an answer gives back a tenth. At half or less nothing is retried, so that
    # retries do not overload a failing server.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

# grpc.health.v1.Health/Check in bytes: the answer is one enum field whose value 1 means SERVING. So callers do
# not need the grpcio-health-checking package.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_SERVING = b"\x08\x01"
_MAX_HEALTH_SERVICE_BYTES = 127
"""Longest name of a health service whose length is one byte in a message."""


def health_request(service: str) -> bytes:
    """A HealthCheckRequest about a service, or about the whole server if the name is empty. Raises ValueError."""
    name = service.encode()
    if len(name) > _MAX_HEALTH_SERVICE_BYTES:
        raise ValueError(f"service has {len(name)} bytes, expected {_MAX_HEALTH_SERVICE_BYTES} at most")
    return b"\x0a" + bytes([len(name)]) + name if name else b""


@dataclass(frozen=True)
class RecallResult:
    """The answer to a batch. A large batch takes several requests, whose answers are joined."""

    results: list[recall_pb2.UserCandidates]
    """One for each history, in the same order."""
    model_versions: tuple[str, ...]
    """Models that answered, in order of appearance. There are several if a new model was released between two requests
    of the batch. Do not compare the scores of different users then."""
    collections: tuple[str, ...]
    """The collections of these models."""
    timings: tuple[recall_pb2.StageTimings, ...]
    """How long each stage took in the server, for each request."""
    attributes_detail: str = ""
    """Why attributes are left out of the answer to some of the requests. Empty if all are there."""
    next_page_token: bytes = b""
    """For `page_token` of the same call, which continues the lists. Empty if no pages were asked for or if they end."""
    channels: tuple[str, ...] = ()
    """The channels whose releases answered, in order of appearance."""

    @property
    def recall_ids(self) -> list[str]:
        """The id of each user's list, for `log_feedback`; empty unless the server logs feedback."""
        return [candidates.recall_id for candidates in self.results]

    @property
    def item_ids(self) -> list[list[int]] | list[list[str]]:
        """The item ids of each user's candidates, best first. They are integers or text, as in the release."""
        return [ids_of(candidates, "item_ids") for candidates in self.results]

    @property
    def attributes(self) -> list[dict[str, list[Any]]]:
        """The attributes of each user's candidates (`clients.attributes_of`)."""
        return [attributes_of(candidates) for candidates in self.results]

    @property
    def statuses(self) -> tuple[UserStatus, ...]:
        """The status of each user. It prints as its name."""
        return tuple(UserStatus(candidates.status) for candidates in self.results)


def join_responses(responses: Sequence[recall_pb2.RecallResponse]) -> RecallResult:
    """Join the answers to the requests of one batch, in the order of the requests."""
    return RecallResult(
        results=[candidates for response in responses for candidates in response.results],
        model_versions=tuple(dict.fromkeys(response.model_version for response in responses)),
        collections=tuple(dict.fromkeys(response.collection for response in responses)),
        timings=tuple(response.timings for response in responses),
        channels=tuple(dict.fromkeys(response.channel for response in responses)),
        next_page_token=responses[-1].next_page_token,
        attributes_detail=next((one.attributes_detail for one in responses if one.attributes_detail), ""),
    )


def channel_options(target: str = "") -> list[tuple[str, str | int]]:
    """The gRPC channel arguments that both clients use. Use them if you bring a channel of your own.

    Args:
        target: where the channel goes. A target on this machine is never called through a proxy.
    """
    return [
        ("grpc.enable_http_proxy", int(not (target and is_local(target)))),
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
        """Seconds left, 0 after the deadline. gRPC then answers with DEADLINE_EXCEEDED and sends nothing."""
        return max(0.0, self.at_s - time.monotonic())


class Stubs:
    """The methods of the service over one channel."""

    def __init__(self, channel: Any) -> None:
        """Prepare the methods. `channel`: of the module grpc or grpc.aio."""
        self.channel = channel
        self.recall = recall_pb2_grpc.RecallServiceStub(channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(channel)
        self.health_check = channel.unary_unary(_HEALTH_CHECK)


class ClientCore:
    """The state of a client between calls. It is thread-safe, like its channel."""

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
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_history: int = MAX_HISTORY,
        channel: Any = None,
    ) -> None:
        """Make a client. It connects on the first call.

        Args:
            target: `host:port`, or any other gRPC target. Calls are spread over all addresses of the name.
            timeout_s: the deadline of calls that have no `timeout_s` of their own.
            tls: True uses TLS and trusts the authorities of the system. A path names a PEM file with your own.
            client_cert: PEM files with the client's certificate and its key, for mutual TLS.
            token: is sent as `authorization: Bearer <token>`. Without TLS, everybody on the network can read it.
            max_users: most users in one request. Larger batches are split. GetServerInfo tells the server's limit.
            max_candidates: most users times top_k in one request. Larger batches are split. Each attribute that is
                returned counts as another candidate.
            max_request_bytes: most bytes of one request, as the server's option `--max-request-bytes`. Larger batches
                are split.
            max_history: most ids of a history that are sent, the newest ones. The model looks at fewer (`maxlen` of
                GetServerInfo). `exclude_history` leaves out only what was sent. A ready `User` is sent as it is.
            channel: is used instead of a channel of the client's own. The caller closes it.

        Raises:
            ValueError: `timeout_s` is not positive, or `client_cert` is given without `tls`.
            OSError: a file of certificates cannot be read.
        """
        if timeout_s is not None:
            _check_timeout(timeout_s)
        self._target = target
        self._timeout_s = timeout_s
        self._max_users = max_users
        self._max_candidates = max_candidates
        self._max_request_bytes = max_request_bytes
        self._max_history = max_history
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = _credentials(tls, client_cert)
        self._given = Stubs(channel) if channel is not None else None
        self._opening = threading.Lock()
        self._opened: WeakKeyDictionary[object, Stubs] = WeakKeyDictionary()

    def _owner(self) -> object:
        """The object that a channel belongs to, and ends with."""
        raise NotImplementedError

    def _stubs(self) -> Stubs:
        """Return the methods over the channel of `_owner`, which is opened if there is none."""
        if self._given:
            return self._given
        owner = self._owner()
        with self._opening:
            if owner not in self._opened:
                self._opened[owner] = self._open()
            return self._opened[owner]

    def _taken(self) -> Stubs | None:
        """Return the methods over the channel of `_owner`, and forget them; None if there is none to close."""
        with self._opening:
            return self._opened.pop(self._owner(), None)

    def _options(self) -> list[tuple[str, str | int]]:
        return channel_options(self._target)

    def _open(self) -> Stubs:
        options = self._options()
        if self._credentials is None:
            return Stubs(self._transport.insecure_channel(self._target, options=options))
        return Stubs(self._transport.secure_channel(self._target, self._credentials, options=options))

    def _failed(self, error: grpc.RpcError) -> RecallError:
        """Return our exception for a failed call."""
        if self._given:
            return from_rpc_error(error)
        return from_rpc_error(error, self._target, proxy_of(self._target, os.environ))

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
        exclude_item_ids: Sequence[ItemIds] | None,
        merge_strategy: str,
        neighbours: str = "default",
        return_attributes: Sequence[str] = (),
        rules: Mapping[str, Any] = NO_RULES,
        exclude_shown: bool = False,
        paged: bool = False,
        page_token: bytes = b"",
        channel: str = "",
        split_key: str = "",
    ) -> list[recall_pb2.RecallRequest]:
        """Split the batch into as few requests as the limits allow. The server judges an empty batch, as one request.

        Pages are one request, because there is one token.
        """
        users = users_of(histories, exclude_item_ids, self._max_history)
        most = self._most_users(top_k, return_attributes)
        whole = paged or page_token
        return [
            recall_pb2.RecallRequest(
                users=part,
                top_k=top_k,
                filter=filter,
                exclude_history=exclude_history,
                merge_strategy=merge_strategy_of(merge_strategy),
                neighbours=neighbours_of(neighbours),
                return_attributes=return_attributes,
                exclude_shown=exclude_shown,
                paged=paged,
                page_token=page_token,
                channel=channel,
                split_key=split_key,
                **rules,
            )
            for part in ([users] if whole else split(users, most, self._max_request_bytes, filter))
        ]

    def _explain_request(
        self,
        history: History,
        top_k: int,
        filter: str,  # noqa: A002
        exclude_history: bool,
        exclude_item_ids: ItemIds,
        merge_strategy: str,
        neighbours: str = "default",
        return_attributes: Sequence[str] = (),
        rules: Mapping[str, Any] = NO_RULES,
        exclude_shown: bool = False,
        channel: str = "",
        split_key: str = "",
    ) -> recall_pb2.ExplainRequest:
        return recall_pb2.ExplainRequest(
            user=user_of(history, exclude_item_ids, self._max_history),
            top_k=top_k,
            filter=filter,
            exclude_history=exclude_history,
            merge_strategy=merge_strategy_of(merge_strategy),
            neighbours=neighbours_of(neighbours),
            return_attributes=return_attributes,
            exclude_shown=exclude_shown,
            channel=channel,
            split_key=split_key,
            **rules,
        )

    def _items_request(
        self, item_ids: ItemIds, return_attributes: Sequence[str], channel: str
    ) -> recall_pb2.GetItemsRequest:
        request = recall_pb2.GetItemsRequest(return_attributes=return_attributes, channel=channel)
        fill(request, "item_ids", item_ids, "item_ids")
        return request

    def _upsert_request(
        self,
        hist_item: Mapping[str, ItemIds] | recall_pb2.UpsertUsersRequest | None,
        append_item_ids: Mapping[str, ItemIds] | None,
        events: Mapping[str, Sequence[str]] | None = None,
        shown_item_ids: Mapping[str, ItemIds] | None = None,
        channel: str = "",
    ) -> recall_pb2.UpsertUsersRequest:
        request = updates_of(hist_item, append_item_ids, self._max_history, events, shown_item_ids)
        if channel and request.channel != channel:
            if request is hist_item:
                raise ValueError("channel goes with plain histories; a ready request carries its own")
            request.channel = channel
        return request

    def _feedback_request(
        self, kind: str, item_ids: ItemIds, user_id: str, recall_id: str, time_ms: int | None, channel: str
    ) -> recall_pb2.LogFeedbackRequest:
        at_ms = int(time.time() * 1000) if time_ms is None else time_ms
        request = recall_pb2.LogFeedbackRequest(
            kind=kind, user_id=user_id, recall_id=recall_id, time_ms=at_ms, channel=channel
        )
        fill(request, "item_ids", item_ids, "item_ids")
        return request

    def _similar_items_requests(
        self,
        queries: Sequence[ItemQuery],
        exclude_item_ids: Sequence[ItemIds] | None,
        top_k: int,
        return_attributes: Sequence[str],
        **how: str,
    ) -> list[recall_pb2.SimilarItemsRequest]:
        most = self._most_users(top_k, return_attributes)
        limits = most, self._max_request_bytes
        options: dict[str, Any] = {"top_k": top_k, "return_attributes": return_attributes} | how
        return similar_requests(queries, exclude_item_ids, *limits, **options)

    def _most_users(self, top_k: int, return_attributes: Sequence[str]) -> int:
        """Return how many users, or queries, one request may have."""
        values = max(1, top_k) * (1 + len(return_attributes))
        return max(1, min(self._max_users, self._max_candidates // values))

    def _similar_request(
        self, users: Sequence[History], top_k: int, channel: str = ""
    ) -> recall_pb2.FindSimilarUsersRequest:
        messages = users_of(users, None, self._max_history, "users")
        return recall_pb2.FindSimilarUsersRequest(users=messages, top_k=top_k, channel=channel)


def _credentials(tls: bool | str | Path, client_cert: tuple[str | Path, str | Path] | None) -> Any:
    """Return the credentials of gRPC for TLS; None without TLS."""
    if not tls:
        if client_cert:
            raise ValueError("client_cert needs tls")
        return None
    certificate, key = (Path(path).read_bytes() for path in client_cert) if client_cert else (None, None)
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls is True else Path(tls).read_bytes(),
        private_key=key,
        certificate_chain=certificate,
    )


def _check_timeout(timeout_s: float) -> None:
    if not 0 < timeout_s < math.inf:
        raise ValueError(f"timeout_s is {timeout_s}, must be a positive number of seconds")

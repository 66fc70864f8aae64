"""Turns errors of pymilvus and gRPC into ours.

The codes and messages are those of Milvus Lite, of Milvus 2.3.5, and of its successors (their pkg/util/merr/errors.go).
"""

import re
from typing import Any

import grpc
from pymilvus import MilvusException

from mind.milvus.errors import (
    CollectionGoneError,
    FilterError,
    StoreDeniedError,
    StoreError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from mind.milvus.records import KEY, RECORDS

_MISSING = (100, 1600, 1603)
"""Codes of a collection or an alias that does not exist; 1603, of an alias without a collection, came after 2.3."""
_NOT_LOADED = 101
_AWAY = (2, _NOT_LOADED, 103, 106, 503)
"""Codes for what cannot be used now: dead, not loaded, partly loaded, recovering (after 2.3), channel not available."""
_BAD_PARAMETER, _LITE_BAD_FILTER = 1100, 6
_LONGEST_REASON = 300
_SILENT = re.compile(
    "unavailable|retry timeout|retry run out|context (canceled|deadline|done)|shard leader"
    "|(channel|collection|segment|node) not found"  # a query node that was just told to release it
    "|service not ready|(rate|request) limit exceeded|too many concurrent requests",  # retriable, says Milvus
    re.IGNORECASE,
)
"""Messages that mean that Milvus cannot answer now. Their codes also have other meanings."""


_EARLIER_RECORDS = f"field {KEY} not exist"
"""The message of Milvus for a collection of release records without revisions."""
_UNFINISHED = re.compile(r"wait for (flush|loading \w+) timeout", re.IGNORECASE)
"""The message of pymilvus for work that Milvus began and did not finish in time."""
_UNREACHED = re.compile(
    "connection refused|no route to host|network is unreachable|name or service not known|dns resolution failed"
    "|domain name not found|illegal connection params or server unavailable",
    re.IGNORECASE,
)
"""The messages of gRPC and pymilvus for a server that they cannot connect to."""
_THIS_MACHINE = re.compile(r"https?://(localhost|127\.|\[::1\])")


def unreached(shown: str, message: str) -> str:
    """Say that no Milvus was reached at an address, and what starts one; empty if the message has another cause.

    Args:
        shown: the address, without credentials.
        message: the message of gRPC or pymilvus.
    """
    cause = _UNREACHED.search(message)
    if cause is None:
        return ""
    start = "; `make milvus` starts one" if _THIS_MACHINE.match(shown) else ""
    return f"no Milvus answers at {shown} ({cause[0].lower()}){start}"


def is_missing(error: MilvusException) -> bool:
    """Return whether the error means that a collection or an alias does not exist."""
    return error.code in _MISSING


def kind_of(code: Any, message: str) -> type[StoreError]:
    """Return the type of our error for an error of Milvus. `code` is Milvus' number or a `grpc.StatusCode`."""
    if code in _MISSING:
        return CollectionGoneError
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return StoreDeniedError
    # A Milvus that has just started says "not loaded" of collections that it is about to load.
    away = isinstance(code, grpc.StatusCode) or code in _AWAY or _SILENT.search(message)
    return StoreUnavailableError if away else StoreError


def translated(code: Any, message: str, filter_: str = "") -> StoreError | FilterError:
    """Turn an error of Milvus into our error. The message has no addresses, because callers of the server see it.

    Args:
        code: Milvus' number, or a `grpc.StatusCode`.
        message: the message of Milvus.
        filter_: the filter of the call, if it had one.
    """
    reason, kind = _told(message), kind_of(code, message)
    if filter_ and (code in (_LITE_BAD_FILTER, _BAD_PARAMETER) or "expression" in message):
        return FilterError(f"Milvus cannot use {filter_[:100]!r}: {reason}")
    if kind is CollectionGoneError or code == _NOT_LOADED:
        return kind(f"Milvus: {reason}")
    if kind is StoreUnavailableError:
        return kind(f"Milvus does not answer: {reason}")
    if kind is StoreDeniedError:
        return kind(f"Milvus refuses the call: {reason}")
    return kind(f"Milvus (code {code}): {reason}")


def explained(error: BaseException, attempt: str, limit: str) -> StoreError:
    """Turn an error of pymilvus or gRPC during a blocking call into our error.

    Args:
        error: a MilvusException or a gRPC error.
        attempt: what was tried, such as "localhost: cannot load items_1".
        limit: the time limit of the call, such as "30 s (--timeout-s)".
    """
    rpc = error.__cause__ if isinstance(error.__cause__, grpc.Call) else error
    if isinstance(rpc, grpc.Call):
        if rpc.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return StoreTimeoutError(f"{attempt}: Milvus did not answer within {limit}")
        return kind_of(rpc.code(), "")(f"{attempt}: {bounded(rpc.details() or rpc.code().name)}")
    if not isinstance(error, MilvusException):
        return StoreError(f"{attempt}: {bounded(str(error))}")
    if unfinished := _UNFINISHED.search(error.message):
        says = bounded(error.message[unfinished.start() :])
        return StoreTimeoutError(f"{attempt}: Milvus did not finish within {limit}; see its log ({says})")
    return kind_of(error.code, error.message)(f"{attempt}: {_told(error.message)}")


def _told(message: str) -> str:
    """Return the part of a message of Milvus that users see."""
    if _EARLIER_RECORDS in message:
        return (
            f"the collection {RECORDS} was made by an unreleased build of this version and cannot be read: drop it in "
            "Milvus, then build and publish again"
        )
    return bounded(message)


def bounded(text: str) -> str:
    """Shorten a message of Milvus to one line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"

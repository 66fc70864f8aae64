"""Decodes requests after the door admitted their calls, so that refused calls cost no decoding.

Refuses broken messages.

By itself, grpc.aio would answer a broken message with UNKNOWN and the name of a Python class, and log a traceback.
"""

import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from server.errors import InvalidRequestError

LARGE = 64 * 1024
"""Size in bytes from which a request is decoded in parts of about this size, which take 0.3 ms each."""
OTHER_FIELDS = 1_200
"""Maximum number of fields of a request besides its users: 1,000 items of LogFeedback, or names and rules."""


def decoder(method: MethodDescriptor, max_users: int) -> Callable[[bytes], Any]:
    """Return a function that decodes the method's requests.

    It raises InvalidRequestError for bytes that are not a request.

    A large message is decoded in parts, which are merged, because no other thread runs while protobuf decodes.

    `max_users`: a large request with more users is refused before it is decoded. Two million empty users are 4 MB when
    sent and 110 MB when decoded, and decoding would block the server.
    """
    kind: Any = GetMessageClass(method.input_type)

    def decode_large(request: bytes) -> Any:
        ends = _ends_of_fields(request, max_users + OTHER_FIELDS)
        if len(ends) > max_users + OTHER_FIELDS:
            why = f"has more than {max_users} users, the limit is {max_users}"
            raise InvalidRequestError("request", why, "TOO_MANY_USERS")
        message, start = kind(), 0
        for end in ends:
            if end - start >= LARGE:
                message.MergeFromString(request[start:end])
                start = end
        message.MergeFromString(request[start:])
        return message

    def decode(request: bytes) -> Any:
        try:
            return decode_large(request) if len(request) > LARGE else kind.FromString(request)
        except DecodeError as error:
            raise InvalidRequestError(
                "request", f"{len(request)} bytes that are no {method.input_type.full_name}", "MALFORMED"
            ) from error

    return decode


def _ends_of_fields(request: bytes, most: int) -> list[int]:
    """Return the positions at which the top-level fields of a message end, for at most `most` fields and one more.

    A malformed message gives the ends up to its fault.
    """
    ends: list[int] = []
    at = 0
    try:
        while at < len(request) and len(ends) <= most:
            tag, at = _varint(request, at)
            match tag & 7:  # the wire type
                case 0:
                    _, at = _varint(request, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(request, at)
                    at += size
                case 5:
                    at += 4
            ends.append(at)
    except IndexError:
        pass
    return ends


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number in a message, and the position at which it ends. Raises IndexError if it does not end."""
    value = shift = 0
    while (byte := message[at]) & 0x80:
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | byte << shift, at + 1


def keep_quiet_about_callers() -> None:
    """Keep grpc.aio from logging a traceback for each caller that leaves before its answer."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    return type(error).__name__ != "ExecuteBatchError"


def register(service: Any, methods: ServiceDescriptor, server: grpc.aio.Server) -> None:
    """Add a servicer to a server as generated code does, but with bytes for requests and answers.

    Its methods get an iterator of requests, which they do not use. They receive requests with `server.edge.receiving`.
    For callers nothing is different.
    """
    handlers: dict[str, Any] = {}
    for method in methods.methods:
        kind = (
            grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
        )
        handlers[method.name] = kind(getattr(service, method.name))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(methods.full_name, handlers),))
    server.add_registered_method_handlers(methods.full_name, handlers)

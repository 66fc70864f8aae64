"""Decodes requests behind the door, so that calls that are turned away cost no decoding, and refuses broken messages.

grpc.aio would answer a broken message with UNKNOWN and the name of a Python class, and log a traceback.
"""

import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from server.errors import InvalidRequestError


def decoder(method: MethodDescriptor) -> Callable[[bytes], Any]:
    """A function that decodes the method's requests, and raises InvalidRequestError for bytes that are no request."""
    kind: Any = GetMessageClass(method.input_type)

    def decode(request: bytes) -> Any:
        try:
            return kind.FromString(request)
        except DecodeError as error:
            raise InvalidRequestError(
                "request", f"{len(request)} bytes that are no {method.input_type.full_name}", "MALFORMED"
            ) from error

    return decode


def keep_quiet_about_callers() -> None:
    """Keep grpc.aio from logging a traceback for each caller that leaves before its answer."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    return type(error).__name__ != "ExecuteBatchError"


def register(service: Any, methods: ServiceDescriptor, server: grpc.aio.Server) -> None:
    """Add a servicer to a server as generated code does, except for requests and bytes.

    Its methods get an iterator of requests, which they leave alone, and receive the requests by
    `server.edge.receiving`. Requests and answers are bytes. For callers nothing differs.
    """
    handlers: dict[str, Any] = {}
    for method in methods.methods:
        kind = (
            grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
        )
        handlers[method.name] = kind(getattr(service, method.name))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(methods.full_name, handlers),))
    server.add_registered_method_handlers(methods.full_name, handlers)

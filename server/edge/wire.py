"""Messages to bytes and back, behind the door: what is turned away is never decoded, and what is no message is refused.

Left to grpc.aio, a broken message would be UNKNOWN with the name of a Python class, and a traceback in the log.
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
    """Makes the method's request of bytes; raises InvalidRequestError if they are none."""
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
    """Broken messages to health and reflection, which are gRPC's own, and callers that leave before their answer.

    For each grpc.aio would log a traceback, at a hostile caller's pace.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    return not (isinstance(error, DecodeError) or type(error).__name__ == "ExecuteBatchError")


def register(service: Any, methods: ServiceDescriptor, server: grpc.aio.Server) -> None:
    """What generated code does to add a servicer, but its methods take and give bytes."""
    handlers: dict[str, Any] = {
        method.name: grpc.unary_unary_rpc_method_handler(getattr(service, method.name)) for method in methods.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(methods.full_name, handlers),))
    server.add_registered_method_handlers(methods.full_name, handlers)

"""Protobuf messages as plain data for JSON.

Unlike `json_format`, 64-bit ids stay numbers, nothing is left out, and ids of either kind have one field. Each
attribute of candidates has one list. Bytes are base64.
"""

import base64
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from clients.attributes import one_list
from clients.ids import one_field


def to_plain(message: Message) -> dict[str, Any]:
    """Return every field under its protobuf name; enums by name. Text ids, too, are in the fields of integers."""
    plain = _fields(message)
    one_field(plain)
    one_list(plain)
    return plain


def _fields(message: Message) -> dict[str, Any]:
    return {field.name: _plain_value(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain_value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return _fields(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, bool | int | float | str):
        return [_plain_value(field, item) for item in value]
    if isinstance(value, float):
        return _short_float(value) if field.type == FieldDescriptor.TYPE_FLOAT else value
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value  # a newer server may know more
    return value


def _short_float(value: float) -> float:
    """Return the shortest number that reads back as the same float32: 0.1 and not 0.10000000149011612."""
    short = float(f"{value:.7g}")
    return short if struct.pack("f", short) == struct.pack("f", value) else float(f"{value:.9g}")

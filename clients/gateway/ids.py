"""Item ids in JSON. JavaScript rounds integers beyond 2^53, so requests may give ids as numbers or as strings."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

INT64_STRING = {"type": "string", "format": "int64"}
"""The JSON schema of ids in the answers of /v1. They are strings, as in protobuf's JSON."""
_DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_EXACT = 2**53


def _item_id(value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    try:
        return whole(value)
    except ValueError:
        raise ValueError("must be a 64-bit integer, as a number or a string of digits") from None


def whole(value: Any) -> int:
    """Read a whole number. JSON has only one kind of number, so 5.0 is accepted as 5. Raises ValueError."""
    if type(value) is int or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT):
        return int(value)
    raise ValueError("must be a whole number")


ItemId = Annotated[
    int,
    Field(ge=-(2**63), le=2**63 - 1),
    BeforeValidator(_item_id),
    WithJsonSchema({"anyOf": [{"type": "integer", "format": "int64"}, INT64_STRING]}),
]
"""The type of an item id in a request."""

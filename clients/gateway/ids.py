"""Item ids in JSON. JavaScript rounds integers beyond 2^53, so ids are taken as numbers or strings."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

INT64_STRING = {"type": "string", "format": "int64"}
"""How ids go out in /v1, as in protobuf's own JSON."""
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
    """A whole number; JSON has one kind of number, so 5.0 is 5. Raises ValueError."""
    if type(value) is int or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT):
        return int(value)
    raise ValueError("must be a whole number")


ItemId = Annotated[
    int,
    Field(ge=-(2**63), le=2**63 - 1),
    BeforeValidator(_item_id),
    WithJsonSchema({"anyOf": [{"type": "integer", "format": "int64"}, INT64_STRING]}),
]
"""An id in a request."""

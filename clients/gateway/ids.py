"""Item ids in JSON. JavaScript rounds integers beyond 2^53, so ids are taken as numbers or strings."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

INT64_STRING = {"type": "string", "format": "int64"}
"""How ids go out in /v1, as in protobuf's own JSON."""
_DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_EXACT = 2**53


def _integer(value: Any) -> int:
    exact = isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT
    digits = isinstance(value, str) and _DIGITS.fullmatch(value)
    if exact or digits or type(value) is int:
        return int(value)
    raise ValueError("must be a 64-bit integer, as a number or a string of digits")


ItemId = Annotated[
    int,
    Field(ge=-(2**63), le=2**63 - 1),
    BeforeValidator(_integer),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, INT64_STRING]}),
]
"""An id in a request."""

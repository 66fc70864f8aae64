"""Item ids in JSON: strings where the release has text ids, else integers.

JavaScript rounds integers beyond 2^53, so requests may give integers as numbers or as strings of digits, and answers
have strings. Only the release tells whether "42" is text or an integer.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi.exceptions import RequestValidationError
from pydantic import PlainValidator, WithJsonSchema

from clients.ids import MAX_KEY_BYTES, ItemIds

INT64_STRING = {"type": "string", "format": "int64"}
"""The JSON schema of 64-bit integers in the answers of /v1. They are strings, as in protobuf's JSON."""
_DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_EXACT = 2**53
_INTEGER_FAULT = "must be a 64-bit integer, as a number or a string of digits"


def whole(value: Any) -> int:
    """Read a whole number. JSON has only one kind of number, so 5.0 is accepted as 5. Raises ValueError."""
    if type(value) is int or (isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT):
        return int(value)
    raise ValueError("must be a whole number")


def _given(value: Any) -> int | str:
    """Read an id of either kind. Raises ValueError."""
    if isinstance(value, str):
        if not 1 <= len(value.encode(errors="surrogatepass")) <= MAX_KEY_BYTES:
            raise ValueError(f"must have 1 to {MAX_KEY_BYTES} bytes of UTF-8")
        return text(value)
    try:
        number = whole(value)
    except ValueError:
        raise ValueError(f"{_INTEGER_FAULT}, or text") from None
    return _fitting(number)


def _fitting(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise ValueError(_INTEGER_FAULT)
    return number


def text(value: str) -> str:
    """Refuse half characters (surrogates), which JSON can hold but protobuf cannot. Raises ValueError."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"position {error.start} is half a character") from error
    return value


_TITLE = "ItemId"
_GIVEN_INTEGER = {
    "title": _TITLE,
    "description": "An integer of 64 bits, as a number or a string of digits.",
    "anyOf": [{"type": "integer", "format": "int64"}, INT64_STRING],
}
_INTEGER = INT64_STRING | {"title": _TITLE, "description": "An integer of 64 bits."}
_TEXT = {
    "title": _TITLE,
    "description": f"Text of at most {MAX_KEY_BYTES} bytes of UTF-8.",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_KEY_BYTES,
}

GivenItemId = Annotated[int | str, PlainValidator(_given), WithJsonSchema(_GIVEN_INTEGER)]
"""The type of an item id in a request."""
ItemId = Annotated[str, WithJsonSchema(_INTEGER)]
"""The type of an item id in an answer."""


def of_release(given: Sequence[int | str], is_text: bool, *place: str | int) -> ItemIds:
    """The ids of a request as the release has them.

    Args:
        given: as they were read.
        is_text: whether the release has text ids.
        place: where they stand in the body.

    Raises:
        RequestValidationError: one is of the other kind; names its place.
    """
    ids: list[Any] = []
    for number, value in enumerate(given):
        try:
            ids.append(_text_id(value) if is_text else _integer(value))
        except ValueError as error:
            fault = {"loc": ("body", *place, number), "type": "value_error", "msg": str(error)}
            raise RequestValidationError([fault]) from None
    return ids


def _text_id(value: int | str) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string: this release has text ids")
    return value


def _integer(value: int | str) -> int:
    if isinstance(value, str):
        if not _DIGITS.fullmatch(value) or not -(2**63) <= int(value) < 2**63:
            raise ValueError(f"{_INTEGER_FAULT}: this release has integer ids")
        return int(value)
    return value


def describe_text_ids(schema: Any) -> None:
    """Change an OpenAPI description to that of a release with text ids."""
    if isinstance(schema, dict) and schema.get("title") == _TITLE:
        schema.clear()
        schema.update(_TEXT)
    elif isinstance(schema, dict | list):
        for part in schema.values() if isinstance(schema, dict) else schema:
            describe_text_ids(part)

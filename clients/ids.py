"""Item ids of both kinds, integers and text: writes them into requests, and reads them from answers.

A release has ids of one kind, which `id_type` of GetServerInfo tells. In the contract every field of integers has a
twin for text ids ("keys"). Only this module knows which fields belong together.
"""

from collections.abc import Sequence
from operator import index
from typing import Any

from google.protobuf.message import Message

from protos.recall.v1 import recall_pb2

ItemIds = Sequence[int] | Sequence[str]
"""Item ids of one kind."""

TWINS = {
    "hist_item": "hist_item_keys",
    "append_item_ids": "append_item_keys",
    "exclude_item_ids": "exclude_item_keys",
    "shown_item_ids": "shown_item_keys",
    "pin_item_ids": "pin_item_keys",
    "item_ids": "item_keys",
    "unknown_item_ids": "unknown_item_keys",
    "used_hist_item": "used_hist_item_keys",
    "item_id": "item_key",
    "neighbour_item_ids": "neighbour_item_keys",
}
"""The fields of integers, and their twins for text ids."""
MAX_KEY_BYTES = 256
"""The longest text id, in bytes of UTF-8."""
_EXAMPLE = "[[43, 23]] is one user with two clicks"


def has_text_ids(info: recall_pb2.GetServerInfoResponse) -> bool:
    """Whether item ids of the release are text; a server that does not tell is older, and its ids are integers."""
    return info.id_type == recall_pb2.ID_TYPE_TEXT


def fill(message: Message, field: str, given: ItemIds, name: str, limit: int | None = None) -> None:
    """Put item ids into a field of a request, or into its twin if they are text. An empty list fits both kinds.

    Args:
        message: the request, or a part of it.
        field: of integers.
        given: the ids; the first one tells the kind.
        name: the caller's name for them.
        limit: how many of the newest ids are kept; None keeps all.

    Raises:
        TypeError: they are no list of ids of one kind; the message names the place.
        ValueError: an id does not fit 64 bits, or is no valid text; the message names the place.
    """
    try:
        if isinstance(given, bytes | str):
            raise TypeError
        every: Any = given if hasattr(given, "__len__") else list(given)
        is_text = isinstance(next(iter(every), None), str)
        ids = getattr(message, TWINS[field] if is_text else field)
        ids.extend(every)
    except (TypeError, ValueError):
        raise _fault(given, name) from None
    if limit is not None:
        del ids[: max(0, len(ids) - limit)]


def kinds_of(user: recall_pb2.User) -> tuple[bool, bool]:
    """Whether a user has ids that are integers, and whether it has text ids."""
    return bool(user.hist_item or user.exclude_item_ids), bool(user.hist_item_keys or user.exclude_item_keys)


def ids_of(message: Message, field: str) -> Any:
    """Read the item ids of an answer, which are integers or text, as in the release.

    Args:
        message: an answer or a part of it, such as a `UserCandidates`.
        field: the name of the field of integers, such as `item_ids`. The field for text ids is found by it.

    Returns:
        a list of ids, or one id if the field has one.
    """
    keys, ids = getattr(message, TWINS[field]), getattr(message, field)
    return (keys or ids) if isinstance(keys, str) else list(keys or ids)


def one_field(plain: Any) -> None:
    """Change an answer as plain data so that ids of either kind have one field: `item_ids`, and no `item_keys`."""
    if isinstance(plain, dict):
        for field, twin in TWINS.items():
            if keys := plain.pop(twin, None):
                plain[field] = keys
        for value in plain.values():
            one_field(value)
    elif isinstance(plain, list) and plain and isinstance(plain[0], dict):
        for value in plain:
            one_field(value)


def _fault(given: Any, name: str) -> Exception:
    """Return what is wrong with item ids that a message refuses."""
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        return TypeError(f"{name} is {_shown(given)}, must be a list of item ids: {_EXAMPLE}")
    text = isinstance(next(iter(given), None), str)
    for place, value in enumerate(given):
        where = f"{name}[{place}] is {_shown(value)}"
        if isinstance(value, str) != text and place:
            kind = "text" if text else "an integer"
            return TypeError(f"{where}, must be {kind} as {name}[0] is: item ids of a release are of one kind")
        try:
            fault = _fault_of_text(value) if text else _fault_of_integer(value)
        except TypeError:
            return TypeError(f"{where}, must be an integer: item ids are integers of 64 bits, or text")
        if fault:
            return ValueError(f"{where}, {fault}")
    return TypeError(f"{name} is {_shown(given)}, must be a list of item ids")


def _fault_of_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"has half a character at position {error.start}: item ids are valid UTF-8"
    return ""


def _fault_of_integer(value: Any) -> str:
    """Return what is wrong with an integer id; empty if nothing is. Raises TypeError if it is no integer."""
    return "" if -(2**63) <= index(value) < 2**63 else "does not fit 64 bits: item ids are from -2**63 to 2**63 - 1"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 50 else text[:49] + '…'} ({type(value).__name__})"

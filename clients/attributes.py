"""The attributes of candidates as plain values: one list for each attribute, with None where an item has no value."""

from collections.abc import Mapping
from typing import Any

from protos.recall.v1 import recall_pb2


def attributes_of(
    candidates: recall_pb2.UserCandidates | recall_pb2.SimilarItems | recall_pb2.GetItemsResponse,
) -> dict[str, list[Any]]:
    """Read the attributes of one user's candidates, of the items similar to those of a query, or of any items.

    Args:
        candidates: from a request with `return_attributes`.

    Returns:
        For each attribute, a value for each candidate in the order of `item_ids`: a number, text, True or False, or a
        list; None where the item has no value. Attributes that Milvus did not tell in time are left out.
    """
    return {values.name: _values(values) for values in candidates.attributes}


def one_list(plain: Any) -> None:
    """Change an answer as plain data so that each attribute has one list: `"attributes": {"price": [5.5, null]}`."""
    if isinstance(plain, dict):
        for name, value in plain.items():
            if name == "attributes" and all("absent" in values for values in value):
                plain[name] = {values["name"]: _values(values) for values in value}
            else:
                one_list(value)
    elif isinstance(plain, list) and plain and isinstance(plain[0], dict):
        for value in plain:
            one_list(value)


def _values(values: Any) -> list[Any]:
    """The values in an AttributeValues, as a message or as plain data, in which an int64 may be text."""
    found = list(_of(values, "numbers") or _of(values, "texts") or _of(values, "booleans"))
    found = found or list(map(int, _of(values, "integers")))
    found = found or [[*map(int, _of(one, "integers")), *_of(one, "texts")] for one in _of(values, "lists")]
    for place in _of(values, "absent"):
        found[place] = None
    return found


def _of(values: Any, field: str) -> Any:
    return values[field] if isinstance(values, Mapping) else getattr(values, field)

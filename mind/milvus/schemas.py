"""The schemas of our collections in Milvus: items, their journal, histories, user vectors and release records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType, MilvusClient

from mind.milvus.collection import EMBEDDING, ITEM_ID
from mind.milvus.histories import CUT, MAX_ROW_KEY, NEWEST, ROW_KEY, STAMP, USER_HASH
from mind.milvus.journal import APPLIED, CHANGED_AT, KNOWN, NAMES, NEIGHBOURS, OP
from mind.milvus.records import KEY, MAX_NAME, MAX_RECORD, NAME, RECORD
from mind.milvus.records import MAX_KEY as MAX_KEY_OF_RECORDS
from mind.milvus.records import UNUSED as UNUSED_OF_RECORDS
from mind.milvus.users import HIST_ITEM, INTEREST_KEY, MAX_CAPACITY, MAX_KEY, UNUSED, UPDATED_AT, USER_KEY

MAX_TEXT_BYTES = 65_535
"""Maximum length of a VARCHAR, in bytes of UTF-8."""
_JOURNAL = {OP: 64, KNOWN: None, APPLIED: None, NAMES: MAX_TEXT_BYTES, NEIGHBOURS: 4_096, CHANGED_AT: 64}
"""The journal's own fields, with the maximum bytes of a VARCHAR; None is a BOOL."""


@dataclass(frozen=True)
class Column:
    """The type and the limits of an attribute in a collection."""

    type: str
    """The Milvus type, as in `Fingerprint.attributes`."""
    max_length: int
    """For VARCHAR: the maximum bytes of a value."""
    max_capacity: int
    """For ARRAY: the maximum number of values."""

    @property
    def max_bytes(self) -> int:
        """Return the size of the largest value in bytes."""
        return max(self.max_length, 8) * max(self.max_capacity, 1)


def items(dim: int, attributes: Mapping[str, Column]) -> Any:
    """Return the schema of an item collection."""
    schema = _empty()
    schema.add_field(ITEM_ID, DataType.INT64, is_primary=True)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dim)
    for name, column in attributes.items():
        schema.add_field(name, **_field_type(column))
    return schema


def journal(described: Sequence[Mapping[str, Any]]) -> Any:
    """Return the schema of the journal of an item collection.

    It has the fields of the item collection, which `described` gives as Milvus describes them, and the journal's own.
    """
    schema = _empty()
    for field in described:
        kind = {"datatype": field["type"], "is_primary": field.get("is_primary", False), **field["params"]}
        element = {"element_type": field["element_type"]} if field.get("element_type") else {}
        schema.add_field(field["name"], **kind, **element)
    for own, max_length in _JOURNAL.items():
        text = {"datatype": DataType.VARCHAR, "max_length": max_length}
        schema.add_field(own, **(text if max_length else {"datatype": DataType.BOOL}))
    return schema


def histories() -> Any:
    """Return the schema of the histories of remembered users."""
    schema = _empty()
    schema.add_field(ROW_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_ROW_KEY)
    for name in (HIST_ITEM, STAMP):
        schema.add_field(name, DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_CAPACITY)
    for name in (USER_HASH, CUT, NEWEST, UPDATED_AT):
        schema.add_field(name, DataType.INT64)
    schema.add_field(UNUSED, DataType.FLOAT_VECTOR, dim=2)
    return schema


def users() -> Any:
    """Return the schema of histories in the earlier format."""
    schema = _empty()
    schema.add_field(USER_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY)
    schema.add_field(HIST_ITEM, DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_CAPACITY)
    schema.add_field(UPDATED_AT, DataType.INT64)
    schema.add_field(UNUSED, DataType.FLOAT_VECTOR, dim=2)
    return schema


def user_vectors(dim: int) -> Any:
    """Return the schema of the interest vectors of remembered users."""
    schema = _empty()
    schema.add_field(INTEREST_KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY)
    schema.add_field(UPDATED_AT, DataType.INT64)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dim)
    return schema


def records() -> Any:
    """Return the schema of the release records."""
    schema = _empty()
    schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=MAX_KEY_OF_RECORDS)
    schema.add_field(NAME, DataType.VARCHAR, max_length=MAX_NAME)
    schema.add_field(RECORD, DataType.VARCHAR, max_length=MAX_RECORD)
    schema.add_field(UNUSED_OF_RECORDS, DataType.FLOAT_VECTOR, dim=2)
    return schema


def columns(described: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Return the attributes of an item collection, from its fields as Milvus describes them."""
    return {field["name"]: _column(field) for field in described if field["name"] not in (ITEM_ID, EMBEDDING)}


def _empty() -> Any:
    return MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)


def _column(described: Mapping[str, Any]) -> Column:
    kind, params = DataType(described["type"]), described["params"]
    name = f"ARRAY<{DataType(described['element_type']).name}>" if kind == DataType.ARRAY else kind.name
    longest = MAX_TEXT_BYTES if "VARCHAR" in name else 0  # Milvus Lite does not report the limit of texts in arrays
    return Column(name, int(params.get("max_length", longest)), int(params.get("max_capacity", 0)))


def _field_type(column: Column) -> dict[str, Any]:
    element = column.type.removeprefix("ARRAY<").removesuffix(">")
    text = {"max_length": column.max_length} if element == "VARCHAR" else {}
    if element == column.type:
        return {"datatype": DataType[element], **text}
    array = {"datatype": DataType.ARRAY, "element_type": DataType[element], "max_capacity": column.max_capacity}
    return {**array, **text}

"""Writes the requests of Milvus searches, queries and upserts as bytes, and reads the bytes of the answers into arrays.

Protobuf's Python classes would create two Python objects for every hit. This module copies arrays instead. The field
numbers are those of Milvus' public protocol (milvus.proto, schema.proto, common.proto). For the encoding of fields, see
https://protobuf.dev/programming-guides/encoding/. This module does not use connections.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from pymilvus.client.prepare import Prepare
from pymilvus.client.types import DataType
from pymilvus.grpc_gen import common_pb2, milvus_pb2, schema_pb2

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.collection import EMBEDDING, METRIC
from mind.sequences import Int64

_STRONG, _BOUNDED = 0, 2  # consistency levels
_VARINT, _BYTES = 0, 2  # wire types
_SKIPPED = {1: 8, 5: 4}  # of the wire types that no answer of ours has, and their sizes
_STATUS, _RESULTS = 1, 2  # fields of SearchResults
_SCORES, _IDS, _TOPKS = 4, 5, 6  # fields of SearchResultData
_INT_ID, _STR_ID, _DATA = 1, 2, 1  # fields of IDs, and of LongArray and StringArray
_PLACEHOLDER, _FLOAT_VECTOR = b"$0", 101
_COLUMNS = 2  # field of QueryResults
_NAME, _SCALARS, _VECTORS = 2, 3, 4  # fields of FieldData
_LONGS, _TEXTS, _ARRAYS, _FLOATS = 3, 6, 8, 2  # fields of ScalarField, and of VectorField

Ids = TypeVar("Ids", Int64, list[str])
Numbers = TypeVar("Numbers", Int64, Float32)
Column = Int64 | Float32 | list[str] | list[Int64]
"""The values of a field: numbers, the numbers of all vectors, texts, or arrays of numbers."""


def write_search(collection: str, vectors: Float32, limit: int, params: tuple[tuple[str, Any], ...]) -> bytes:
    """Serialize a milvus.proto SearchRequest for the `limit` items nearest to each of the [Q, D] vectors."""
    queries, dim = vectors.shape
    header = _tag(3) + _varint(4 * dim)
    rows = np.empty((queries, len(header) + 4 * dim), np.uint8)
    rows[:, : len(header)] = np.frombuffer(header, np.uint8)
    rows[:, len(header) :] = np.ascontiguousarray(vectors, "<f4").view(np.uint8)
    value = _field(1, _PLACEHOLDER) + _tag(2, _VARINT) + _varint(_FLOAT_VECTOR) + rows.tobytes()
    number = milvus_pb2.SearchRequest.DESCRIPTOR.fields_by_name
    nq = _tag(number["nq"].number, _VARINT) + _varint(queries)
    return _template(collection, limit, params) + nq + _field(number["placeholder_group"].number, _field(1, value))


def warm_up() -> None:
    """Have pymilvus import what it needs for a first search, such as SciPy where that is installed: 0.1 s."""
    _template("", 1, ())


_PREPARING = Lock()
"""Held while pymilvus makes a request: the first one imports SciPy in a way that fails in two threads at once."""


@lru_cache(256)
def _template(collection: str, limit: int, params: tuple[tuple[str, Any], ...]) -> bytes:
    """Serialize a request without its vectors. Serialized fields may be appended to a message."""
    with _PREPARING:
        request = Prepare.search_requests_with_expr(
            collection,
            anns_field=EMBEDDING,
            param={"metric_type": METRIC, "params": dict(params)},
            limit=limit,
            data=np.zeros((1, 1), np.float32),
            expr="",
            consistency_level=_BOUNDED,
        )
    request.ClearField("nq")
    request.ClearField("placeholder_group")
    return bytes(request.SerializeToString())


def read_search(answer: bytes) -> tuple[Any, Hits]:
    """Read the status and the hits of a serialized milvus.proto SearchResults.

    Raises:
        ValueError: the bytes are not such a message.
    """
    status, item_ids, scores, lengths = _read(answer, np.zeros(0, np.int64), _read_ids)
    return status, Hits(item_ids, scores, lengths)


def read_key_search(answer: bytes) -> tuple[Any, list[str], Float32, Int64]:
    """Read a serialized SearchResults of a collection whose primary key is text.

    Returns:
        The status, the keys [H], the scores [H], and the number of hits of each query [Q].

    Raises:
        ValueError: the bytes are not such a message.
    """
    return _read(answer, [], _read_keys)


def write_query(collection: str, filter_: str, fields: list[str], strong: bool = False, **options: Any) -> bytes:
    """Serialize a milvus.proto QueryRequest for these fields of all rows that match a filter.

    Args:
        collection: the name of the collection.
        filter_: the filter.
        fields: the names of the fields.
        strong: whether the query sees everything that was written before it.
        options: as pymilvus takes them, such as `limit`.
    """
    options |= {"use_default_consistency": False, "consistency_level": _STRONG if strong else _BOUNDED}
    request = Prepare.query_request(collection, filter_, fields, [], **options)
    return bytes(request.SerializeToString())


def write_upsert(collection: str, schema: Any, rows: Sequence[dict[str, Any]]) -> bytes:
    """Serialize a milvus.proto UpsertRequest for rows of a collection that has a schema (`mind.milvus.schemas`)."""
    fields = [field.to_dict() for field in schema.fields]
    return bytes(Prepare.row_upsert_param(collection, list(rows), "", fields).SerializeToString())


def read_status(answer: bytes) -> Any:
    """Read the status of a serialized MutationResult. Raises ValueError if the bytes are no such message."""
    status = common_pb2.Status()
    for field, content in _fields(memoryview(answer)):
        if field == _STATUS:
            status = common_pb2.Status.FromString(bytes(content))
    return status


def read_query(answer: bytes) -> tuple[Any, dict[str, Column]]:
    """Read the status and the columns of a serialized milvus.proto QueryResults.

    Returns:
        The status, and by field name the values: [M] int64, M texts, M arrays of int64, or the numbers of all vectors,
        [M * D] float32. Fields may be missing if no row matches.

    Raises:
        ValueError: the bytes are not such a message.
    """
    status = common_pb2.Status()
    columns: dict[str, Column] = {}
    for field, content in _fields(memoryview(answer)):
        if field == _STATUS:
            status = common_pb2.Status.FromString(bytes(content))
        if field == _COLUMNS:
            name, values = _read_column(content)
            columns[name] = values
    return status, columns


def read_values(answer: bytes) -> tuple[Any, dict[str, list[Any]]]:
    """Read the status and the columns of a serialized QueryResults of scalar fields of any type, as Python values.

    An array is a list. Fields may be missing if no row matches.

    Raises:
        ValueError: the bytes are not such a message.
    """
    try:
        found = milvus_pb2.QueryResults.FromString(answer)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    columns: dict[str, list[Any]] = {}
    for field in found.fields_data:
        values = _scalars(field.scalars)
        columns[field.field_name] = [_scalars(value) for value in values] if field.type == DataType.ARRAY else values
    return found.status, columns


def _scalars(scalars: Any) -> list[Any]:
    """Return the values of a ScalarField; an empty array may have no type."""
    kind = scalars.WhichOneof("data")
    return list(getattr(scalars, kind).data) if kind else []


def read_rows(answer: bytes) -> tuple[Any, list[dict[str, Any]]]:
    """Read the status and the rows of a serialized QueryResults without vectors.

    Raises:
        ValueError: the bytes are not such a message.
    """
    status, columns = read_query(answer)
    values = [column if isinstance(column, list) else column.tolist() for column in columns.values()]
    return status, [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _read_column(column: memoryview) -> tuple[str, Column]:
    name = ""
    values: Column = np.zeros(0, np.int64)
    for field, content in _fields(column):
        if field == _NAME:
            name = str(content, "utf-8")
        elif field == _SCALARS:
            values = _read_scalars(content)
        elif field == _VECTORS:
            for kind, array in _fields(content):
                if kind == _FLOATS:
                    values = _packed(array, lambda packed: np.frombuffer(packed, "<f4"))
    return name, values


def _read_scalars(scalars: memoryview) -> Column:
    for kind, values in _fields(scalars):
        if kind == _LONGS:
            return _packed(values, _read_varints)
        if kind == _TEXTS:
            return _texts(values)
        if kind == _ARRAYS:
            return [_read_longs(array) for field, array in _fields(values) if field == _DATA]
    return np.zeros(0, np.int64)


def _read_longs(scalars: memoryview) -> Int64:
    """Read a ScalarField of whole numbers. An array without any has no LongArray either."""
    for kind, values in _fields(scalars):
        if kind == _LONGS:
            return _packed(values, _read_varints)
    return np.zeros(0, np.int64)


def _texts(array: memoryview) -> list[str]:
    return list(schema_pb2.StringArray.FromString(bytes(array)).data)


def _packed(array: memoryview, read: Callable[[memoryview], Numbers]) -> Numbers:
    """Read the one field of a LongArray or FloatArray."""
    for field, packed in _fields(array):
        if field == _DATA:
            return read(packed)
    return read(memoryview(b""))


def _read(answer: bytes, no_ids: Ids, read_ids: Callable[[memoryview], Ids]) -> tuple[Any, Ids, Float32, Int64]:
    status = common_pb2.Status()
    ids, scores, lengths = no_ids, np.zeros(0, np.float32), np.zeros(0, np.int64)
    for field, content in _fields(memoryview(answer)):
        if field == _STATUS:
            status = common_pb2.Status.FromString(bytes(content))
        if field == _RESULTS:
            for column, values in _fields(content):
                if column == _SCORES:
                    scores = np.frombuffer(values, "<f4")
                elif column == _TOPKS:
                    lengths = _read_varints(values)
                elif column == _IDS:
                    ids = read_ids(values)
    if not len(ids) == len(scores) == lengths.sum():
        raise ValueError(f"{len(ids)} ids, {len(scores)} scores, {lengths.sum()} hits")
    return status, ids, scores, lengths


def _read_ids(ids: memoryview) -> Int64:
    for field, longs in _fields(ids):
        if field == _INT_ID:
            return _packed(longs, _read_varints)
    return np.zeros(0, np.int64)


def _read_keys(ids: memoryview) -> list[str]:
    for field, texts in _fields(ids):
        if field == _STR_ID:
            return _texts(texts)
    return []


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the content of every field that contains bytes. Other fields are skipped."""
    position = 0
    while position < len(message):
        key, position = _one_varint(message, position)
        kind = key & 7
        if kind == _VARINT:
            _, position = _one_varint(message, position)
        elif kind == _BYTES:
            size, position = _one_varint(message, position)
            content = message[position : position + size]
            if len(content) != size:
                raise ValueError("the message is cut off")
            yield key >> 3, content
            position += size
        elif kind in _SKIPPED:
            position += _SKIPPED[kind]
        else:
            raise ValueError(f"wire type {kind}")


def _one_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number. Return it and the position after it."""
    value = shift = 0
    while True:
        if position >= len(message):
            raise ValueError("the message is cut off")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:
            return value, position


def _read_varints(packed: memoryview) -> Int64:
    """Read a packed repeated int64: seven bits per byte, lowest first. The last byte of a number is below 128."""
    content = np.frombuffer(packed, np.uint8)
    end = (content < 0x80).nonzero()[0] + 1
    if not len(end):
        return np.zeros(0, np.int64)
    start = np.concatenate([[0], end[:-1]])
    place = np.arange(end[-1]) - start.repeat(end - start)  # of each byte in its number
    values: Int64 = np.bitwise_or.reduceat((content[: end[-1]] & 0x7F).astype(np.int64) << 7 * place, start)
    return values


def _field(number: int, content: bytes) -> bytes:
    return _tag(number) + _varint(len(content)) + content


def _tag(number: int, kind: int = _BYTES) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])

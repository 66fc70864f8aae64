"""The output of a bulk run as Arrow: its columns, and answers of the service as rows.

Touches users, and single hits only where an attribute has lists.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clients.bulk_input import is_text
from clients.core import RecallResult
from clients.user_files import FileError
from protos.recall.v1 import recall_pb2

ATTRIBUTES = "attributes"
"""The column of attributes: a struct with a list for each, parallel to `item_ids`."""


@dataclass(frozen=True)
class _Kind:
    """How the values of an attribute travel, and what they become."""

    field: str
    """The field of AttributeValues that has them."""
    type: Any
    """The Arrow type of a value."""
    empty: Any
    """What stands for no value in an answer."""


# Texts of a part may have more than the 2 GB that small offsets reach.
_KINDS = {
    "INT64": _Kind("integers", pa.int64(), 0),
    "DOUBLE": _Kind("numbers", pa.float64(), 0.0),
    "VARCHAR": _Kind("texts", pa.large_string(), ""),
    "BOOL": _Kind("booleans", pa.bool_(), False),
    "ARRAY<INT64>": _Kind("lists", pa.large_list(pa.int64()), recall_pb2.AttributeList()),
    "ARRAY<VARCHAR>": _Kind("lists", pa.large_list(pa.large_string()), recall_pb2.AttributeList()),
}
"""The kinds of values, by the type that GetServerInfo tells."""


@dataclass(frozen=True)
class Columns:
    """The columns of parts and output."""

    schema: Any
    """The Arrow schema of the output."""
    attributes: Mapping[str, _Kind]
    """What each attribute of the output is."""

    @classmethod
    def of(
        cls,
        user_column: str,
        user_type: Any,
        text: bool,
        types: Mapping[str, str] | None = None,
        wanted: Sequence[str] = (),
    ) -> "Columns":
        """Make the columns.

        Args:
            user_column: name of the column of users.
            user_type: Arrow type of that.
            text: whether item ids are text.
            types: the types of the attributes that the release has; None if it has none.
            wanted: attributes of the output.

        Raises:
            FileError: the column of the users is named as another one, or the release has no such attribute.
        """
        types = types or {}
        if missing := [name for name in wanted if name not in types]:
            have = ", ".join(types) or "none"
            raise FileError(f"--attributes: the release has no attribute {missing[0]!r}; it has: {have}")
        if unknown := [name for name in wanted if types[name] not in _KINDS]:
            raise FileError(f"--attributes: {unknown[0]!r} is {types[unknown[0]]}, which this version cannot write")
        kinds = {name: _KINDS[types[name]] for name in wanted}
        answers = {
            "item_ids": pa.list_(pa.string() if text else pa.int64()),
            "scores": pa.list_(pa.float32()),
            "interest": pa.list_(pa.int32()),
            "status": pa.string(),
            "model_version": pa.dictionary(pa.int32(), pa.string()),
            "detail": pa.string(),
        }
        if kinds:
            answers[ATTRIBUTES] = pa.struct({name: pa.large_list(kind.type) for name, kind in kinds.items()})
        if user_column in answers:
            raise FileError(f"the output already has a column {user_column!r}; rename this column of the input")
        return cls(pa.schema({user_column: user_type} | answers), kinds)

    def rows(self, user_ids: Any, result: RecallResult) -> Any:
        """The answer to one request as a record batch.

        Args:
            user_ids: [N] Arrow array.
            result: of N users.
        """
        found, item_ids = result.results, result.item_ids
        sizes = list(map(len, item_ids))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

        def lists(parts: Any, kind: Any) -> Any:
            dtype = object if is_text(kind) else kind.to_pandas_dtype()
            values = np.fromiter(itertools.chain.from_iterable(parts), dtype, offsets[-1])
            return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))

        columns = [
            user_ids,
            lists(item_ids, self.schema.field("item_ids").type.value_type),
            lists((user.scores for user in found), pa.float32()),
            lists((user.interest for user in found), pa.int32()),
            pa.array([_status_name(user.status) for user in found], pa.string()),
            pa.DictionaryArray.from_arrays(np.zeros(len(found), np.int32), result.model_versions[:1]),
            pa.array([user.detail for user in found], pa.string()),
        ]
        if self.attributes:
            of_user = [{values.name: values for values in user.attributes} for user in found]
            large = pa.array(offsets.astype(np.int64))
            children = [
                pa.LargeListArray.from_arrays(large, _values([own.get(name) for own in of_user], sizes, kind))
                for name, kind in self.attributes.items()
            ]
            columns.append(pa.StructArray.from_arrays(children, list(self.attributes)))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _values(told: Sequence[recall_pb2.AttributeValues | None], sizes: Sequence[int], kind: _Kind) -> Any:
    """The values of one attribute for all hits, null where an item has none.

    Args:
        told: of each user; None if nothing was told.
        sizes: hits of each user.
        kind: of the attribute.
    """
    parts: list[Any] = []
    absent: list[npt.NDArray[np.int64]] = []
    first = 0
    for values, size in zip(told, sizes, strict=True):
        parts.append(getattr(values, kind.field) if values else [kind.empty] * size)
        absent.append(first + (np.array(values.absent, np.int64) if values else np.arange(size)))
        first += size
    mask = np.zeros(first, bool)
    mask[np.concatenate([np.zeros(0, np.int64), *absent])] = True
    flat = itertools.chain.from_iterable(parts)
    if kind.field == "lists":
        lists = [[*one.integers, *one.texts] for one in flat]
        return pa.array([None if gone else one for one, gone in zip(lists, mask, strict=True)], kind.type)
    column = np.empty(first, object if kind.field == "texts" else kind.type.to_pandas_dtype())
    column[:] = list(flat)
    return pa.array(column, kind.type, mask=mask)


def _status_name(status: int) -> str:
    """`USER_STATUS_OK` as `OK`."""
    known = recall_pb2.UserStatus.DESCRIPTOR.values_by_number.get(status)
    return known.name.removeprefix("USER_STATUS_") if known else str(status)  # a newer server may know more

"""Reads the filters of requests."""

from collections.abc import Mapping

from mind.milvus.filter.canonical import canonical as canonical_of
from mind.milvus.filter.canonical import describe
from mind.milvus.filter.error import FilterError
from server.errors import InvalidRequestError
from server.release import Release
from server.settings import Settings


def read_filter(filter_: str, limits: Settings, release: Release, field: str = "filter") -> str:
    """The filter in canonical spelling (`mind.milvus.filter`). Raises InvalidRequestError with the field."""
    if not filter_:
        return ""
    if len(filter_) > limits.max_filter_chars:
        raise InvalidRequestError(
            field, f"has {len(filter_)} characters, the limit is {limits.max_filter_chars}", "FILTER_TOO_LONG"
        )
    return canonical(filter_, release.fingerprint.attributes, limits.max_filter_depth, field)


def canonical(filter_: str, attributes: Mapping[str, str], max_depth: int, field: str = "filter") -> str:
    """The filter in canonical spelling. Raises InvalidRequestError with the field and the column of the mistake."""
    try:
        return canonical_of(filter_, attributes, max_depth)
    except FilterError as error:
        raise InvalidRequestError(field, describe(filter_, error), error.reason) from None

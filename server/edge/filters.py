"""Reads the filters of requests."""

from server.errors import InvalidRequestError
from server.release import Release
from server.serving.filter.canonical import canonical
from server.settings import Settings


def read_filter(filter_: str, limits: Settings, release: Release, field: str = "filter") -> str:
    """The filter in canonical spelling (`server.serving.filter`). Raises InvalidRequestError with the field."""
    if not filter_:
        return ""
    if len(filter_) > limits.max_filter_chars:
        raise InvalidRequestError(
            field, f"has {len(filter_)} characters, the limit is {limits.max_filter_chars}", "FILTER_TOO_LONG"
        )
    return canonical(filter_, release.fingerprint.attributes, limits.max_filter_depth, field)

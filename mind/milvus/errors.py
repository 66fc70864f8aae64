"""The errors of calls to Milvus.

StoreError                 Milvus answered and refused the call
├── StoreUnavailableError  Milvus does not answer, or answers that it cannot be used now
│   ├── StoreTimeoutError  Milvus did not answer in time
│   └── FileInUseError     another process holds the Milvus Lite file
├── NotFlushedError        Milvus did not write rows to its storage in time
├── UnfinishedError        Milvus did not join the segments of a collection in time
├── StoreDeniedError       the user of Milvus has not the right to make the call
└── CollectionGoneError    the collection does not exist
FilterError                Milvus cannot use the filter
"""

from mind.errors import MindError


class StoreError(MindError):
    """Milvus answered and refused the call."""

    reason = "STORE_FAILED"


class StoreUnavailableError(StoreError):
    """Milvus does not answer, or answers that it cannot be used now."""

    reason = "STORE_UNAVAILABLE"


class StoreTimeoutError(StoreUnavailableError):
    """Milvus did not answer in time. A retry would only add to its load."""


class FileInUseError(StoreUnavailableError):
    """Another process holds the Milvus Lite file."""


class NotFlushedError(StoreError):
    """Milvus took rows, but did not write them to its storage in time."""


class UnfinishedError(StoreError):
    """Milvus took a request to join the segments of a collection, but did not complete it in time."""


class StoreDeniedError(StoreError):
    """The user of Milvus has not the right to make the call."""


class CollectionGoneError(StoreError):
    """The collection does not exist."""

    reason = "COLLECTION_GONE"


class FilterError(MindError):
    """Milvus cannot use the filter."""

    reason = "FILTER_INVALID"

"""Release records: what is known of a collection and must outlive any restart of Milvus.

Milvus 2.3.5 forgets the last change of a collection's properties when it restarts (its issue 30144), so records are
rows of a small collection, `release_records`, read under strong consistency: one row for each collection of items or of
user vectors. Versions before this one kept them as properties; a collection without a row is described by these.

Publishing gives a collection the next release number. Releases are ordered by that number and not by a clock, which
may be behind.
"""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mind.milvus.collection import Fingerprint
from mind.milvus.users import UserVectors

RECORDS = "release_records"
"""The collection of records."""
NAME = "collection_name"
"""Its primary key, VARCHAR: the collection that a record describes."""
RECORD = "record"
"""VARCHAR: the record as JSON."""
UNUSED = "unused"
"""FLOAT_VECTOR of two zeros: a collection must have a vector."""
MAX_RECORDS = 16_384
"""Rows that one query may give; Milvus refuses more."""
MAX_NAME, MAX_RECORD = 255, 65_535
"""Bytes of the two texts."""

Record = TypeVar("Record", bound=BaseModel)

_FINGERPRINT, _BUILT_AT, _PUBLISHED_AT = "recall.fingerprint", "recall.built_at", "recall.published_at"
_USER_VECTORS = "recall.user_vectors"
"""Properties that versions before this one wrote."""


class ItemRecord(BaseModel):
    """What is known of an item collection whose build is finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Fingerprint
    built_at: str
    """When the build was verified, ISO 8601, UTC."""
    published_at: str = ""
    """When it was last released; empty if never, or if a rollback took the release back."""
    release: int = 0
    """Number of that release, from 1; 0 if never, or if a version before this one released it."""

    @property
    def published(self) -> bool:
        """Whether it was released, and no rollback took that back."""
        return bool(self.published_at)

    @property
    def order(self) -> tuple[int, str]:
        """Orders releases from old to new. Those without a number came before all others, ordered by time."""
        return self.release, self.published_at

    def to_json(self) -> str:
        """What `item_record` reads."""
        return self.model_dump_json()


def item_record(text: str | None, properties: Mapping[str, str]) -> ItemRecord | None:
    """The record of an item collection; None if its build did not finish.

    Args:
        text: its row; None if there is none.
        properties: of the collection.
    """
    if text is not None:
        return _parsed(ItemRecord, text)
    fingerprint = Fingerprint.from_json(properties.get(_FINGERPRINT, ""))
    if fingerprint is None:
        return None
    return ItemRecord(
        fingerprint=fingerprint,
        built_at=properties.get(_BUILT_AT, ""),
        published_at=properties.get(_PUBLISHED_AT, ""),
    )


def user_record(text: str | None, properties: Mapping[str, str]) -> UserVectors | None:
    """The record of a collection of user vectors, from its row or, without one, its properties; None without both."""
    return _parsed(UserVectors, properties.get(_USER_VECTORS, "") if text is None else text)


def _parsed(kind: type[Record], text: str) -> Record | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None

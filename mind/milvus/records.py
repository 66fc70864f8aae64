"""Release records: what each collection was built from, and when it was built and published.

A record must survive every restart of Milvus. Milvus 2.3.5 loses the last change of a collection's properties when it
restarts (its issue 30144). So records are rows of a small collection, `release_records`, which is read under strong
consistency. It has the record of each collection of items or of user vectors, and the change log of each changed
collection (`mind.milvus.change_log`). Earlier versions of this project wrote properties; they are read for a collection
that has no row.

A record must also not go back to what it was. Milvus replaces a row by deleting it, and has shown deleted rows again
(its issues 32915 and 33015). So each write of a record is a new row with the next revision. The row with the highest
revision counts, and the earlier ones are deleted. A record that is deleted leaves an empty one.

Each build and each publish gives its collection the next number. Builds and releases are ordered by these numbers,
because clocks may differ. The numbers count across channels (`mind.milvus.channels`).

The releases of a collection in other channels than `live` are a row of their own (`channels_of`). So a release in such
a channel does not write the record that servers of earlier versions read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mind.milvus.channels import LIVE
from mind.milvus.collection import Fingerprint
from mind.milvus.users import UserVectors

RECORDS = "release_records"
"""The name of the collection of records."""
KEY = "record_key"
"""VARCHAR, primary key: `<NAME>/<revision>`."""
NAME = "collection_name"
"""VARCHAR: the collection that a record describes."""
RECORD = "record"
"""VARCHAR: the record as JSON; empty if it was deleted."""
UNUSED = "unused"
"""FLOAT_VECTOR of two zeros. Milvus requires a vector field in every collection."""
MAX_RECORDS = 16_384
"""Maximum number of rows that one query may return. Milvus refuses more."""
MAX_KEY, MAX_NAME, MAX_RECORD = 300, 255, 65_535
"""Maximum length of the key, the name and the record, in bytes."""

Row = Mapping[str, Any]
Record = TypeVar("Record", bound=BaseModel)

_FINGERPRINT, _BUILT_AT, _PUBLISHED_AT = "recall.fingerprint", "recall.built_at", "recall.published_at"
_USER_VECTORS = "recall.user_vectors"
"""The properties that earlier versions wrote."""


class Published(BaseModel):
    """The last release of a collection in one channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = 0
    """The number of the release, from 1; 0 if there was none, or if an earlier version of this project released it."""
    at: str = ""
    """The time of the release, ISO 8601, UTC; empty if there was none, or if a rollback withdrew it."""

    @property
    def order(self) -> tuple[int, str]:
        """The sort key of releases, from old to new. Releases without a number are older than those with one."""
        return self.number, self.at


class OtherReleases(BaseModel):
    """The releases of a collection in other channels than `live`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: dict[str, Published] = {}
    """The release in each channel that the collection was released in, unless it was withdrawn."""

    @classmethod
    def read(cls, text: str) -> "OtherReleases":
        """Read the releases from the text of their row; none from an empty text."""
        return _parsed(cls, text) or cls()

    def with_release(self, channel: str, published: Published) -> str:
        """Return the text of the row with another release in a channel. `Published()` withdraws the release."""
        others = {name: each for name, each in self.channels.items() if name != channel}
        changed = OtherReleases(channels=others | ({channel: published} if published.at else {}))
        return changed.model_dump_json() if changed.channels else ""


class ItemRecord(BaseModel):
    """The record of an item collection whose build is finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: Fingerprint
    built_at: str
    """The time when the build was verified, ISO 8601, UTC."""
    published_at: str = ""
    """The time of the last release in `live`; empty if there was none, or if a rollback withdrew it."""
    release: int = 0
    """The number of that release, from 1; 0 if there was none, or if an earlier version of this project released it."""
    build: int = 0
    """The number of the build; 0 if an earlier version of this project built it. Builds and releases count together."""
    rules: str = ""
    """The rules of the release as JSON (`mind.milvus.rules`); empty if it has none."""
    channels: dict[str, Published] = Field(default={}, exclude=True)
    """The releases in other channels. They are not in the JSON, but in a row of their own (`channels_of`)."""

    def published_in(self, channel: str) -> Published:
        """Return the last release in a channel."""
        return self._live if channel == LIVE else self.channels.get(channel, Published())

    def with_release(self, published: Published) -> "ItemRecord":
        """Return the record with another release in `live`. `Published()` withdraws the release."""
        return self.model_copy(update={"release": published.number, "published_at": published.at})

    @property
    def newest_release(self) -> Published:
        """The newest release in any channel."""
        return max(self._live, *self.channels.values(), Published(), key=lambda one: one.order)

    @property
    def last_number(self) -> int:
        """The highest number of the build and the releases in all channels."""
        return max(self.build, self.newest_release.number)

    @property
    def last_event(self) -> tuple[int, str]:
        """The sort key of builds and releases together, from old to new, whatever the channel."""
        return self.last_number, self.newest_release.at or self.built_at

    def to_json(self) -> str:
        """Write the record without other channels as JSON, which `item_record` reads."""
        return self.model_dump_json(exclude=None if self.rules else {"rules"})  # which earlier versions do not know

    @property
    def _live(self) -> Published:
        return Published(number=self.release, at=self.published_at)


def channels_of(collection: str) -> str:
    """Return the name of the row that has the releases of an item collection in other channels than `live`."""
    return "channels_" + collection.removeprefix("items_")


def newest(rows: Iterable[Row]) -> dict[str, str]:
    """Return the newest record of each collection as JSON. Those that were deleted are left out."""
    by_name = {row[NAME]: row[RECORD] for row in sorted(rows, key=lambda row: _revision(row[KEY]))}
    return {name: text for name, text in by_name.items() if text}


def next_row(name: str, text: str, before: Sequence[Row]) -> dict[str, Any]:
    """Return the row that gives a collection another record.

    Args:
        name: the collection.
        text: the record as JSON; empty if it is deleted.
        before: the rows of this collection so far.
    """
    revision = 1 + max((_revision(row[KEY]) for row in before), default=0)
    return {KEY: f"{name}/{revision}", NAME: name, RECORD: text, UNUSED: [0.0, 0.0]}


def _revision(key: str) -> int:
    return int(key.rpartition("/")[2])


def item_record(text: str | None, properties: Mapping[str, str]) -> ItemRecord | None:
    """Read the record of an item collection. Return None if its build did not finish.

    Args:
        text: the JSON of its row; None if there is no row.
        properties: the properties of the collection, which are read if there is no row.
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
    """Read the record of a collection of user vectors from its row or, without one, from its properties.

    Returns:
        None if there is neither.
    """
    return _parsed(UserVectors, properties.get(_USER_VECTORS, "") if text is None else text)


def _parsed(kind: type[Record], text: str) -> Record | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None

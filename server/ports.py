"""What the server needs of a vector database. `mind.milvus` implements it, and so do the fakes of the tests."""

from typing import Any, Protocol

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.change_log import ChangeLog
from mind.milvus.collection import Fingerprint
from mind.milvus.journal import Changes
from mind.sequences import Int64


class ItemStore(Protocol):
    """What serving needs of a vector database. Every method raises `StoreError`."""

    async def live_collection(self) -> str | None:
        """The collection that the release alias names; None without a release."""

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """What the collection was built from; None if its build did not finish."""

    async def loaded(self, collection: str) -> bool:
        """Whether the collection is in memory, all of it. Raises CollectionGoneError."""

    async def load(self, collection: str) -> None:
        """Bring the collection into memory if it is not there."""

    async def count(
        self, collection: str, filter_: str = "", timeout_s: float | None = None, strong: bool = True
    ) -> int:
        """Items that match, counted in `timeout_s`. Raises FilterError for a bad filter.

        `strong`: whether the newest changes must count, for which Milvus waits up to 0.2 s.
        """

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """The stored embeddings of the given items, [D] float32 each; items that do not exist are absent."""

    async def keys(self, collection: str, item_ids: list[int], timeout_s: float | None = None) -> dict[int, str]:
        """The text ids of the given items, in a collection that has them; items that do not exist are absent."""

    async def changes(self, collection: str) -> Changes:
        """The changes since the build of the collection, from its journal, which is brought into memory if need be."""

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """Those of the given items that may have been deleted, as the collection's journal says."""

    async def changed_items(self, collection: str) -> Int64:
        """The ids of all items that may have been added or deleted since the build, [M] int64, ascending."""

    async def existing(self, collection: str, item_ids: list[int]) -> set[int]:
        """Those of the given items that exist."""

    async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
        """The ids of all items that match a filter, [M] int64, ascending. Raises FilterError for a bad filter."""

    async def values(
        self, collection: str, filter_: str, attributes: list[str], limit: int | None = None
    ) -> dict[str, list[Any]]:
        """The ids and the given attributes of all items that match, as columns of Python values; an array is a list.

        `limit`: gives the items with the smallest ids, at most so many, and at least one if there is one.
        """

    async def change_log(self, collection: str) -> ChangeLog:
        """The newest changes of the collection's items."""

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """The `limit` items nearest to each of the [Q, D] vectors."""

    async def drop(self, collection: str) -> None:
        """Drop a collection, and the release alias if it names that collection."""

    async def close(self) -> None:
        """Close the connection."""

"""The interface of a vector database for the server. `mind.milvus` and the fakes of the tests implement it."""

from typing import Any, Protocol

from mind.artifact import Float32
from mind.hits import Hits
from mind.milvus.change_log import ChangeLog
from mind.milvus.channels import LIVE
from mind.milvus.collection import Fingerprint
from mind.milvus.journal import Changes
from mind.sequences import Int64


class ItemStore(Protocol):
    """The calls of the server to a vector database. Every method may raise `StoreError`."""

    async def released_collection(self, channel: str = LIVE) -> str | None:
        """Return the collection that the alias of a channel points to, or None without a release."""

    async def aliases(self, collection: str) -> list[str]:
        """Return the aliases that point to a collection, those of channels and any others."""

    async def fingerprint(self, collection: str) -> Fingerprint | None:
        """Return what the collection was built from, or None if its build did not finish."""

    async def rules(self, collection: str) -> str:
        """Return the rules of the release as JSON (`mind.milvus.rules`); empty if it has none."""

    async def loaded(self, collection: str) -> bool:
        """Return whether the whole collection is in memory. Raises CollectionGoneError."""

    async def load(self, collection: str) -> None:
        """Load the collection into memory if it is not there."""

    async def count(
        self, collection: str, filter_: str = "", timeout_s: float | None = None, strong: bool = True
    ) -> int:
        """Count the items that match a filter, within `timeout_s`. Raises FilterError for a bad filter.

        `strong`: whether the newest changes must count. For that, Milvus waits up to 0.2 s.
        """

    async def vectors(self, collection: str, item_ids: list[int]) -> dict[int, Float32]:
        """Return the stored embeddings of some items, [D] float32 each. Items that do not exist are left out."""

    async def keys(self, collection: str, item_ids: list[int], timeout_s: float | None = None) -> dict[int, str]:
        """Return the text ids of some items of a collection that has them. Items that do not exist are left out."""

    async def changes(self, collection: str) -> Changes:
        """Return the changes since the build of the collection, from its journal, which is loaded if needed."""

    async def deleted(self, collection: str, item_ids: list[int]) -> set[int]:
        """Return those of some items that may have been deleted according to the collection's journal."""

    async def changed_items(self, collection: str) -> Int64:
        """Return the ids of all items that may have been added or deleted since the build, [M] int64, ascending."""

    async def clicked(self, collection: str, item_ids: list[int]) -> dict[int, str]:
        """Return what the collection's journal says of clicks on some items: JSON of `mind.milvus.journal.Clicked`."""

    async def existing(self, collection: str, item_ids: list[int]) -> set[int]:
        """Return those of some items that exist."""

    async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
        """Return the ids of all items that match a filter, [M] int64 ascending. Raises FilterError for a bad filter."""

    async def values(
        self, collection: str, filter_: str, attributes: list[str], limit: int | None = None
    ) -> dict[str, list[Any]]:
        """Return the ids and some attributes of all items that match, as columns of Python values. An array is a list.

        `limit`: return at most this many items, those with the smallest ids, and at least one if any matches.
        """

    async def change_log(self, collection: str) -> ChangeLog:
        """Return the newest changes of the collection's items."""

    async def search(
        self, collection: str, vectors: Float32, limit: int, params: dict[str, Any], timeout_s: float
    ) -> Hits:
        """Return the `limit` items nearest to each of the [Q, D] vectors."""

    async def drop(self, collection: str) -> None:
        """Drop a collection, and the aliases of channels that point to that collection."""

    async def close(self) -> None:
        """Close the connection."""

"""What remembering users needs of a vector database. `mind.milvus` implements it, and so does the fake of the tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from mind.artifact import Float32
from mind.milvus.users import Neighbours, StoredUser, UserVectors


class UserStore(Protocol):
    """What remembering users needs of a vector database. Every method raises `StoreError`.

    `strong`: the read sees everything that any server wrote before the call, and takes 0.2 to 0.6 s; otherwise it sees
    what was written until about 0.5 s ago.
    """

    async def open(self) -> None:
        """Make the collection of histories if it does not exist, and bring it into memory."""

    async def count(self) -> int:
        """The exact number of remembered users."""

    async def read(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, StoredUser]:
        """The histories of users; users who are not remembered are absent."""

    async def updated_at(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, int]:
        """When users were written, in milliseconds since 1970; users who are not remembered are absent."""

    async def changed(self, since: int, after: str, limit: int) -> dict[str, int]:
        """The first users, ordered by key, after the user `after` that were written at `since` or later, and when."""

    async def write(self, users: Mapping[str, StoredUser]) -> None:
        """Store histories, which replace those that were stored."""

    async def delete(self, user_ids: Sequence[str]) -> None:
        """Delete users: their histories, and their vectors of all models."""

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """Make a collection of vectors if it does not exist, bring it into memory, and tell how complete it is."""

    async def mark(self, vectors: UserVectors) -> None:
        """Record how complete a collection of vectors is."""

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        """The `updated_at` of the histories that stored vectors were made from; users without vectors are absent."""

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], updated_at: Sequence[int], interests: Float32
    ) -> None:
        """Store the [U, K, D] unit vectors of users, which replace those that were stored."""

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """Delete all vectors of users in one collection."""

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        """The `limit` interests, at most `MAX_HITS`, nearest to each of the [Q, D] unit vectors."""

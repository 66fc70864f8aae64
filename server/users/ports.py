"""What remembering users needs of a vector database. `mind.milvus` implements it, and so does the fake of the tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from mind.artifact import Float32
from mind.milvus.users import Neighbours, StoredUser, UserVectors


class UserStore(Protocol):
    """What remembering users needs of a vector database. Every method raises `StoreError`.

    `strong`: see everything that was written before the call, by whomever, 0.2 to 0.6 s later; otherwise what was
    written until about 0.5 s ago.
    """

    async def open(self) -> None:
        """Make the collection of histories if it is not there, and bring it into memory."""

    async def count(self) -> int:
        """Remembered users, exactly."""

    async def read(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, StoredUser]:
        """Remembered users; those who are not are absent."""

    async def updated_at(self, user_ids: Iterable[str], strong: bool = False) -> dict[str, int]:
        """When users were written, in ms since 1970; those who are not remembered are absent."""

    async def changed(self, since: int, after: str, limit: int) -> dict[str, int]:
        """The first users after `after`, by their keys, written at `since` or later, and when."""

    async def write(self, users: Mapping[str, StoredUser]) -> None:
        """Store histories, in the place of what was there."""

    async def delete(self, user_ids: Sequence[str]) -> None:
        """Remove histories, and the vectors of all models."""

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """Make a collection of vectors if it is not there, bring it into memory, and tell how far it is."""

    async def mark(self, vectors: UserVectors) -> None:
        """Write down how far a collection of vectors is."""

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        """`updated_at` of the histories that the stored vectors were made from; users without vectors are absent."""

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], updated_at: Sequence[int], interests: Float32
    ) -> None:
        """Store the [U, K, D] unit vectors of users, in the place of what was there."""

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """Remove all vectors of users."""

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        """The `limit` interests, at most `MAX_HITS`, nearest to each of the [Q, D] unit vectors."""

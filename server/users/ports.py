"""The port to the vector database that remembers users: `UserStore`, and the values that pass through it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mind.artifact import Float32
from mind.milvus.users import UserVectors
from mind.sequences import Int64


@dataclass(frozen=True)
class StoredUser:
    """The stored history of a user."""

    hist_item: Int64
    """[n] int64 external ids, oldest first."""
    updated_at: int
    """When it was written, in milliseconds since 1970."""


@dataclass(frozen=True)
class Neighbours:
    """The interests that Q searches found, in columns: those of search 0, nearest first, then those of search 1, ..."""

    keys: list[str]
    """[H] interest keys; `mind.milvus.users.user_id_of` gives the user of each."""
    scores: Float32
    """[H] float32 cosines."""
    lengths: Int64
    """[Q] int64, number of hits of each search."""


class UserStore(Protocol):
    """What remembering users needs of a vector database. Every method raises StoreError or a child of it.

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

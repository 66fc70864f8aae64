"""The interface to the vector database for remembered users. `mind.milvus` and the tests' fake implement it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from mind.artifact import Float32
from mind.milvus.histories import HISTORIES, Head, StoredUser
from mind.milvus.users import Neighbours, UserVectors
from mind.sequences import Int64


class UserStore(Protocol):
    """What remembering users needs of a vector database. Every method raises `StoreError`.

    With `strong`, a read sees everything that any server wrote before the call, and takes 0.2 to 0.6 s. Otherwise it
    sees what was written until about 0.5 s ago. `name` is the collection: `HISTORIES`, or `SHOWN`, which stores in the
    same form what users were shown.
    """

    async def open(self) -> None:
        """Make the collections of histories and of what was shown if they do not exist, and bring them into memory."""

    async def count(self) -> int:
        """Count the rows with clicks under strong consistency. A user has one row, or more until the next update if two
        servers wrote it at the same moment."""

    async def histories(self, user_ids: Iterable[str]) -> dict[str, Int64]:
        """Return the ids of users' histories, oldest first; users who are not remembered are absent."""

    async def read(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, StoredUser]:
        """Return what is stored of users, tombstones included; users of whom nothing is stored are absent."""

    async def heads(self, user_ids: Iterable[str], strong: bool = False, name: str = HISTORIES) -> dict[str, Head]:
        """Return the same as `read` without the clicks."""

    async def changed(self, since: int, after: str, limit: int) -> tuple[list[str], str]:
        """Return a page of users that were written at `since` (ms since 1970) or later, by key, and the last key.

        The page has the first rows after the key `after`. It has no users if there are no more rows.
        """

    async def write(self, users: Mapping[str, StoredUser], name: str = HISTORIES) -> None:
        """Store each user as a new row, or as several if one cannot hold all ids. Then remove the rows of
        `StoredUser.rows` that are not of the earlier format.

        If it is interrupted, rows of both stay. Merged, they are the same history.
        """

    async def forget(self, user_ids: Sequence[str]) -> None:
        """Delete the vectors of users in the collections of all models, and their rows of the earlier format."""

    async def open_vectors(self, wanted: UserVectors) -> UserVectors:
        """Make a collection of vectors if it does not exist, bring it into memory, and tell how complete it is."""

    async def mark(self, vectors: UserVectors) -> None:
        """Record how complete a collection of vectors is."""

    async def encoded_at(self, vectors: UserVectors, user_ids: Iterable[str]) -> dict[str, int]:
        """Return the versions of the histories that stored vectors were made from; users without vectors are absent."""

    async def write_vectors(
        self, vectors: UserVectors, user_ids: Sequence[str], versions: Sequence[int], interests: Float32
    ) -> None:
        """Store the [U, K, D] unit vectors of users, which replace those that were stored."""

    async def delete_vectors(self, vectors: UserVectors, user_ids: Sequence[str]) -> None:
        """Delete all vectors of users in one collection."""

    async def nearest(self, vectors: UserVectors, queries: Float32, limit: int, timeout_s: float) -> Neighbours:
        """Return the `limit` interests, at most `MAX_HITS`, nearest to each of the [Q, D] unit vectors."""

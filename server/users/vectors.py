"""The interest vectors of remembered users. They follow the histories, release after release.

Vectors are made from histories and can always be made again. A server that wrote vectors reads the histories again
afterwards, under strong consistency. It deletes the vectors of users that were deleted meanwhile, and makes those of
users that were written meanwhile again. So servers and the indexer may write at the same time, and a deleted user does
not return.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from mind.artifact import Float32
from mind.milvus.collection import MAX_HITS
from mind.milvus.histories import Head, StoredUser
from mind.milvus.users import (
    CLOCK_MARGIN_MS,
    Neighbours,
    UserVectors,
    now_ms,
    unit_interests,
    user_id_of,
)
from mind.sequences import Int64
from server.channels import Channels
from server.errors import FAILURES, UserVectorsIncompleteError
from server.release import Release
from server.serving.offload import ITEMS_PER_USER, computed
from server.users.ports import UserStore

logger = logging.getLogger(__name__)

PAGE_USERS = 500
"""Most users that a catch-up reads at once, and encodes if necessary."""
MAX_ROUNDS = 10
"""How often a user is encoded again because its history changed meanwhile. After that, the next write does it."""
PAIR_ITEMS = 10
"""Processing a user and a score takes as long as processing this many items (`server.serving.offload`)."""
_NO_VERSION = -1
"""A version that no history has."""

_Ranked = list[tuple[str, float]]
"""Users and their scores, best first."""


class UserVectorIndex:
    """Writes and searches the users' vectors of the releases that are served."""

    def __init__(self, store: UserStore, encode_on: Executor) -> None:
        """Prepare to write and search. `encode_on` is the executor of `server.serving.pipeline`."""
        self._store = store
        self._encode_on = encode_on
        self._opening = asyncio.Lock()
        self._opened: dict[str, UserVectors] = {}
        """What was opened for the releases that are served, by their collections of items."""
        self._caught_up: set[str] = set()
        """The collections of items of releases whose vectors are in step with all histories."""
        self.writing = asyncio.Lock()
        """A lock that is held while histories or vectors are written, so that one server writes both in the same order.
        """

    async def open(self, release: Release) -> UserVectors:
        """Return the collection of a release's vectors. Make it if it does not exist, and load it into memory."""
        async with self._opening:
            opened = self._opened.get(release.collection)
            if opened and opened.complete:
                return opened
            await self._store.open()
            sizes = release.hyper_parameters.num_interests, release.hyper_parameters.embedding_dim
            wanted = UserVectors(model_version=release.model_version, num_interests=sizes[0], dim=sizes[1])
            vectors = await self._store.open_vectors(wanted)
            if not vectors.complete:
                now = now_ms()
                if await self._store.count() == 0:  # there is no user to encode
                    vectors = vectors.model_copy(update={"synced_from": now})
                    await self._store.mark(vectors)
            self._opened[release.collection] = vectors
            return vectors

    async def prepare(self, channels: Channels) -> None:
        """Make and load the collections that calls need. Milvus takes seconds for a new one: no caller shall wait.

        The collection of a release's vectors is made later if the release is not loaded yet.
        """
        try:
            async with self._opening:
                await self._store.open()
            for release in channels.served:
                await self.open(release)
        except FAILURES as error:
            logger.warning("the collections of remembered users cannot be opened yet: %s", error)

    def forget(self) -> None:
        """Check at the next use whether the collections exist, because another process dropped one."""
        self._opened.clear()

    async def write(self, releases: Sequence[Release], users: dict[str, StoredUser]) -> None:
        """Encode histories with the model of each release and store the vectors; `writing` must be held."""
        versions = [user.version for user in users.values()]
        for release in releases:
            vectors = await self.open(release)
            interests = await self.encode(release, [user.hist_item for user in users.values()])
            await self._store.write_vectors(vectors, list(users), versions, interests)

    async def settle(self, releases: Sequence[Release], expected: Mapping[str, int | None]) -> dict[str, Head]:
        """Wait until every server sees the written histories, and bring the vectors in step with what others did.

        `writing` must be held.

        Args:
            releases: their vectors were written.
            expected: for each user, the version of the history that the vectors were made from; None if there are none.

        Returns:
            What every server sees of these users now; users of whom nothing is stored are absent.
        """
        seen: dict[str, Head] = {}
        for _ in range(MAX_ROUNDS):
            found = await self._store.heads(expected, strong=True)
            seen |= found
            now = {user_id: found[user_id].version for user_id in found if found[user_id].remembered}
            changed = [user_id for user_id, version in expected.items() if now.get(user_id) != version]
            if not changed:
                break
            gone = [user_id for user_id in changed if user_id not in now]
            for release in releases if gone else ():
                await self._store.delete_vectors(await self.open(release), gone)
            again = await self._encode_again(releases, [user_id for user_id in changed if user_id in now])
            expected = dict.fromkeys(gone) | again  # looked up again: another server may have written meanwhile
        return seen

    async def _encode_again(self, releases: Sequence[Release], user_ids: Sequence[str]) -> dict[str, int]:
        """Write vectors for the current histories. Return the versions of these histories."""
        if not user_ids:
            return {}
        stored = await self._store.read(user_ids, strong=True)
        users = {user_id: user for user_id, user in stored.items() if len(user.hist_item)}
        if users:
            await self.write(releases, users)
        return dict.fromkeys(user_ids, _NO_VERSION) | {user_id: user.version for user_id, user in users.items()}

    async def encode(self, release: Release, histories: Sequence[Int64]) -> Float32:
        """Return the [U, K, D] float32 unit vectors of U histories."""
        arguments = (histories, release.vocabulary, release.encoder, release.hyper_parameters)
        if release.encoder.inline:
            items = sum(map(len, histories)) + ITEMS_PER_USER * len(histories)
            return await computed(items, unit_interests, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._encode_on, unit_interests, *arguments)

    async def similar(
        self, release: Release, interests: Float32, own: Sequence[str], top_k: int, timeout_s: float
    ) -> list[_Ranked]:
        """Return the remembered users nearest to each of U users, with the best cosine over all pairs of interests.

        Args:
            release: of the vectors.
            interests: [U, K, D] float32 unit vectors, as `encode` returns them.
            own: the ids of the U users, each left out of its own list; empty for a user without an id.
            top_k: most users in a list.
            timeout_s: longest wait for the search.

        Raises:
            UserVectorsIncompleteError: not all users are encoded with this model yet.
        """
        vectors = await self.open(release)
        if not vectors.complete:
            raise UserVectorsIncompleteError(
                f"the remembered users are being encoded with model {release.model_version}; `python -m indexer "
                "publish` with --artifact does that before servers switch"
            )
        user, _ = searched = np.nonzero(np.any(interests, axis=2))
        if not len(user):
            return [[] for _ in own]
        limit = min(MAX_HITS, (top_k + 1) * vectors.num_interests)  # enough even if all interests of a user are hits
        found = await self._store.nearest(vectors, interests[searched], limit, timeout_s)
        # In a thread, because it would delay all other calls.
        ranked, theirs = await asyncio.to_thread(_ranked, found, user, own, top_k)
        # A user without a history is deleted, even if a writer has not removed all vectors yet.
        heads = await self._store.heads(theirs)
        return await computed(PAIR_ITEMS * sum(map(len, ranked)), _remembered, ranked, heads)

    async def catch_up(self, release: Release) -> None:
        """Encode the users that servers of another release wrote since this release was published."""
        if release.collection in self._caught_up:
            return
        vectors = await self.open(release)
        if not vectors.complete:
            logger.warning(
                "encoding all remembered users with model %s: it was published without", release.model_version
            )
        started = now_ms()
        await self._store.count()  # strong consistency: what was written before is seen from now on
        encoded, after = 0, ""
        since = max(0, vectors.synced_from - CLOCK_MARGIN_MS)
        while True:
            page, after = await self._store.changed(since, after, PAGE_USERS)
            if not page:
                break
            encoded += await self._catch_up_page(release, vectors, page)
        vectors = vectors.model_copy(update={"synced_from": started})
        await self._store.mark(vectors)
        async with self._opening:
            self._opened[release.collection] = vectors
        self._caught_up.add(release.collection)
        logger.info("users are in step with model %s: %d encoded", release.model_version, encoded)

    async def _catch_up_page(self, release: Release, vectors: UserVectors, page: list[str]) -> int:
        encoded_at = await self._store.encoded_at(vectors, page)
        heads = await self._store.heads(page)
        behind = [id_ for id_, head in heads.items() if head.remembered and encoded_at.get(id_) != head.version]
        if not behind:
            return 0
        async with self.writing:
            await self.settle([release], await self._encode_again([release], behind))
        return len(behind)

    async def follow(self, channels: Channels, interval_s: float) -> None:
        """Catch up with each release that is served, until the task is cancelled."""
        said: dict[str, str] = {}
        while True:
            served = channels.served
            collections = {release.collection for release in served}
            self._caught_up &= collections
            self._opened = {name: opened for name, opened in self._opened.items() if name in collections}
            for release in served:
                said[release.collection] = await self._try_to_catch_up(release, said.get(release.collection, ""))
            said = {name: reason for name, reason in said.items() if name in collections}
            await asyncio.sleep(interval_s)

    async def _try_to_catch_up(self, release: Release, said: str) -> str:
        """Catch up with a release. Return why that failed; `said`: why it failed before, which is not logged again."""
        try:
            await self.catch_up(release)
        except FAILURES as error:
            if said != str(error):
                told = release.model_version, error
                logger.warning("remembered users are not in step with model %s yet: %s", *told)
            return str(error)
        except Exception:
            logger.exception("catching up with remembered users failed")
        return ""


def _remembered(ranked: list[_Ranked], heads: Mapping[str, Head]) -> list[_Ranked]:
    there = {user_id for user_id, head in heads.items() if head.remembered}
    return [[pair for pair in pairs if pair[0] in there] for pairs in ranked]


def _ranked(found: Neighbours, user: Int64, own: Sequence[str], top_k: int) -> tuple[list[_Ranked], set[str]]:
    """Return the users and scores of each list, best first, and all these users.

    `user`: [Q] int64, the user of each search. `found` is emptied.
    """
    best: list[dict[str, float]] = [{} for _ in own]
    owner = np.repeat(user, found.lengths).tolist()
    for number, key, score in zip(owner, found.keys, found.scores.tolist(), strict=True):
        user_id = user_id_of(key)
        if user_id != own[number]:
            best[number][user_id] = max(score, best[number].get(user_id, -1.0))
    found.keys.clear()  # here, in a thread: to free some 100,000 texts takes as long as to read them
    ranked = [sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top_k] for scores in best]
    return ranked, {user_id for pairs in ranked for user_id, _ in pairs}

"""The calls about remembered users: decode, call, encode. Each fails with DisabledError unless users are remembered."""

import time
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import grpc

from mind.artifact import Float32
from protos.recall.v1 import recall_pb2
from server.channels import Channels
from server.edge.item_ids import ids_of, ids_of_updates
from server.edge.limits import check_batch, check_top_k, check_total, check_user_id
from server.edge.request import read_users
from server.edge.timeouts import within
from server.edge.user_request import read_updates
from server.errors import DisabledError, StoreUnavailableError
from server.releases import Releases
from server.serving.answer import Status
from server.serving.inputs import status_of
from server.serving.offload import computed
from server.serving.question import Query, UserQuery
from server.settings import Settings
from server.users.histories import RememberedUsers, Written
from server.users.ports import UserStore
from server.users.shown import ShownItems
from server.users.vectors import PAIR_ITEMS, UserVectorIndex

Context = grpc.aio.ServicerContext[Any, Any]


class UserService:
    """Answers the calls about users for `server.edge.service`."""

    def __init__(self, settings: Settings, store: UserStore | None, encode_on: Executor) -> None:
        """`store`: None if users are not remembered; `encode_on`: as in `server.serving.pipeline`."""
        self._settings = settings
        self._timeout_s = settings.search_timeout_ms / 1000
        self._remembered: tuple[RememberedUsers, UserVectorIndex] | None = None
        if store:
            vectors = UserVectorIndex(store, encode_on)
            shown = ShownItems(store, settings.max_shown, settings.shown_ttl, settings.max_queued_users)
            users = RememberedUsers(store, vectors, shown, settings.max_stored_history, settings.max_queued_users)
            self._remembered = users, vectors

    async def prepare(self, channels: Channels) -> None:
        """Make and load the collections that calls about users need."""
        if self._remembered:
            await self._remembered[1].prepare(channels)

    async def follow(self, channels: Channels) -> None:
        """Keep the users' vectors in step with the releases that are served, until cancelled."""
        if self._remembered:
            await self._remembered[1].follow(channels, self._settings.watch_interval_s)

    async def with_histories(self, query: Query, context: Context) -> tuple[Query, float]:
        """A query with what is stored of its users and wanted: histories, and items that must not be shown again.

        Gives the milliseconds that reading it took, too. With `--degraded`, users of whom it cannot be read are marked
        as unread, and no error is raised.
        """
        if not self._remembered or not any(user.user_id or user.shown_to for user in query.users):
            return query, 0.0
        remembered = self._remembered[0]
        started = time.perf_counter()
        users = query.users
        try:
            users = await remembered.with_histories(users, context.time_remaining())
            users = await remembered.with_shown(users, context.time_remaining())
        except StoreUnavailableError:
            if not self._settings.degraded:
                raise
            users = [_unread(user) for user in users]
        return replace(query, users=users), (time.perf_counter() - started) * 1000

    async def upsert(
        self, channels: Channels, request: recall_pb2.UpsertUsersRequest, context: Context
    ) -> recall_pb2.UpsertUsersResponse:
        """Store what users clicked."""
        remembered, _ = self._enabled()
        release = channels.of(request.channel).current
        ids = ids_of_updates(request.users)
        updates = await computed(ids, read_updates, request, self._settings, release.has_text_ids, release.events)
        written = await remembered.upsert(channels.served, updates, context.time_remaining())
        results = [
            recall_pb2.UserWritten(
                status=_status(one.status), history_length=one.length, detail=one.detail, dropped=one.dropped
            )
            for one in written
        ]
        return recall_pb2.UpsertUsersResponse(results=results, model_version=release.model_version)

    async def find_similar(
        self, releases: Releases, request: recall_pb2.FindSimilarUsersRequest, context: Context
    ) -> recall_pb2.FindSimilarUsersResponse:
        """Find the remembered users nearest to each user of the request."""
        remembered, vectors = self._enabled()
        release = releases.current
        how = self._settings, release.has_text_ids
        asked = await computed(ids_of(request.users), _read_similar, request, *how)
        users = await remembered.with_histories(asked, context.time_remaining())
        interests = await vectors.encode(release, [user.hist_item for user in users])
        own = [user.user_id for user in request.users]
        found = await within(
            context.time_remaining(),
            self._timeout_s,
            lambda timeout_s: vectors.similar(release, interests, own, request.top_k, timeout_s),
        )
        results = await computed(PAIR_ITEMS * sum(map(len, found)), _similar, users, interests, found)
        collection = (await vectors.open(release)).collection
        return recall_pb2.FindSimilarUsersResponse(
            results=results, model_version=release.model_version, collection=collection, channel=releases.channel
        )

    async def delete(
        self, channels: Channels, request: recall_pb2.DeleteUsersRequest, context: Context
    ) -> recall_pb2.DeleteUsersResponse:
        """Delete remembered users."""
        remembered, _ = self._enabled()
        check_batch("user_ids", request.user_ids, self._settings)
        served = channels.served or [channels.default.current]
        invalid = {user_id: check_user_id(user_id) for user_id in request.user_ids}
        valid = [user_id for user_id in request.user_ids if not invalid[user_id]]
        deleted = iter(await remembered.delete(served, valid, context.time_remaining()) if valid else [])
        all_of_them = [
            Written(Status.INVALID, detail=invalid[user_id]) if invalid[user_id] else next(deleted)
            for user_id in request.user_ids
        ]
        results = [recall_pb2.UserDeleted(status=_status(one.status), detail=one.detail) for one in all_of_them]
        return recall_pb2.DeleteUsersResponse(results=results, model_version=served[0].model_version)

    def _enabled(self) -> tuple[RememberedUsers, UserVectorIndex]:
        if not self._remembered:
            raise DisabledError("the server does not remember users; --users enables it", "USERS_DISABLED")
        return self._remembered


def _unread(user: UserQuery) -> UserQuery:
    """The user, marked as unread if something that is stored was wanted."""
    what = "the history" if user.user_id else "what was shown" if user.shown_to else ""
    return replace(user, unread=f"Milvus does not answer, and {what} is there") if what else user


def _read_similar(request: recall_pb2.FindSimilarUsersRequest, limits: Settings, text: bool) -> list[UserQuery]:
    check_batch("users", request.users, limits)
    check_top_k(request.top_k, limits)
    check_total(len(request.users), request.top_k, "similar ones", limits.max_similar)
    return read_users(request.users, limits, text)


def _similar(
    users: list[UserQuery], interests: Float32, found: list[list[tuple[str, float]]]
) -> list[recall_pb2.SimilarUsers]:
    """The results for each user. Uses `found` up."""
    results = []
    for user, interest, pairs in zip(users, interests, found, strict=True):
        status = _status(status_of(user, bool(interest.any())))
        user_ids, scores = zip(*pairs, strict=True) if pairs else ((), ())
        results.append(recall_pb2.SimilarUsers(user_ids=user_ids, scores=scores, status=status, detail=user.invalid))
        pairs.clear()
    return results


def _status(status: Status) -> Any:
    return int(status)

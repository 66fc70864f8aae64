"""The asyncio client."""

# The generated stubs have no types.
# mypy: disable-error-code="no-any-return"

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import grpc
import grpc.aio

from clients.core import (
    HEALTH_SERVING,
    ClientCore,
    Deadline,
    History,
    MergeStrategyName,
    NeighboursName,
    RecallResult,
    health_request,
    join_responses,
)
from clients.ids import ItemIds
from clients.requests import NO_RULES, Boost, Explore, rules_of
from clients.similar import ItemQuery, SimilarBy, SimilarItemsResult, join_similar
from protos.recall.v1 import admin_pb2, recall_pb2

_MAX_CONCURRENT_REQUESTS = 4


class AsyncRecallClient(ClientCore):
    """The client for asyncio. It has the methods of `RecallClient`, which are awaited here.

    You can make it anywhere, also while a module is imported. A gRPC channel belongs to the event loop that uses it
    first, so the client opens a channel for each loop. `close` closes the channel of the running loop. If a batch is
    split, four requests are in progress at a time.

        async with AsyncRecallClient("recall:50051", timeout_s=0.2) as client:
            (await client.recall([[43, 23, 65]], top_k=50)).item_ids[0]
    """

    _transport: ClassVar[Any] = grpc.aio

    async def recall(
        self,
        histories: Sequence[History],
        *,
        top_k: int,
        filter: str = "",  # noqa: A002
        exclude_history: bool = False,
        exclude_item_ids: Sequence[ItemIds] | None = None,
        merge_strategy: MergeStrategyName = "best_score",
        neighbours: NeighboursName = "default",
        return_attributes: Sequence[str] = (),
        exclude_shown: bool = False,
        paged: bool = False,
        page_token: bytes = b"",
        at_most: Mapping[str, int] = NO_RULES,
        per_interest_min: int = 0,
        diversity: float = 0,
        boosts: Sequence[Boost] = (),
        pin: ItemIds = (),
        explore: Explore | None = None,
        now_unix_s: int = 0,
        release_rules: bool = True,
        channel: str = "",
        split_key: str = "",
        timeout_s: float | None = None,
    ) -> RecallResult:
        """Find up to `top_k` candidates for every user; see `RecallClient.recall`."""
        deadline = self._deadline(timeout_s)
        rules = rules_of(at_most, per_interest_min, diversity, boosts, pin, explore, now_unix_s, release_rules)
        how = filter, exclude_history, exclude_item_ids, merge_strategy, neighbours, return_attributes, rules
        requests = self._recall_requests(histories, top_k, *how, exclude_shown, paged, page_token, channel, split_key)
        return join_responses(await self._call_all(self._stubs().recall.Recall, requests, deadline))

    async def count_items(
        self,
        filter: str = "",  # noqa: A002
        *,
        channel: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.CountItemsResponse:
        """Count the released items, all of them or those that match a filter."""
        request = recall_pb2.CountItemsRequest(filter=filter, channel=channel)
        return await self._call(self._stubs().recall.CountItems, request, self._deadline(timeout_s))

    async def get_server_info(
        self, *, channel: str = "", timeout_s: float | None = None
    ) -> recall_pb2.GetServerInfoResponse:
        """Ask which model is served in a channel, and which channels, limits and options the server has."""
        request = recall_pb2.GetServerInfoRequest(channel=channel)
        return await self._call(self._stubs().recall.GetServerInfo, request, self._deadline(timeout_s))

    async def explain(
        self,
        history: History,
        *,
        top_k: int,
        filter: str = "",  # noqa: A002
        exclude_history: bool = False,
        exclude_item_ids: ItemIds = (),
        merge_strategy: MergeStrategyName = "best_score",
        neighbours: NeighboursName = "default",
        return_attributes: Sequence[str] = (),
        exclude_shown: bool = False,
        at_most: Mapping[str, int] = NO_RULES,
        per_interest_min: int = 0,
        diversity: float = 0,
        boosts: Sequence[Boost] = (),
        pin: ItemIds = (),
        explore: Explore | None = None,
        now_unix_s: int = 0,
        release_rules: bool = True,
        channel: str = "",
        split_key: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.ExplainResponse:
        """Run `recall` for one user and show every step. The arguments are those of `recall`."""
        rules = rules_of(at_most, per_interest_min, diversity, boosts, pin, explore, now_unix_s, release_rules)
        how = filter, exclude_history, exclude_item_ids, merge_strategy, neighbours, return_attributes, rules
        request = self._explain_request(history, top_k, *how, exclude_shown, channel, split_key)
        return await self._call(self._stubs().recall.Explain, request, self._deadline(timeout_s))

    async def similar_items(
        self,
        queries: Sequence[ItemQuery],
        *,
        top_k: int,
        filter: str = "",  # noqa: A002
        exclude_item_ids: Sequence[ItemIds] | None = None,
        by: SimilarBy = "embedding",
        return_attributes: Sequence[str] = (),
        channel: str = "",
        timeout_s: float | None = None,
    ) -> SimilarItemsResult:
        """Find the items most similar to those of each query; see `RecallClient.similar_items`."""
        deadline = self._deadline(timeout_s)
        how = {"filter": filter, "by": by, "channel": channel}
        requests = self._similar_items_requests(queries, exclude_item_ids, top_k, return_attributes, **how)
        return join_similar(await self._call_all(self._stubs().recall.SimilarItems, requests, deadline))

    async def get_items(
        self, item_ids: ItemIds, *, return_attributes: Sequence[str], channel: str = "", timeout_s: float | None = None
    ) -> recall_pb2.GetItemsResponse:
        """Ask for the attributes of items, with one request; see `RecallClient.get_items`."""
        request = self._items_request(item_ids, return_attributes, channel)
        return await self._call(self._stubs().recall.GetItems, request, self._deadline(timeout_s))

    async def upsert_users(
        self,
        hist_item: Mapping[str, ItemIds] | recall_pb2.UpsertUsersRequest | None = None,
        *,
        append_item_ids: Mapping[str, ItemIds] | None = None,
        events: Mapping[str, Sequence[str]] | None = None,
        shown_item_ids: Mapping[str, ItemIds] | None = None,
        channel: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.UpsertUsersResponse:
        """Store the histories of users; see `RecallClient.upsert_users`."""
        request = self._upsert_request(hist_item, append_item_ids, events, shown_item_ids, channel)
        return await self._call(self._stubs().recall.UpsertUsers, request, self._deadline(timeout_s))

    async def find_similar_users(
        self, users: Sequence[History], *, top_k: int, channel: str = "", timeout_s: float | None = None
    ) -> recall_pb2.FindSimilarUsersResponse:
        """Find the `top_k` remembered users who are most similar to each of the users, with one request."""
        request = self._similar_request(users, top_k, channel)
        return await self._call(self._stubs().recall.FindSimilarUsers, request, self._deadline(timeout_s))

    async def delete_users(
        self, user_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> recall_pb2.DeleteUsersResponse:
        """Delete remembered users from every release, with one request."""
        request = recall_pb2.DeleteUsersRequest(user_ids=user_ids)
        return await self._call(self._stubs().recall.DeleteUsers, request, self._deadline(timeout_s))

    async def log_feedback(
        self,
        kind: str,
        item_ids: ItemIds,
        *,
        user_id: str = "",
        recall_id: str = "",
        time_ms: int | None = None,
        channel: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.LogFeedbackResponse:
        """Write what a user did with items to the server's log; see `RecallClient.log_feedback`."""
        request = self._feedback_request(kind, item_ids, user_id, recall_id, time_ms, channel)
        return await self._call(self._stubs().recall.LogFeedback, request, self._deadline(timeout_s))

    async def drop_items(
        self, collection: str, *, allow_live: bool = False, timeout_s: float | None = None
    ) -> admin_pb2.DropItemsResponse:
        """Drop an item collection with its index. Needs the admin token."""
        request = admin_pb2.DropItemsRequest(collection=collection, allow_live=allow_live)
        return await self._call(self._stubs().admin.DropItems, request, self._deadline(timeout_s))

    async def reload(self, *, channel: str = "", timeout_s: float | None = None) -> admin_pb2.ReloadResponse:
        """Make the server look for a new release of a channel at once. Needs the admin token."""
        request = admin_pb2.ReloadRequest(channel=channel)
        return await self._call(self._stubs().admin.Reload, request, self._deadline(timeout_s))

    async def is_serving(
        self, *, service: str = "", timeout_s: float | None = None, wait_for_ready: bool = False
    ) -> bool:
        """Ask whether the server is ready (grpc.health.v1). `wait_for_ready` keeps trying to connect.

        Args:
            service: "liveness" asks only whether the process works, also while Milvus is away or there is no release.
                "recall.v1.RecallService/b" asks about the channel b.
            timeout_s: the deadline of the call.
            wait_for_ready: keeps trying to connect until the deadline.
        """
        deadline, request = self._deadline(timeout_s), health_request(service)
        health = await self._call(self._stubs().health_check, request, deadline, wait_for_ready=wait_for_ready)
        return health == HEALTH_SERVING

    def _owner(self) -> object:
        return asyncio.get_running_loop()

    async def close(self) -> None:
        """Close the channel of the running loop, unless the caller brought it."""
        if stubs := self._taken():
            await stubs.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _call_all(self, method: Any, requests: Sequence[Any], deadline: Deadline) -> list[Any]:
        """The answers to the requests of one batch, in order."""
        slots = asyncio.Semaphore(_MAX_CONCURRENT_REQUESTS)

        async def call(request: Any) -> Any:
            async with slots:
                return await self._call(method, request, deadline)

        calls = [asyncio.create_task(call(request)) for request in requests]
        try:
            return await asyncio.gather(*calls)
        finally:
            for task in calls:  # one failed: the others are of no use
                task.cancel()

    async def _call(self, method: Any, request: Any, deadline: Deadline, **options: bool) -> Any:
        try:
            return await method(request, timeout=deadline.remaining_s(), metadata=self._metadata, **options)
        except grpc.RpcError as error:
            raise self._failed(error) from error

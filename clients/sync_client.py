"""The blocking client."""

# The generated stubs have no types.
# mypy: disable-error-code="no-any-return"

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import grpc

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


class RecallClient(ClientCore):
    """Calls the recall service and waits for the answers. All threads of a process can share one client.

    If your program forks, make the client in the child process, because gRPC's threads do not survive a fork. A failed
    call raises RecallError.

        with RecallClient("recall:50051", timeout_s=0.2) as client:
            client.recall([[43, 23, 65]], top_k=50).item_ids[0]

    Item ids are integers or text, as in the release (`id_type` of `get_server_info`). Pass text ids as str:
    `client.recall([["KIT-1", "KIT-2"]], top_k=50)`.
    """

    _transport: ClassVar[Any] = grpc

    def recall(
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
        """Find up to `top_k` candidates for every user. A large batch is split into several requests.

        Args:
            histories: for each user, a list of item ids, oldest first; or the `user_id` of a remembered user, as text;
                or a ready `User`.
            top_k: how many candidates are wanted per user.
            filter: a Milvus boolean expression over item attributes. Empty means no filter.
            exclude_history: leaves out the items of the user's own history.
            exclude_item_ids: for each user, ids of items to leave out.
            merge_strategy: how the candidates of the interests become one list.
            neighbours: whether items that users clicked soon after the newest clicks are candidates too: on, off, or as
                the release does by default. `source` of the answer then tells what found each candidate.
            return_attributes: names of attributes to return with the candidates (`attributes` of the result).
            exclude_shown: leaves out what `upsert_users` says that users were shown. Give a `User` with a `user_id` and
                a history where the service does not store the history.
            paged: asks for `next_page_token` of the result, which continues the lists. Such a batch is never split.
            page_token: the `next_page_token` of the page before. The answer then has the next `top_k` of each user,
                from the same release and without repeats. The other arguments are those of the first page.
            at_most: attributes, and how many candidates of a user may share a value of each: `{"category": 5}`.
            per_interest_min: how many candidates each interest of a user has at least.
            diversity: how much candidates shall differ from one another, 0 to 1 (MMR).
            boosts: what is added to the scores of some items for their places, in this order: dicts such as
                `{"filter": "margin > 0.3", "add": 0.2}` or
                `{"attribute": "published_at", "half_life_days": 14, "weight": 0.5}`. `added` of the answer tells it.
            pin: ids of items that come first for every user, in this order.
            explore: places for items that are drawn: `{"share": 0.05, "filter": "...", "seed": 7}`.
            now_unix_s: the time for boosts by age, in seconds since 1970. 0 is the server's clock.
            release_rules: whether the rules of the release apply too (`indexer publish --rules`).
            channel: the channel whose release answers, such as "b". Empty: the server's split by `split_key` decides,
                or else it is the server's default channel. `channels` of the result tells it.
            split_key: what a server with `--split` assigns to a channel, for example the id of the user or session.
            timeout_s: the deadline of the whole batch.

        Returns:
            the candidates of every user, in the order of `histories`.

        Raises:
            RecallError: a request failed. The subclass tells why.
            TypeError: an argument has the wrong type, or there is no `timeout_s`.
            ValueError: an id does not fit 64 bits or is not valid text.
        """
        deadline = self._deadline(timeout_s)
        rules = rules_of(at_most, per_interest_min, diversity, boosts, pin, explore, now_unix_s, release_rules)
        how = filter, exclude_history, exclude_item_ids, merge_strategy, neighbours, return_attributes, rules
        requests = self._recall_requests(histories, top_k, *how, exclude_shown, paged, page_token, channel, split_key)
        return join_responses([self._call(self._stubs().recall.Recall, request, deadline) for request in requests])

    def count_items(
        self,
        filter: str = "",  # noqa: A002
        *,
        channel: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.CountItemsResponse:
        """Count the released items, all of them or those that match a filter."""
        request = recall_pb2.CountItemsRequest(filter=filter, channel=channel)
        return self._call(self._stubs().recall.CountItems, request, self._deadline(timeout_s))

    def get_server_info(self, *, channel: str = "", timeout_s: float | None = None) -> recall_pb2.GetServerInfoResponse:
        """Ask which model is served in a channel, and which channels, limits and options the server has."""
        request = recall_pb2.GetServerInfoRequest(channel=channel)
        return self._call(self._stubs().recall.GetServerInfo, request, self._deadline(timeout_s))

    def explain(
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
        return self._call(self._stubs().recall.Explain, request, self._deadline(timeout_s))

    def similar_items(
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
        """Find the `top_k` items most similar to those of each query. A large batch is split into several requests.

        Args:
            queries: for each answer, an item id, or a list of them, or a ready `ItemQuery`.
            top_k: how many similar items are wanted per query.
            filter: a Milvus boolean expression that similar items must match. Empty means no filter.
            exclude_item_ids: for each query, ids of items to leave out. Those of the query are never in its answer.
            by: embedding: the cosine of embeddings. neighbours: what users clicked soon after. both: they take turns.
            return_attributes: names of attributes to return with the items (`attributes` of the result).
            channel: the channel whose release answers. Empty is the server's default channel.
            timeout_s: the deadline of the whole batch.
        """
        deadline = self._deadline(timeout_s)
        how = {"filter": filter, "by": by, "channel": channel}
        requests = self._similar_items_requests(queries, exclude_item_ids, top_k, return_attributes, **how)
        return join_similar([self._call(self._stubs().recall.SimilarItems, request, deadline) for request in requests])

    def get_items(
        self, item_ids: ItemIds, *, return_attributes: Sequence[str], channel: str = "", timeout_s: float | None = None
    ) -> recall_pb2.GetItemsResponse:
        """Ask for the attributes of items, with one request; `clients.attributes_of` reads them from the answer."""
        request = self._items_request(item_ids, return_attributes, channel)
        return self._call(self._stubs().recall.GetItems, request, self._deadline(timeout_s))

    def upsert_users(
        self,
        hist_item: Mapping[str, ItemIds] | recall_pb2.UpsertUsersRequest | None = None,
        *,
        append_item_ids: Mapping[str, ItemIds] | None = None,
        events: Mapping[str, Sequence[str]] | None = None,
        shown_item_ids: Mapping[str, ItemIds] | None = None,
        channel: str = "",
        timeout_s: float | None = None,
    ) -> recall_pb2.UpsertUsersResponse:
        """Store the histories of users, so that `recall` can find them by `user_id`, and what users were shown.

        The call takes 0.2 to 0.6 s. After it, every server sees the change. It sends one request, which has at most as
        many users as the server's limit. The client repeats the call only if the server refused it before it wrote
        anything. After another failure, an append may have been written or not.

        The answer has a result for each user of `hist_item`, then of `append_item_ids`, then for those who are in
        `shown_item_ids` alone.

        Args:
            hist_item: for each `user_id`, the whole history, oldest first. It replaces what is stored. Or a ready
                request, which is sent as it is.
            append_item_ids: for each `user_id`, new clicks, oldest first. They follow what is stored.
            events: for each `user_id`, the kind of each of these clicks, such as `view`, in the same order. Only models
                that were trained with kinds know them. Clicks of kinds that are no history for the model are not
                stored, and `dropped` of the user's result counts them.
            shown_item_ids: for each `user_id`, items that the user was shown, which `exclude_shown` leaves out. A user
                need not have a history for that.
            channel: the channel whose type of item ids and kinds of clicks these are. Users are the same in all.
            timeout_s: the deadline of the call.
        """
        request = self._upsert_request(hist_item, append_item_ids, events, shown_item_ids, channel)
        return self._call(self._stubs().recall.UpsertUsers, request, self._deadline(timeout_s))

    def find_similar_users(
        self, users: Sequence[History], *, top_k: int, channel: str = "", timeout_s: float | None = None
    ) -> recall_pb2.FindSimilarUsersResponse:
        """Find the `top_k` remembered users who are most similar to each of the users, with one request."""
        request = self._similar_request(users, top_k, channel)
        return self._call(self._stubs().recall.FindSimilarUsers, request, self._deadline(timeout_s))

    def delete_users(
        self, user_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> recall_pb2.DeleteUsersResponse:
        """Delete remembered users from every release, with one request."""
        request = recall_pb2.DeleteUsersRequest(user_ids=user_ids)
        return self._call(self._stubs().recall.DeleteUsers, request, self._deadline(timeout_s))

    def log_feedback(
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
        """Write what a user did with items to the server's log, which is data for the next training.

        The client may repeat the call, because equal rows count once.

        Args:
            kind: what the user did, such as `click` or `buy`.
            item_ids: the items, at most 1,000.
            user_id: your own id of the user. Without it, `recall_id` stands for the user.
            recall_id: of the list that showed the items (`recall_ids` of the result of `recall`).
            time_ms: when, in milliseconds since 1970; None is now.
            channel: the channel that showed the items. Empty is the server's default channel.
            timeout_s: the deadline of the call.
        """
        request = self._feedback_request(kind, item_ids, user_id, recall_id, time_ms, channel)
        return self._call(self._stubs().recall.LogFeedback, request, self._deadline(timeout_s))

    def drop_items(
        self, collection: str, *, allow_live: bool = False, timeout_s: float | None = None
    ) -> admin_pb2.DropItemsResponse:
        """Drop an item collection with its index. Needs the admin token."""
        request = admin_pb2.DropItemsRequest(collection=collection, allow_live=allow_live)
        return self._call(self._stubs().admin.DropItems, request, self._deadline(timeout_s))

    def reload(self, *, channel: str = "", timeout_s: float | None = None) -> admin_pb2.ReloadResponse:
        """Make the server look for a new release of a channel at once. Needs the admin token."""
        request = admin_pb2.ReloadRequest(channel=channel)
        return self._call(self._stubs().admin.Reload, request, self._deadline(timeout_s))

    def is_serving(self, *, service: str = "", timeout_s: float | None = None, wait_for_ready: bool = False) -> bool:
        """Ask whether the server is ready (grpc.health.v1). `wait_for_ready` keeps trying to connect.

        Args:
            service: "liveness" asks only whether the process works, also while Milvus is away or there is no release.
                "recall.v1.RecallService/b" asks about the channel b.
            timeout_s: the deadline of the call.
            wait_for_ready: keeps trying to connect until the deadline.
        """
        deadline, request = self._deadline(timeout_s), health_request(service)
        health = self._call(self._stubs().health_check, request, deadline, wait_for_ready=wait_for_ready)
        return health == HEALTH_SERVING

    def _owner(self) -> object:
        return grpc  # one channel for all threads

    def close(self) -> None:
        """Close the channel, unless the caller brought it."""
        if stubs := self._taken():
            stubs.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _call(self, method: Any, request: Any, deadline: Deadline, **options: bool) -> Any:
        try:
            return method(request, timeout=deadline.remaining_s(), metadata=self._metadata, **options)
        except grpc.RpcError as error:
            raise self._failed(error) from error

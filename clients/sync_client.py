"""The blocking client."""

# The generated stubs have no types.
# mypy: disable-error-code="no-any-return"

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import grpc

from clients.core import (
    HEALTH_REQUEST,
    HEALTH_SERVING,
    ClientCore,
    Deadline,
    History,
    MergeStrategyName,
    RecallResult,
    join_responses,
)
from clients.ids import ItemIds
from protos.recall.v1 import admin_pb2, recall_pb2


class RecallClient(ClientCore):
    """Calls the recall service and waits for the answers; one client serves all threads of a process.

    Make it after a fork, not before: gRPC's threads do not follow into the child. A failed call raises RecallError.

        with RecallClient("recall:50051", timeout_s=0.2) as client:
            client.recall([[43, 23, 65]], top_k=50).item_ids[0]

    Item ids are integers or text, whichever the release has (`id_type` of `get_server_info`). The type of the values
    tells which: `client.recall([["KIT-1", "KIT-2"]], top_k=50)`.
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
        timeout_s: float | None = None,
    ) -> RecallResult:
        """Up to `top_k` candidates for every history, in order; a large batch becomes several requests.

        Args:
            histories: for each user, a list of item ids, oldest first, or the user_id of a remembered one as text, or a
                ready `User`.
            top_k: candidates per user.
            filter: Milvus boolean expression over item attributes.
            exclude_history: leave out what is in the user's own history.
            exclude_item_ids: for each user, ids that must not come back.
            merge_strategy: how the interests become one list.
            timeout_s: for the whole batch.
        """
        deadline = self._deadline(timeout_s)
        requests = self._recall_requests(histories, top_k, filter, exclude_history, exclude_item_ids, merge_strategy)
        return join_responses([self._call(self._stubs().recall.Recall, request, deadline) for request in requests])

    def count_items(self, filter: str = "", *, timeout_s: float | None = None) -> recall_pb2.CountItemsResponse:  # noqa: A002
        """The number of released items, all of them or those that match a filter."""
        request = recall_pb2.CountItemsRequest(filter=filter)
        return self._call(self._stubs().recall.CountItems, request, self._deadline(timeout_s))

    def get_server_info(self, *, timeout_s: float | None = None) -> recall_pb2.GetServerInfoResponse:
        """What is being served and which limits hold."""
        request = recall_pb2.GetServerInfoRequest()
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
        timeout_s: float | None = None,
    ) -> recall_pb2.ExplainResponse:
        """Every step of one user's recall; the arguments mean what they mean in `recall`."""
        request = self._explain_request(history, top_k, filter, exclude_history, exclude_item_ids, merge_strategy)
        return self._call(self._stubs().recall.Explain, request, self._deadline(timeout_s))

    def upsert_users(
        self,
        hist_item: Mapping[str, ItemIds] | None = None,
        *,
        append_item_ids: Mapping[str, ItemIds] | None = None,
        events: Mapping[str, Sequence[str]] | None = None,
        timeout_s: float | None = None,
    ) -> recall_pb2.UpsertUsersResponse:
        """Remembers users, so that `recall` can be asked by their ids; takes 0.2 to 0.6 s, then every server sees it.

        One request, so at most as many users as the server's limit. Only a server that turned it away before it did
        anything is asked again: an append that fails in another way may have been written.

        Args:
            hist_item: user_id to the whole history, oldest first, in the place of what is stored.
            append_item_ids: user_id to new clicks, oldest first, after what is stored.
            events: user_id to the kinds of these clicks, such as view, one for each, in their order; for a model that
                was trained with kinds. Clicks of kinds that are no history for it are not stored; `dropped` of the
                user's result counts them.
            timeout_s: for the call.
        """
        request = self._upsert_request(hist_item, append_item_ids, events)
        return self._call(self._stubs().recall.UpsertUsers, request, self._deadline(timeout_s))

    def find_similar_users(
        self, users: Sequence[History], *, top_k: int, timeout_s: float | None = None
    ) -> recall_pb2.FindSimilarUsersResponse:
        """The `top_k` remembered users most similar to each of the users; one request."""
        request = self._similar_request(users, top_k)
        return self._call(self._stubs().recall.FindSimilarUsers, request, self._deadline(timeout_s))

    def delete_users(
        self, user_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> recall_pb2.DeleteUsersResponse:
        """Makes the service forget users, in every release; one request."""
        request = recall_pb2.DeleteUsersRequest(user_ids=user_ids)
        return self._call(self._stubs().recall.DeleteUsers, request, self._deadline(timeout_s))

    def drop_items(
        self, collection: str, *, allow_live: bool = False, timeout_s: float | None = None
    ) -> admin_pb2.DropItemsResponse:
        """Drops an item collection, rows and index; needs the admin token."""
        request = admin_pb2.DropItemsRequest(collection=collection, allow_live=allow_live)
        return self._call(self._stubs().admin.DropItems, request, self._deadline(timeout_s))

    def reload(self, *, timeout_s: float | None = None) -> admin_pb2.ReloadResponse:
        """Makes the server look for a new release now; needs the admin token."""
        return self._call(self._stubs().admin.Reload, admin_pb2.ReloadRequest(), self._deadline(timeout_s))

    def is_serving(self, *, timeout_s: float | None = None, wait_for_ready: bool = False) -> bool:
        """Whether the server calls itself ready (grpc.health.v1); `wait_for_ready` keeps trying to connect."""
        deadline = self._deadline(timeout_s)
        health = self._call(self._stubs().health_check, HEALTH_REQUEST, deadline, wait_for_ready=wait_for_ready)
        return health == HEALTH_SERVING

    def _owner(self) -> object:
        return grpc  # one channel for all threads

    def close(self) -> None:
        """Closes the channel, unless the caller brought it."""
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

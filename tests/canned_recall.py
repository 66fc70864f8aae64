"""A recall server with canned answers, for tests of the clients."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

from clients.ids import TWINS, ids_of
from protos.recall.v1 import admin_pb2, admin_pb2_grpc, recall_pb2, recall_pb2_grpc

TIMINGS = recall_pb2.StageTimings(queue_ms=0.1, encode_ms=0.4, search_ms=2.5, merge_ms=0.2, total_ms=3.25)
INFO = recall_pb2.GetServerInfoResponse(
    server_version="0.1.0",
    model_version="ab12",
    collection="items_ab12",
    item_count=3706,
    embedding_dim=64,
    num_interests=4,
    maxlen=50,
    metric="IP",
    encoder="numpy",
    attributes=[recall_pb2.Attribute(name="genres", type="ARRAY<VARCHAR>")],
    limits=recall_pb2.Limits(max_users=256, max_top_k=1000, max_candidates=200_000, max_return_attributes=16),
)


KEYED_INFO = recall_pb2.GetServerInfoResponse()
KEYED_INFO.CopyFrom(INFO)
KEYED_INFO.id_type = recall_pb2.ID_TYPE_TEXT


def candidates(user: recall_pb2.User, top_k: int, keyed: bool = False) -> recall_pb2.UserCandidates:
    """The newest history item plus 1, 2, 3, ..., found by the interests in turn; popular items for no history.

    Where ids are text, the newest history item with "+1", "+2", "+3", ... behind it; unknown ones begin with "?".
    A user_id of more than 128 characters is invalid.
    """
    if len(user.user_id) > 128:
        detail = f"user_id has {len(user.user_id)} bytes, must be 1 to 128"
        return recall_pb2.UserCandidates(status=recall_pb2.USER_STATUS_INVALID, detail=detail)
    if keyed:
        return keyed_candidates(user, top_k)
    if not user.hist_item:
        return recall_pb2.UserCandidates(
            item_ids=[7], scores=[0.125], interest=[-1], status=recall_pb2.USER_STATUS_EMPTY_HISTORY, fallback=True
        )
    return recall_pb2.UserCandidates(
        item_ids=[min(user.hist_item[-1] + rank, 2**63 - 1) for rank in range(1, top_k + 1)],
        scores=[1 - rank / 10 for rank in range(top_k)],
        interest=[rank % 4 for rank in range(top_k)],
        status=recall_pb2.USER_STATUS_OK,
        unknown_item_ids=[item_id for item_id in user.hist_item if item_id >= 1000],
        unknown_count=sum(item_id >= 1000 for item_id in user.hist_item),
    )


def keyed_candidates(user: recall_pb2.User, top_k: int) -> recall_pb2.UserCandidates:
    """As `candidates`, of a release with text ids."""
    if not user.hist_item_keys:
        return recall_pb2.UserCandidates(
            item_keys=["TOP-7"],
            scores=[0.125],
            interest=[-1],
            status=recall_pb2.USER_STATUS_EMPTY_HISTORY,
            fallback=True,
        )
    unknown = [key for key in user.hist_item_keys if key.startswith("?")]
    return recall_pb2.UserCandidates(
        item_keys=[f"{user.hist_item_keys[-1]}+{rank}" for rank in range(1, top_k + 1)],
        scores=[1 - rank / 10 for rank in range(top_k)],
        interest=[rank % 4 for rank in range(top_k)],
        status=recall_pb2.USER_STATUS_OK,
        unknown_item_keys=unknown,
        unknown_count=len(unknown),
    )


def similar(query: recall_pb2.ItemQuery, request: recall_pb2.SimilarItemsRequest) -> recall_pb2.SimilarItems:
    """The last item of the query plus 1, 2, ... 100, or with "+1", "+2", ... behind it; 5 and "?" are unknown."""
    items = list(query.item_keys or query.item_ids)
    if not items:
        return recall_pb2.SimilarItems(status=recall_pb2.ITEM_STATUS_INVALID, detail="the query has no items")
    unknown = [place for place, item in enumerate(items) if item in (5, "?")]
    found = recall_pb2.SimilarItems(status=recall_pb2.ITEM_STATUS_OK, unknown=unknown)
    if len(unknown) == len(items):
        found.status, found.detail = recall_pb2.ITEM_STATUS_UNKNOWN, "nobody knows the items"
        return found
    ranks = range(1, min(request.top_k, 100) + 1)
    if query.item_keys:
        found.item_keys.extend(f"{items[-1]}+{rank}" for rank in ranks)
    else:
        found.item_ids.extend(min(items[-1] + rank, 2**63 - 1) for rank in ranks)
    found.scores.extend(1 - rank / 16 for rank in ranks)
    found.source.extend(1 + rank % 3 if request.by == recall_pb2.SOURCE_BOTH else max(request.by, 1) for rank in ranks)
    if request.by > recall_pb2.SOURCE_SEARCH:
        found.weights.extend(1 / (4 * rank) for rank in ranks)
    found.attributes.extend(attribute(name, len(ranks)) for name in request.return_attributes)
    return found


def attribute(name: str, count: int) -> recall_pb2.AttributeValues:
    """Values of an attribute for so many candidates, the second of which has none: titles, genres, or else years."""
    lists = [recall_pb2.AttributeList(texts=["Crime", "Drama"]) for _ in range(count)]
    values = recall_pb2.AttributeValues(name=name, absent=[1] if count > 1 else [])
    if name == "title":
        values.texts.extend(f"Film {place}" for place in range(count))
    elif name == "genres":
        values.lists.extend(lists)
    else:
        values.integers.extend(1990 + place for place in range(count))
    return values


class CannedRecall(recall_pb2_grpc.RecallServiceServicer, admin_pb2_grpc.AdminServiceServicer):
    """Answers at once, unless `failures` has something for the next call.

    `calls` records, for each method name, (request, metadata, arrival in seconds). A release that is `keyed` has text
    ids. A request with ids of the other kind is refused with the field's name.
    """

    def __init__(self, keyed: bool = False) -> None:
        self.keyed = keyed
        self.users = False
        self.failures: list[tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]] | None] = []
        self.model_versions = ["ab12"]
        self.delay_s = 0.0
        self.serving = [True]
        self.calls: dict[str, list[tuple[Any, dict[str, str], float]]] = defaultdict(list)
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def _enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.calls[method].append((request, dict(context.invocation_metadata()), time.monotonic()))
            failure = self.failures.pop(0) if self.failures else None
        if failure:
            code, message, metadata = failure
            context.set_trailing_metadata(metadata)
            context.abort(code, message)
        users = [request.user] if method == "Explain" else getattr(request, "users", getattr(request, "queries", ()))
        names = ("hist_item", "exclude_item_ids", "append_item_ids", "item_ids")
        for number, user in enumerate(users):
            for name in names if self.keyed else map(TWINS.__getitem__, names):
                if getattr(user, name, ()):
                    context.set_trailing_metadata((("error-reason", "WRONG_ID_TYPE"),))
                    of_batch = "queries" if method == "SimilarItems" else "users"
                    where = "user" if method == "Explain" else f"{of_batch}[{number}]"
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{where}.{name}: ids of the other kind")

    def Recall(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.RecallResponse:  # noqa: N802
        """One canned list per user; the last of `model_versions` stays."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._enter("Recall", request, context)
            time.sleep(self.delay_s)
        finally:
            with self._lock:
                self._at_once -= 1
        with self._lock:
            version = self.model_versions.pop(0) if len(self.model_versions) > 1 else self.model_versions[0]
        results = [candidates(user, request.top_k, self.keyed) for user in request.users]
        if request.neighbours == recall_pb2.NEIGHBOURS_ON:
            for found in results:  # by the search, by neighbours, by both, by the search, ...
                found.source.extend(1 + rank % 3 for rank in range(len(found.scores) * (not found.fallback)))
        for found in results:
            found.attributes.extend(attribute(name, len(found.scores)) for name in request.return_attributes)
        return recall_pb2.RecallResponse(
            results=results,
            model_version=version,
            collection=f"items_{version}",
            timings=TIMINGS,
            channel=request.channel,
            next_page_token=(request.page_token or b"p") + b"." if request.paged or request.page_token else b"",
        )

    def CountItems(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.CountItemsResponse:  # noqa: N802
        """3706 items, 12 with a filter."""
        self._enter("CountItems", request, context)
        count = 12 if request.filter else 3706
        return recall_pb2.CountItemsResponse(
            count=count, model_version="ab12", collection="items_ab12", channel=request.channel
        )

    def GetServerInfo(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.GetServerInfoResponse:  # noqa: N802
        """INFO, or KEYED_INFO; whether users are remembered, `users` says."""
        self._enter("GetServerInfo", request, context)
        answer = recall_pb2.GetServerInfoResponse(users_enabled=self.users)
        answer.MergeFrom(KEYED_INFO if self.keyed else INFO)
        return answer

    def SimilarItems(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.SimilarItemsResponse:  # noqa: N802
        """One canned list per query."""
        self._enter("SimilarItems", request, context)
        time.sleep(self.delay_s)
        results = [similar(query, request) for query in request.queries]
        origin = {"model_version": "ab12", "collection": "items_ab12", "timings": TIMINGS, "channel": request.channel}
        return recall_pb2.SimilarItemsResponse(results=results, **origin)

    def Explain(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.ExplainResponse:  # noqa: N802
        """Each interest found one candidate and one item that was dropped, in one case by all rules of at_most."""
        self._enter("Explain", request, context)
        chosen = candidates(request.user, 4, self.keyed)
        ids = ids_of(chosen, "item_ids")
        # 99, which every interest found, has the name "99" where ids are text.
        hits, dropped = ("item_keys", {"item_key": "99"}) if self.keyed else ("item_ids", {"item_id": 99})
        last = "99" if self.keyed else 99
        clicks = len(request.user.hist_item) + len(request.user.hist_item_keys)
        below, duplicate = recall_pb2.DROP_REASON_BELOW_TOP_K, recall_pb2.DROP_REASON_DUPLICATE
        capped = [rule.attribute for rule in request.at_most]
        if capped:
            below = recall_pb2.DROP_REASON_AT_MOST
        return recall_pb2.ExplainResponse(
            used_hist_item=request.user.hist_item,
            used_hist_item_keys=request.user.hist_item_keys,
            interests=[
                recall_pb2.Interest(
                    vector=[0.5] * 8,
                    scores=[score, 0.25],
                    weights=[1 / clicks for _ in range(clicks)],
                    **{hits: [item_id, last]},
                )
                for item_id, score in zip(ids, chosen.scores, strict=True)
            ],
            candidates=chosen,
            dropped=[
                recall_pb2.DroppedHit(
                    interest=i,
                    score=0.25,
                    reason=duplicate if i else below,
                    at_most=[] if i else capped,
                    **dropped,
                )
                for i in range(4)
            ],
            model_version="ab12",
            collection="items_ab12",
            timings=TIMINGS,
        )

    def GetItems(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.GetItemsResponse:  # noqa: N802
        """Attributes as those of candidates."""
        self._enter("GetItems", request, context)
        names, count = request.return_attributes, len(request.item_ids) + len(request.item_keys)
        return recall_pb2.GetItemsResponse(
            item_ids=request.item_ids,
            item_keys=request.item_keys,
            attributes=[attribute(name, count) for name in names],
            model_version="ab12",
            collection="items_ab12",
        )

    def UpsertUsers(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.UpsertUsersResponse:  # noqa: N802
        """Stores nothing; a user called "" is invalid, and hovering is no history."""
        self._enter("UpsertUsers", request, context)
        results = [
            recall_pb2.UserWritten(
                status=recall_pb2.USER_STATUS_OK,
                history_length=sum(map(len, (user.hist_item, user.append_item_ids)))
                + sum(map(len, (user.hist_item_keys, user.append_item_keys))),
                dropped=list(user.events).count("hover"),
            )
            if user.user_id
            else recall_pb2.UserWritten(status=recall_pb2.USER_STATUS_INVALID, detail="user_id has 0 bytes")
            for user in request.users
        ]
        return recall_pb2.UpsertUsersResponse(results=results, model_version="ab12")

    def FindSimilarUsers(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.FindSimilarUsersResponse:  # noqa: N802
        """Bob and Cid are like everybody, but nobody is like a user called "nobody"."""
        self._enter("FindSimilarUsers", request, context)
        both = recall_pb2.SimilarUsers(user_ids=["bob", "cid"], scores=[0.75, 0.5], status=recall_pb2.USER_STATUS_OK)
        nobody = recall_pb2.SimilarUsers(status=recall_pb2.USER_STATUS_UNKNOWN_USER)
        results = [nobody if user.user_id == "nobody" else both for user in request.users]
        return recall_pb2.FindSimilarUsersResponse(results=results, model_version="ab12", collection="users_ab12")

    def LogFeedback(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.LogFeedbackResponse:  # noqa: N802
        """Logs nothing."""
        self._enter("LogFeedback", request, context)
        return recall_pb2.LogFeedbackResponse()

    def DeleteUsers(self, request: Any, context: grpc.ServicerContext) -> recall_pb2.DeleteUsersResponse:  # noqa: N802
        """Forgets everybody but a user called "nobody"."""
        self._enter("DeleteUsers", request, context)
        ok, unknown = recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_UNKNOWN_USER
        statuses = [unknown if user_id == "nobody" else ok for user_id in request.user_ids]
        results = [recall_pb2.UserDeleted(status=status) for status in statuses]
        return recall_pb2.DeleteUsersResponse(results=results, model_version="ab12")

    def DropItems(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.DropItemsResponse:  # noqa: N802
        """Drops nothing, says 3706."""
        self._enter("DropItems", request, context)
        return admin_pb2.DropItemsResponse(collection=request.collection, dropped_count=3706)

    def Reload(self, request: Any, context: grpc.ServicerContext) -> admin_pb2.ReloadResponse:  # noqa: N802
        """From aa11 to ab12."""
        self._enter("Reload", request, context)
        return admin_pb2.ReloadResponse(
            model_version="ab12",
            collection="items_ab12",
            previous_model_version="aa11",
            previous_collection="items_aa11",
        )

    def health_handler(self) -> grpc.GenericRpcHandler:
        """grpc.health.v1.Health/Check over the values of `serving`, the last of which stays."""

        def check(request: bytes, context: grpc.ServicerContext) -> bytes:
            serving = self.serving.pop(0) if len(self.serving) > 1 else self.serving[0]
            return b"\x08\x01" if serving else b"\x08\x02"

        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
        )

    def add_to(self, server: Any) -> int:
        """Registers everything on a grpc or grpc.aio server; returns the port."""
        recall_pb2_grpc.add_RecallServiceServicer_to_server(self, server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, server)
        server.add_generic_rpc_handlers((self.health_handler(),))
        return server.add_insecure_port("127.0.0.1:0")


@contextmanager
def running(servicer: CannedRecall) -> Iterator[str]:
    """Serves from threads; the target to connect to."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    port = servicer.add_to(server)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()

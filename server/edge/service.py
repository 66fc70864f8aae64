"""`recall.v1.RecallService`: decode, call, encode. Everything else happens in the modules it calls."""

from collections.abc import Sequence
from typing import Any

import grpc

from mind.sequences import Int64
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.channels import Channels
from server.edge.answers import (
    HIT_ITEMS,
    add_attributes,
    applied,
    candidates,
    hits_of,
    items_of,
    named_items,
    provenance,
    steps,
)
from server.edge.feedback import FeedbackLog
from server.edge.filters import read_filter
from server.edge.info import server_info
from server.edge.item_ids import ids_of, ids_of_queries
from server.edge.page_token import read_page
from server.edge.request import read_attributes, read_explain, read_items, read_recall
from server.edge.shadow import Shadow
from server.edge.shadow_report import summaries
from server.edge.similar import read_queries, similar
from server.edge.split import Split
from server.edge.timeouts import within
from server.edge.user_service import UserService
from server.errors import DisabledError
from server.ports import ItemStore
from server.release import Release
from server.releases import Releases
from server.serving.answer import UserResult
from server.serving.attributes import VALUE_ITEMS, Attributes
from server.serving.item_keys import ItemKeys, Named
from server.serving.offload import computed
from server.serving.pipeline import CandidatePipeline
from server.serving.similar import SimilarResult
from server.serving.similar_batches import SimilarItems
from server.settings import Settings
from server.watching.telemetry import CALL_CHANNEL

Context = grpc.aio.ServicerContext[Any, Any]


class RecallService(recall_pb2_grpc.RecallServiceServicer):
    """The methods that ranking services and people use."""

    def __init__(
        self,
        settings: Settings,
        channels: Channels,
        pipeline: CandidatePipeline,
        similar_items: SimilarItems,
        store: ItemStore,
        users: UserService,
        attributes: Attributes,
        feedback: FeedbackLog,
        shadow: Shadow | None = None,
    ) -> None:
        """Make the service.

        Args:
            settings: the limits.
            channels: the releases that are served.
            pipeline: answers Recall and Explain.
            similar_items: answers SimilarItems.
            store: counts items and knows their text ids.
            users: answers calls about users.
            attributes: the attributes of items.
            feedback: gets candidates and feedback.
            shadow: asks shadow channels; None if there are none.
        """
        self._settings = settings
        self._channels = channels
        self._split = Split(settings.splits)
        self._pipeline = pipeline
        self._similar_items = similar_items
        self._store = store
        self._users = users
        self._feedback = feedback
        self._shadow = shadow
        self._item_keys = ItemKeys(store)
        self._attributes = attributes

    async def Recall(self, request: recall_pb2.RecallRequest, context: Context) -> recall_pb2.RecallResponse:  # noqa: N802
        """Find candidates for a batch of users."""
        releases, page = self._of(self._split.channel_of(request)), None
        self._pipeline.admit(len(request.users), context.time_remaining())
        if request.paged or request.page_token:
            page = read_page(request, self._channels, releases, self._settings)
            releases = self._of(page.channel)
        release, channel = page.release if page else releases.current, releases.channel
        query = await computed(ids_of(request.users), read_recall, request, self._settings, release, channel)
        query, history_ms = await self._users.with_histories(query, context)
        query = page.without_given(query) if page else query
        outcome = await self._pipeline.run(release, query, context.time_remaining())
        named = await self._named(release, items_of(outcome.results), context)
        size = sum(len(result.item_ids) + len(result.unknown) for result in outcome.results)
        size += ids_of(request.users) if named else 0  # to find the unknown keys again
        results = await computed(size, candidates, outcome.results, named, query.users, request.users)
        detail = await self._add_attributes(release, query.attributes, outcome.results, named, results, context)
        told = provenance(release, channel, outcome.timings, history_ms)
        answer = recall_pb2.RecallResponse(results=results, attributes_detail=detail, **told)
        if page:
            page.add_next(answer, outcome.results, query.top_k)
        if self._feedback.enabled:
            self._feedback.add_ids(request, answer)
        if self._shadow and releases is self._channels.default:
            self._shadow.offer(context, request, release, query, outcome)
        return answer

    async def CountItems(  # noqa: N802
        self, request: recall_pb2.CountItemsRequest, context: Context
    ) -> recall_pb2.CountItemsResponse:
        """Count the items of the released collection."""
        releases = self._of(request.channel)
        release = releases.current
        filter_ = read_filter(request.filter, self._settings, release)
        limit_s = self._settings.search_timeout_ms / 1000
        count = await within(
            context.time_remaining(),
            limit_s,
            lambda timeout_s: self._store.count(release.collection, filter_, timeout_s),
        )
        return recall_pb2.CountItemsResponse(
            count=count,
            model_version=release.model_version,
            collection=release.collection,
            channel=releases.channel,
        )

    async def GetServerInfo(  # noqa: N802
        self, request: recall_pb2.GetServerInfoRequest, context: Context
    ) -> recall_pb2.GetServerInfoResponse:
        """Tell what is being served, and the limits."""
        info = server_info(self._settings, self._channels, self._of(request.channel), self._split)
        if self._shadow:
            info.shadows.extend(await summaries(self._shadow, self._channels, self._item_keys))
        return info

    async def Explain(self, request: recall_pb2.ExplainRequest, context: Context) -> recall_pb2.ExplainResponse:  # noqa: N802
        """Find candidates for one user and show every step. Raises DisabledError if --no-explain turned it off."""
        if not self._settings.explain:
            raise DisabledError("Explain is turned off on this server", "EXPLAIN_OFF")
        releases = self._of(self._split.channel_of(request))
        release, channel = releases.current, releases.channel
        query = read_explain(request, self._settings, release, channel)
        query, history_ms = await self._users.with_histories(query, context)
        outcome = await self._pipeline.run(release, query, context.time_remaining(), explain=True)
        trace = outcome.trace
        assert trace is not None  # noqa: S101 - asked for
        named = await self._named(release, items_of(outcome.results), context)
        hits = await self._named(release, hits_of(trace), context)
        [found] = candidates(outcome.results, named, query.users, [request.user])
        detail = await self._add_attributes(release, query.attributes, outcome.results, named, [found], context)
        return recall_pb2.ExplainResponse(
            attributes_detail=detail,
            candidates=found,
            boosts=applied(outcome.applied(items_of(outcome.results)), named),
            **await computed(HIT_ITEMS * len(hits_of(trace)), steps, trace, release, hits),
            **provenance(release, channel, outcome.timings, history_ms),
        )

    async def SimilarItems(  # noqa: N802
        self, request: recall_pb2.SimilarItemsRequest, context: Context
    ) -> recall_pb2.SimilarItemsResponse:
        """Find the items most similar to given ones."""
        releases = self._of(request.channel)
        self._similar_items.admit(len(request.queries), context.time_remaining())
        release = releases.current
        queries = await computed(ids_of_queries(request.queries), read_queries, request, self._settings, release)
        filter_ = read_filter(request.filter, self._settings, release)
        attributes = read_attributes(request.return_attributes, self._settings, release)
        found, timings = await self._similar_items.run(release, queries, filter_, context.time_remaining())
        named = await self._named(release, items_of(found), context)
        results = await computed(len(items_of(found)), similar, found, named)
        detail = await self._add_attributes(release, attributes, found, named, results, context)
        told = provenance(release, releases.channel, timings)
        return recall_pb2.SimilarItemsResponse(results=results, attributes_detail=detail, **told)

    async def GetItems(  # noqa: N802
        self, request: recall_pb2.GetItemsRequest, context: Context
    ) -> recall_pb2.GetItemsResponse:
        """Tell the attributes of items."""
        releases = self._of(request.channel)
        release = releases.current
        item_ids, names = read_items(request, self._settings, release)
        values, why = await self._attributes.of(release, names, item_ids, context.time_remaining())
        response = recall_pb2.GetItemsResponse(
            item_ids=request.item_ids,
            item_keys=request.item_keys,
            attributes_detail=why,
            model_version=release.model_version,
            collection=release.collection,
            channel=releases.channel,
        )
        await computed(VALUE_ITEMS * len(item_ids) * len(values), add_attributes, [response], values)
        return response

    async def UpsertUsers(  # noqa: N802
        self, request: recall_pb2.UpsertUsersRequest, context: Context
    ) -> recall_pb2.UpsertUsersResponse:
        """Store what users clicked."""
        self._of(request.channel)
        return await self._users.upsert(self._channels, request, context)

    async def FindSimilarUsers(  # noqa: N802
        self, request: recall_pb2.FindSimilarUsersRequest, context: Context
    ) -> recall_pb2.FindSimilarUsersResponse:
        """Find the remembered users nearest to each user of the request."""
        return await self._users.find_similar(self._of(request.channel), request, context)

    async def DeleteUsers(  # noqa: N802
        self, request: recall_pb2.DeleteUsersRequest, context: Context
    ) -> recall_pb2.DeleteUsersResponse:
        """Delete remembered users."""
        return await self._users.delete(self._channels, request, context)

    async def LogFeedback(  # noqa: N802
        self, request: recall_pb2.LogFeedbackRequest, context: Context
    ) -> recall_pb2.LogFeedbackResponse:
        """Log what a user did with items."""
        return self._feedback.log(request, self._of(request.channel).current)

    def _of(self, channel: str) -> Releases:
        """The releases of the channel of a call, which metrics and logs are told. Raises InvalidRequestError."""
        releases = self._channels.of(channel)
        CALL_CHANNEL.set(releases.channel)
        return releases

    async def _add_attributes(
        self,
        release: Release,
        attributes: Sequence[str],
        found: Sequence[UserResult] | Sequence[SimilarResult],
        named: Named | None,
        results: list[recall_pb2.UserCandidates] | list[recall_pb2.SimilarItems],
        context: Context,
    ) -> str:
        """Add attributes to the items of an answer; gives the reason why some are left out."""
        if not attributes:
            return ""
        item_ids = named_items(found, named)
        values, why = await self._attributes.of(release, attributes, item_ids, context.time_remaining())
        await computed(VALUE_ITEMS * len(item_ids) * len(values), add_attributes, results, values)
        return why

    async def _named(self, release: Release, item_ids: Int64, context: Context) -> Named | None:
        """The keys of items, [n] int64; None where ids are integers."""
        if not release.has_text_ids:
            return None
        return await self._item_keys.of(release, item_ids, context.time_remaining())

"""`recall.v1.RecallService`: decode, call, encode. Everything else happens in the modules it calls."""

import secrets
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import grpc

from mind.milvus.rules import NO_RULES
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
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
from server.edge.item_ids import ids_of, ids_of_queries
from server.edge.limits import most_candidates
from server.edge.page_token import read_page
from server.edge.request import read_attributes, read_explain, read_items, read_recall
from server.edge.similar import read_queries, similar
from server.edge.timeouts import within
from server.edge.user_service import UserService
from server.errors import DisabledError
from server.ports import ItemStore
from server.release import Release, Releases
from server.serving.answer import UserResult
from server.serving.attributes import VALUE_ITEMS, Attributes
from server.serving.item_keys import ItemKeys, Named
from server.serving.offload import computed
from server.serving.pipeline import CandidatePipeline
from server.serving.similar import SimilarResult
from server.serving.similar_batches import SimilarItems
from server.settings import Settings

Context = grpc.aio.ServicerContext[Any, Any]
_VERSION = version("mind-recall")  # reads a file: too slow for every call
_INSTANCE = secrets.token_hex(8)


class RecallService(recall_pb2_grpc.RecallServiceServicer):
    """The methods that ranking services and people use."""

    def __init__(
        self,
        settings: Settings,
        releases: Releases,
        pipeline: CandidatePipeline,
        similar_items: SimilarItems,
        store: ItemStore,
        users: UserService,
        attributes: Attributes,
        feedback: FeedbackLog,
    ) -> None:
        """Make the service.

        Args:
            settings: the limits.
            releases: the releases that are served.
            pipeline: answers Recall and Explain.
            similar_items: answers SimilarItems.
            store: counts items and knows their text ids.
            users: answers calls about users.
            attributes: the attributes of items.
            feedback: gets candidates and feedback.
        """
        self._settings = settings
        self._releases = releases
        self._pipeline = pipeline
        self._similar_items = similar_items
        self._store = store
        self._users = users
        self._feedback = feedback
        self._item_keys = ItemKeys(store)
        self._attributes = attributes

    async def Recall(self, request: recall_pb2.RecallRequest, context: Context) -> recall_pb2.RecallResponse:  # noqa: N802
        """Find candidates for a batch of users."""
        remaining_s = context.time_remaining()
        self._pipeline.admit(len(request.users), remaining_s)
        page = None
        if request.paged or request.page_token:
            page = read_page(request, self._releases, self._settings)
        release = page.release if page else self._releases.current
        query = await computed(ids_of(request.users), read_recall, request, self._settings, release)
        query, history_ms = await self._users.with_histories(query, context)
        query = page.without_given(query) if page else query
        outcome = await self._pipeline.run(release, query, context.time_remaining())
        named = await self._named(release, items_of(outcome.results), context)
        size = sum(len(result.item_ids) + len(result.unknown) for result in outcome.results)
        size += ids_of(request.users) if named else 0  # to find the unknown keys again
        results = await computed(size, candidates, outcome.results, named, query.users, request.users)
        detail = await self._add_attributes(release, query.attributes, outcome.results, named, results, context)
        told = provenance(release, outcome.timings, history_ms)
        answer = recall_pb2.RecallResponse(results=results, attributes_detail=detail, **told)
        if page:
            page.add_next(answer, outcome.results, query.top_k)
        if self._feedback.enabled:
            self._feedback.add_ids(request, answer)
        return answer

    async def CountItems(  # noqa: N802
        self, request: recall_pb2.CountItemsRequest, context: Context
    ) -> recall_pb2.CountItemsResponse:
        """Count the items of the released collection."""
        release = self._releases.current
        filter_ = read_filter(request.filter, self._settings, release)
        limit_s = self._settings.search_timeout_ms / 1000
        count = await within(
            context.time_remaining(),
            limit_s,
            lambda timeout_s: self._store.count(release.collection, filter_, timeout_s),
        )
        return recall_pb2.CountItemsResponse(
            count=count, model_version=release.model_version, collection=release.collection
        )

    async def GetServerInfo(  # noqa: N802
        self, request: recall_pb2.GetServerInfoRequest, context: Context
    ) -> recall_pb2.GetServerInfoResponse:
        """Tell what is being served, and the limits."""
        release, settings = self._releases.current, self._settings
        attributes = [recall_pb2.Attribute(name=name, type=kind) for name, kind in release.attributes.items()]
        names = [field.name for field in recall_pb2.Limits.DESCRIPTOR.fields]
        limits = recall_pb2.Limits(**{name: getattr(settings, name) for name in names})
        limits.max_candidates = most_candidates(settings, release)
        limits.max_top_k = min(settings.max_top_k, limits.max_candidates)
        return recall_pb2.GetServerInfoResponse(
            server_version=_VERSION,
            model_version=release.model_version,
            collection=release.collection,
            item_count=release.fingerprint.count,
            embedding_dim=release.fingerprint.dim,
            num_interests=release.hyper_parameters.num_interests,
            maxlen=release.hyper_parameters.maxlen,
            metric=release.fingerprint.metric,
            encoder=release.encoder.name,
            attributes=attributes,
            limits=limits,
            admin_enabled=settings.admin_token_file is not None,
            refused_release=self._releases.refused,
            refused_collection=self._releases.refused_collection,
            instance=_INSTANCE,
            processes=settings.processes,
            previous_collection=self._releases.previous.collection if self._releases.previous else "",
            users_enabled=settings.users,
            id_type=recall_pb2.ID_TYPE_TEXT if release.has_text_ids else recall_pb2.ID_TYPE_INTEGER,
            search=settings.search,
            neighbours=_default(release),
            feedback_enabled=self._feedback.enabled,
            release_rules="" if release.rules == NO_RULES else release.rules.to_json(),
        )

    async def Explain(self, request: recall_pb2.ExplainRequest, context: Context) -> recall_pb2.ExplainResponse:  # noqa: N802
        """Find candidates for one user and show every step. Raises DisabledError if --no-explain turned it off."""
        if not self._settings.explain:
            raise DisabledError("Explain is turned off on this server", "EXPLAIN_OFF")
        release = self._releases.current
        query = read_explain(request, self._settings, release)
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
            **provenance(release, outcome.timings, history_ms),
        )

    async def SimilarItems(  # noqa: N802
        self, request: recall_pb2.SimilarItemsRequest, context: Context
    ) -> recall_pb2.SimilarItemsResponse:
        """Find the items most similar to given ones."""
        self._similar_items.admit(len(request.queries), context.time_remaining())
        release = self._releases.current
        queries = await computed(ids_of_queries(request.queries), read_queries, request, self._settings, release)
        filter_ = read_filter(request.filter, self._settings, release)
        attributes = read_attributes(request.return_attributes, self._settings, release)
        found, timings = await self._similar_items.run(release, queries, filter_, context.time_remaining())
        named = await self._named(release, items_of(found), context)
        results = await computed(len(items_of(found)), similar, found, named)
        detail = await self._add_attributes(release, attributes, found, named, results, context)
        return recall_pb2.SimilarItemsResponse(
            results=results, attributes_detail=detail, **provenance(release, timings)
        )

    async def GetItems(  # noqa: N802
        self, request: recall_pb2.GetItemsRequest, context: Context
    ) -> recall_pb2.GetItemsResponse:
        """Tell the attributes of items."""
        release = self._releases.current
        item_ids, names = read_items(request, self._settings, release)
        values, why = await self._attributes.of(release, names, item_ids, context.time_remaining())
        response = recall_pb2.GetItemsResponse(
            item_ids=request.item_ids,
            item_keys=request.item_keys,
            attributes_detail=why,
            model_version=release.model_version,
            collection=release.collection,
        )
        await computed(VALUE_ITEMS * len(item_ids) * len(values), add_attributes, [response], values)
        return response

    async def UpsertUsers(  # noqa: N802
        self, request: recall_pb2.UpsertUsersRequest, context: Context
    ) -> recall_pb2.UpsertUsersResponse:
        """Store what users clicked."""
        return await self._users.upsert(self._releases, request, context)

    async def FindSimilarUsers(  # noqa: N802
        self, request: recall_pb2.FindSimilarUsersRequest, context: Context
    ) -> recall_pb2.FindSimilarUsersResponse:
        """Find the remembered users nearest to each user of the request."""
        return await self._users.find_similar(self._releases, request, context)

    async def DeleteUsers(  # noqa: N802
        self, request: recall_pb2.DeleteUsersRequest, context: Context
    ) -> recall_pb2.DeleteUsersResponse:
        """Delete users."""
        return await self._users.delete(self._releases, request, context)

    async def LogFeedback(  # noqa: N802
        self, request: recall_pb2.LogFeedbackRequest, context: Context
    ) -> recall_pb2.LogFeedbackResponse:
        """Log what a user did with items."""
        return self._feedback.log(request, self._releases.current)

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


def _default(release: Release) -> recall_pb2.Neighbours:
    """What a request gets that says nothing of neighbours."""
    if release.neighbours is None:
        return recall_pb2.NEIGHBOURS_UNSPECIFIED
    return recall_pb2.NEIGHBOURS_ON if release.adds_neighbours else recall_pb2.NEIGHBOURS_OFF

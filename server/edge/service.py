"""`recall.v1.RecallService`: decode, call, encode. Everything else happens in the modules it calls."""

import secrets
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np

from mind.milvus.collection import is_presence
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from server.edge.request import ids_of, read_explain, read_filter, read_recall
from server.edge.timeouts import within
from server.edge.user_service import UserService
from server.errors import DisabledError
from server.ports import ItemStore
from server.release import Release, Releases
from server.serving.answer import Outcome, Trace, UserResult
from server.serving.merge import Fate
from server.serving.offload import computed
from server.serving.pipeline import CandidatePipeline
from server.settings import Settings

Context = grpc.aio.ServicerContext[Any, Any]
_VERSION = version("mind-recall")  # reads a file: too slow for every call
_INSTANCE = secrets.token_hex(8)

UNKNOWN_LISTED = 100
"""Most unknown ids that an answer lists for one user."""


class RecallService(recall_pb2_grpc.RecallServiceServicer):
    """The methods that ranking services and people use."""

    def __init__(
        self,
        settings: Settings,
        releases: Releases,
        pipeline: CandidatePipeline,
        store: ItemStore,
        users: UserService,
    ) -> None:
        """`settings` holds the limits; `users` answers the calls about users."""
        self._settings = settings
        self._releases = releases
        self._pipeline = pipeline
        self._store = store
        self._users = users

    async def Recall(self, request: recall_pb2.RecallRequest, context: Context) -> recall_pb2.RecallResponse:  # noqa: N802
        """Find candidates for a batch of users."""
        remaining_s = context.time_remaining()
        self._pipeline.admit(len(request.users), remaining_s)
        release = self._releases.current
        how = self._settings, release.fingerprint.attributes
        query = await computed(ids_of(request.users), read_recall, request, *how)
        query, history_ms = await self._users.with_histories(query, context)
        outcome = await self._pipeline.run(release, query, context.time_remaining())
        found = sum(len(result.item_ids) + len(result.unknown) for result in outcome.results)
        results = await computed(found, list, map(_candidates, outcome.results))
        return recall_pb2.RecallResponse(results=results, **_provenance(release, outcome, history_ms))

    async def CountItems(  # noqa: N802
        self, request: recall_pb2.CountItemsRequest, context: Context
    ) -> recall_pb2.CountItemsResponse:
        """Count the items of the released collection."""
        release = self._releases.current
        filter_ = read_filter(request.filter, self._settings, release.fingerprint.attributes)
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
        attributes = [
            recall_pb2.Attribute(name=name, type=kind)
            for name, kind in release.fingerprint.attributes.items()
            if not is_presence(name)
        ]
        names = [field.name for field in recall_pb2.Limits.DESCRIPTOR.fields]
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
            limits=recall_pb2.Limits(**{name: getattr(settings, name) for name in names}),
            admin_enabled=settings.admin_token_file is not None,
            refused_release=self._releases.refused,
            refused_collection=self._releases.refused_collection,
            instance=_INSTANCE,
            processes=settings.processes,
            previous_collection=self._releases.previous.collection if self._releases.previous else "",
            users_enabled=settings.users,
            search=settings.search,
        )

    async def Explain(self, request: recall_pb2.ExplainRequest, context: Context) -> recall_pb2.ExplainResponse:  # noqa: N802
        """Find candidates for one user and show every step. Raises DisabledError if --no-explain turned it off."""
        if not self._settings.explain:
            raise DisabledError("Explain is turned off on this server", "EXPLAIN_OFF")
        release = self._releases.current
        query = read_explain(request, self._settings, release.fingerprint.attributes)
        query, history_ms = await self._users.with_histories(query, context)
        outcome = await self._pipeline.run(release, query, context.time_remaining(), explain=True)
        assert outcome.trace is not None  # noqa: S101 - asked for
        return recall_pb2.ExplainResponse(
            used_hist_item=outcome.trace.used_hist_item.tolist(),
            interests=_interests(outcome.trace, release.hyper_parameters.num_interests),
            candidates=_candidates(outcome.results[0]),
            dropped=_dropped(outcome.trace),
            search=outcome.trace.search,
            **_provenance(release, outcome, history_ms),
        )

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


def _provenance(release: Release, outcome: Outcome, history_ms: float) -> dict[str, Any]:
    timings = recall_pb2.StageTimings(
        **vars(outcome.timings), history_ms=history_ms, total_ms=outcome.timings.total_ms + history_ms
    )
    return {"model_version": release.model_version, "collection": release.collection, "timings": timings}


def _candidates(result: UserResult) -> recall_pb2.UserCandidates:
    unknown = list(dict.fromkeys(result.unknown.tolist())) if len(result.unknown) else []
    return recall_pb2.UserCandidates(
        item_ids=result.item_ids.tolist(),
        scores=result.scores.tolist(),
        interest=result.interest.tolist(),
        status=int(result.status),  # type: ignore[arg-type]
        fallback=result.fallback,
        unknown_item_ids=unknown[:UNKNOWN_LISTED],
        unknown_count=len(result.unknown),
        detail=result.detail,
    )


def _interests(trace: Trace, num_interests: int) -> list[recall_pb2.Interest]:
    if not len(trace.interest):
        return []
    interests = [recall_pb2.Interest() for _ in range(num_interests)]
    ends = np.cumsum(trace.hits.lengths)
    for number, vector, end, length in zip(
        trace.interest, trace.interest_vectors, ends, trace.hits.lengths, strict=True
    ):
        found = slice(end - length, end)
        interests[number].vector.extend(vector.tolist())
        interests[number].item_ids.extend(trace.hits.item_ids[found].tolist())
        interests[number].scores.extend(trace.hits.scores[found].tolist())
    return interests


def _dropped(trace: Trace) -> list[recall_pb2.DroppedHit]:
    lost = np.flatnonzero(trace.fate != Fate.KEPT)
    interest = np.repeat(trace.interest, trace.hits.lengths)
    columns = (trace.hits.item_ids[lost], interest[lost], trace.hits.scores[lost], trace.fate[lost])
    return [
        recall_pb2.DroppedHit(item_id=item_id, interest=number, score=score, reason=reason)
        for item_id, number, score, reason in zip(*(column.tolist() for column in columns), strict=True)
    ]

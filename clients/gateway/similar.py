"""The endpoint /v1/similar: SimilarItems of recall.v1.RecallService as HTTP and JSON, with the same fields."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, Field

from clients.aio_client import AsyncRecallClient
from clients.gateway.backend import BackendOf, to_json
from clients.gateway.body import Body, FewQueries, GivenItemIds
from clients.gateway.ids import ItemId, of_release, text
from clients.gateway.problems import OF_EVERY_CALL, responses
from clients.gateway.v1 import Channel, Origin, ReturnAttributes, Server, Timings, TopK
from clients.ids import fill
from clients.similar import SimilarItemsResult
from protos.recall.v1 import recall_pb2

router = APIRouter(prefix="/v1", tags=["recall"], responses=OF_EVERY_CALL | responses(404))


class ItemQuery(Body):
    """What others must be similar to."""

    item_ids: GivenItemIds
    """One item, or several to which the others are similar on average."""
    exclude_item_ids: GivenItemIds = Field(default=[])
    """Items that must not be in the answer, which those of the query never are."""

    def to_message(self, is_text: bool, number: int) -> recall_pb2.ItemQuery:
        """Convert the query to the message of the gRPC service.

        Args:
            is_text: whether the release has text ids.
            number: the place of the query in the body.

        Raises:
            RequestValidationError: an item id is of the other kind.
        """
        message = recall_pb2.ItemQuery()
        for field in ("item_ids", "exclude_item_ids"):
            fill(message, field, of_release(getattr(self, field), is_text, "queries", number, field), field)
        return message


class SimilarBody(Body):
    """A batch of queries for similar items."""

    queries: Annotated[list[ItemQuery], Field(fail_fast=True), Field(min_length=1), FewQueries]
    """The queries of the batch. The answer has the same order."""
    top_k: TopK = 10
    """Number of similar items per query. The limit of the server may be lower than 10,000."""
    filter: Annotated[str, AfterValidator(text)] = ""
    """Milvus expression over the attributes that /v1/info lists. Similar items must match it."""
    by: Literal["embedding", "neighbours", "both"] = "embedding"
    """embedding: the cosine of embeddings. neighbours: what users clicked soon after. both: they take turns."""
    return_attributes: ReturnAttributes
    """Attributes to return with the items, of those that /v1/info lists."""
    channel: Channel = ""
    """The channel whose release answers. Empty is the server's default channel."""


class Similar(BaseModel):
    """The items similar to those of one query in parallel arrays, best first."""

    item_ids: list[ItemId]
    scores: list[float]
    source: list[str]
    weights: list[float]
    status: str
    unknown: list[int]
    detail: str
    attributes: dict[str, list[Any]]
    """For each attribute of return_attributes, a value per item; null where an item has none."""


class SimilarAnswer(Origin):
    """The similar items of all queries, in the order of the request."""

    results: list[Similar]
    timings: Timings
    attributes_detail: str
    """Why attributes are left out. Empty if all are there."""


@router.post("/similar", response_model=SimilarAnswer)
async def similar(body: SimilarBody, backend: BackendOf, server: Server = "main") -> Any:
    """Return the items most similar to given ones, for a batch of queries."""

    async def ask(client: AsyncRecallClient, is_text: bool) -> SimilarItemsResult:
        queries = [query.to_message(is_text, number) for number, query in enumerate(body.queries)]
        how = {name: getattr(body, name) for name in ("top_k", "filter", "by", "return_attributes", "channel")}
        return await client.similar_items(queries, **how)

    answer = await backend.ask(server, ask, body.channel)
    response = recall_pb2.SimilarItemsResponse(
        results=answer.results,
        model_version=answer.model_versions[0],
        collection=answer.collections[0],
        channel=answer.channels[0],
        timings=answer.timings[0],
        attributes_detail=answer.attributes_detail,
    )
    return JSONResponse(to_json(response))

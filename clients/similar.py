"""Requests for similar items from plain Python values, and their answers joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clients.attributes import attributes_of
from clients.ids import ItemIds, fill, ids_of
from clients.requests import split
from clients.statuses import ItemStatus
from protos.recall.v1 import recall_pb2

ItemQuery = int | str | ItemIds | recall_pb2.ItemQuery
"""What the items must be similar to: one item id, several ids, or a ready message."""
SimilarBy = Literal["embedding", "neighbours", "both"]

_BY: dict[str, recall_pb2.Source] = {
    "embedding": recall_pb2.SOURCE_SEARCH,
    "neighbours": recall_pb2.SOURCE_NEIGHBOURS,
    "both": recall_pb2.SOURCE_BOTH,
}


@dataclass(frozen=True)
class SimilarItemsResult:
    """The answer to a batch of queries for similar items."""

    results: list[recall_pb2.SimilarItems]
    """One result for each query, in the same order."""
    model_versions: tuple[str, ...]
    """Models that answered, as in `RecallResult`."""
    collections: tuple[str, ...]
    """The collections of these models."""
    timings: tuple[recall_pb2.StageTimings, ...]
    """How long each stage took in the server, for each request."""
    attributes_detail: str = ""
    """Why attributes are left out of the answer to some of the requests. Empty if all are there."""
    channels: tuple[str, ...] = ()
    """The channels whose releases answered."""

    @property
    def item_ids(self) -> list[list[int]] | list[list[str]]:
        """The ids of the items similar to those of each query, best first. They are integers or text."""
        return [ids_of(similar, "item_ids") for similar in self.results]

    @property
    def attributes(self) -> list[dict[str, list[Any]]]:
        """The attributes of the similar items of each query (`clients.attributes_of`)."""
        return [attributes_of(similar) for similar in self.results]

    @property
    def statuses(self) -> tuple[ItemStatus, ...]:
        """The status of each query. It prints as its name."""
        return tuple(ItemStatus(similar.status) for similar in self.results)


def join_similar(responses: Sequence[recall_pb2.SimilarItemsResponse]) -> SimilarItemsResult:
    """Join the answers to the requests of one batch, in the order of the requests."""
    return SimilarItemsResult(
        results=[similar for response in responses for similar in response.results],
        model_versions=tuple(dict.fromkeys(response.model_version for response in responses)),
        collections=tuple(dict.fromkeys(response.collection for response in responses)),
        timings=tuple(response.timings for response in responses),
        attributes_detail=next((one.attributes_detail for one in responses if one.attributes_detail), ""),
        channels=tuple(dict.fromkeys(response.channel for response in responses)),
    )


def similar_requests(
    queries: Sequence[ItemQuery],
    exclude_item_ids: Sequence[ItemIds] | None,
    most: int,
    max_bytes: int,
    *,
    top_k: int,
    filter: str,  # noqa: A002
    by: str,
    return_attributes: Sequence[str],
    channel: str = "",
) -> list[recall_pb2.SimilarItemsRequest]:
    """Split the batch into as few requests as the limits allow: `most` queries and `max_bytes` bytes in each.

    Raises:
        TypeError: a value is of the wrong kind; the message says which.
        ValueError: an id does not fit 64 bits, or `by` is unknown, or the two lists do not belong together.
    """
    if by not in _BY:
        raise ValueError(f"by is {by!r}, must be one of {', '.join(_BY)}")
    if isinstance(queries, str | bytes):
        raise TypeError(f"queries is the text {queries[:50]!r}, must be a list with one query for each answer")
    if exclude_item_ids is None:
        exclude_item_ids = [()] * len(queries)
    if len(exclude_item_ids) != len(queries):
        raise ValueError(f"exclude_item_ids has {len(exclude_item_ids)} lists for {len(queries)} queries")
    pairs = enumerate(zip(queries, exclude_item_ids, strict=True))
    messages = [_query_of(number, query, exclude) for number, (query, exclude) in pairs]
    how: dict[str, Any] = {"top_k": top_k, "filter": filter, "by": _BY[by], "return_attributes": return_attributes}
    how["channel"] = channel
    return [recall_pb2.SimilarItemsRequest(queries=part, **how) for part in split(messages, most, max_bytes, filter)]


def _query_of(number: int, query: ItemQuery, exclude_item_ids: ItemIds) -> recall_pb2.ItemQuery:
    if isinstance(query, recall_pb2.ItemQuery):
        if len(exclude_item_ids):
            raise ValueError("exclude_item_ids goes with plain ids; an ItemQuery message carries its own")
        return query
    message = recall_pb2.ItemQuery()
    item_ids: Any = query if hasattr(query, "__iter__") and not isinstance(query, str) else [query]
    fill(message, "item_ids", item_ids, f"queries[{number}]")
    fill(message, "exclude_item_ids", exclude_item_ids, f"exclude_item_ids[{number}]")
    return message

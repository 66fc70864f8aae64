"""Decodes SimilarItems to the values of `server.serving.similar`, checked against the limits; writes its answers."""

from collections.abc import Sequence

from protos.recall.v1 import recall_pb2
from server.edge.item_ids import check_id_type, field_of, read_ids
from server.edge.limits import check_batch, check_top_k, check_total, most_candidates
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.item_keys import Named
from server.serving.merge import Source
from server.serving.similar import ItemQuery, SimilarResult
from server.settings import Settings


def read_queries(request: recall_pb2.SimilarItemsRequest, limits: Settings, release: Release) -> list[ItemQuery]:
    """The queries of a SimilarItems; one that breaks a limit is marked as `invalid`.

    Raises:
        InvalidRequestError: the request breaks a limit; with the field, the value and the limit.
    """
    check_batch("queries", request.queries, limits, "query", "queries")
    check_top_k(request.top_k, limits)
    most = most_candidates(limits, release)
    check_total(len(request.queries), request.top_k, "similar ones", most, "queries")
    by, text = _by(request.by, release), release.has_text_ids
    check_id_type(request.queries, text, "queries[{}]")
    field = field_of("item_ids", text)
    asked = read_ids(request.queries, field, limits.max_query_items)
    excluded = read_ids(request.queries, field_of("exclude_item_ids", text), limits.max_exclude)
    queries = []
    for (item_ids, wrong), (exclude, also_wrong) in zip(asked, excluded, strict=True):
        wrong = wrong or also_wrong or ("" if len(item_ids) else f"{field} is empty, must have 1 id or more")
        if wrong:
            item_ids, exclude = item_ids[:0], exclude[:0]
        queries.append(ItemQuery(item_ids, exclude, request.top_k, by, wrong))
    return queries


def _by(asked: int, release: Release) -> Source:
    """What finds similar items. Raises InvalidRequestError."""
    if not 0 <= asked <= recall_pb2.SOURCE_BOTH:
        raise InvalidRequestError("by", f"is {asked}, must be 0 to {recall_pb2.SOURCE_BOTH}", "UNKNOWN_SOURCE")
    if asked == recall_pb2.SOURCE_NEIGHBOURS and release.neighbours is None:
        why = "is SOURCE_NEIGHBOURS, but the model of the release has no neighbours; SOURCE_SEARCH compares embeddings"
        raise InvalidRequestError("by", why, "NO_NEIGHBOURS")
    return Source.SEARCH if asked == recall_pb2.SOURCE_UNSPECIFIED else Source(asked)


def similar(results: Sequence[SimilarResult], named: Named | None) -> list[recall_pb2.SimilarItems]:
    """The answer to each query. `named`: the keys of all items in the results; None where ids are integers."""
    if named is None:
        return [_written(result, list(range(len(result.item_ids))), None, result.detail) for result in results]
    written, end = [], 0
    for result in results:
        start, end = end, end + len(result.item_ids)
        keys = named.keys[start:end]
        there = [place for place, key in enumerate(keys) if key]
        detail = result.detail
        if len(there) < len(keys):
            left_out = f"{len(keys) - len(there)} of {len(keys)} items are left out: {named.absent}"
            detail = f"{detail}; {left_out}" if detail else left_out
        written.append(_written(result, there, [keys[place] for place in there], detail))
    return written


def _written(result: SimilarResult, places: list[int], keys: list[str] | None, detail: str) -> recall_pb2.SimilarItems:
    return recall_pb2.SimilarItems(
        item_ids=result.item_ids.tolist() if keys is None else (),
        item_keys=keys or (),
        scores=result.scores[places].tolist(),
        source=result.source[places].tolist(),
        weights=result.weights[places].tolist() if len(result.weights) else (),
        status=int(result.status),  # type: ignore[arg-type]
        unknown=result.unknown.tolist(),
        detail=detail,
    )

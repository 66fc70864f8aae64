"""Writes the answers of Recall and Explain as protobuf, with the items' integers or keys, as the release has them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mind.artifact import Float32
from mind.hits import Hits
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.answer import Timings, Trace, UserResult
from server.serving.attributes import Values
from server.serving.item_keys import Named
from server.serving.merge import Fate, Source
from server.serving.question import Boost, UserQuery
from server.serving.similar import SimilarResult

UNKNOWN_LISTED = 100
"""Most unknown ids that an answer lists for one user."""
HIT_ITEMS = 20
"""To write a hit that was dropped takes as long as to work through so many items (`server.serving.offload`)."""
MAX_ANSWER_BYTES = 4 * 10**6
"""Maximum size of an answer with attributes. gRPC clients accept 4 MiB by default."""
FIELD_OF = {
    "INT64": "integers",
    "DOUBLE": "numbers",
    "VARCHAR": "texts",
    "BOOL": "booleans",
    "ARRAY<INT64>": "lists",
    "ARRAY<VARCHAR>": "lists",
}
"""The field of `AttributeValues` for each Milvus type."""
UNKNOWN_BYTES = 512 * 1024
"""Most bytes of unknown keys that an answer lists; every user gets the same share."""


def items_of(results: Sequence[UserResult] | Sequence[SimilarResult]) -> Int64:
    """The ids of the candidates of all users, or of all similar items, [n] int64."""
    return np.concatenate([result.item_ids for result in results])


def named_items(results: Sequence[UserResult] | Sequence[SimilarResult], named: Named | None) -> Int64:
    """The ids of those items that are in the answer: all of them, or those that have keys."""
    item_ids = items_of(results)
    return item_ids if named is None else item_ids[np.array([bool(key) for key in named.keys], bool)]


def add_attributes(
    results: Sequence[recall_pb2.UserCandidates]
    | Sequence[recall_pb2.SimilarItems]
    | Sequence[recall_pb2.GetItemsResponse],
    columns: Sequence[Values],
) -> None:
    """Write the values of attributes into the candidates that they belong to.

    Args:
        results: the candidates of all users, the similar items of all queries, or items.
        columns: the values of each attribute for all candidates, those of the first user first.

    Raises:
        InvalidRequestError: the answer becomes too large.
    """
    ends = np.cumsum([len(result.item_keys) or len(result.item_ids) for result in results]).tolist()
    for column in columns:
        field, absent = FIELD_OF[column.kind], np.flatnonzero(~column.present)
        places = np.searchsorted(absent, [0, *ends]).tolist()
        for user, (start, end) in enumerate(pairwise([0, *ends])):
            values = column.values[start:end]
            written = [_list_of(column.kind, value) for value in values] if field == "lists" else values
            missing = (absent[places[user] : places[user + 1]] - start).tolist()
            results[user].attributes.add(name=column.name, absent=missing, **{field: written})
    size = sum(result.ByteSize() for result in results)
    if size > MAX_ANSWER_BYTES:
        raise InvalidRequestError(
            "return_attributes",
            f"make an answer of {size:,} bytes, the limit is {MAX_ANSWER_BYTES:,}; ask for fewer users, candidates or "
            "attributes at once",
            "ANSWER_TOO_LARGE",
        )


def _list_of(kind: str, value: tuple[Any, ...]) -> recall_pb2.AttributeList:
    return recall_pb2.AttributeList(**{"integers" if kind == "ARRAY<INT64>" else "texts": value})


def provenance(release: Release, channel: str, timings: Timings, history_ms: float = 0) -> dict[str, Any]:
    """The fields that say what answered, and how long it took."""
    told = recall_pb2.StageTimings(**vars(timings), history_ms=history_ms, total_ms=timings.total_ms + history_ms)
    named = {"model_version": release.model_version, "collection": release.collection, "channel": channel}
    return named | {"timings": told}


def candidates(
    results: Sequence[UserResult],
    named: Named | None,
    users: Sequence[UserQuery],
    sent: Sequence[recall_pb2.User],
) -> list[recall_pb2.UserCandidates]:
    """The candidates of each user.

    Args:
        results: one for each user.
        named: the keys of all candidates (`items_of`); None where ids are integers.
        users: the users as they were searched for.
        sent: the same users as they were sent.
    """
    if named is None:
        return [_by_id(result) for result in results]
    share, end = UNKNOWN_BYTES // len(sent), 0
    written = []
    for result, user, as_sent in zip(results, users, sent, strict=True):
        start, end = end, end + len(result.item_ids)
        unknown = _unknown_keys(result, user, as_sent, share) if len(result.unknown) else []
        written.append(_by_key(result, named.keys[start:end], named.absent, unknown))
    return written


def _by_id(result: UserResult) -> recall_pb2.UserCandidates:
    unknown = list(dict.fromkeys(result.unknown.tolist())) if len(result.unknown) else []
    return recall_pb2.UserCandidates(
        item_ids=result.item_ids.tolist(),
        scores=result.scores.tolist(),
        interest=result.interest.tolist(),
        unknown_item_ids=unknown[:UNKNOWN_LISTED],
        source=_source(result),
        added=_added(result),
        **_told(result, result.detail),
    )


def _by_key(result: UserResult, keys: list[str], absent: str, unknown: list[str]) -> recall_pb2.UserCandidates:
    """The candidates that have keys. `absent`: why some have none."""
    scores, interest, source, added = (
        result.scores.tolist(),
        result.interest.tolist(),
        _source(result),
        _added(result),
    )
    detail = result.detail
    if "" in keys:
        there = [place for place, key in enumerate(keys) if key]
        left_out = f"{len(keys) - len(there)} of {len(keys)} candidates are left out: {absent}"
        detail = f"{detail}; {left_out}" if detail else left_out
        keys, scores, interest = ([column[place] for place in there] for column in (keys, scores, interest))
        source, added = ([column[place] for place in there if column] for column in (source, added))
    return recall_pb2.UserCandidates(
        item_keys=keys,
        scores=scores,
        interest=interest,
        unknown_item_keys=unknown,
        source=source,
        added=added,
        **_told(result, detail),
    )


def _source(result: UserResult) -> list[Any]:
    """What found each candidate, as numbers of recall.v1.Source; empty where no neighbours were asked for."""
    return [] if result.source is None else result.source.tolist()


def _added(result: UserResult) -> list[float]:
    """What boosts added to the score of each candidate; empty without boosts."""
    return [] if result.added is None else result.added.tolist()


def _told(result: UserResult, detail: str) -> dict[str, Any]:
    return {
        "status": int(result.status),
        "fallback": result.fallback,
        "unknown_count": len(result.unknown),
        "detail": detail,
    }


def _unknown_keys(result: UserResult, user: UserQuery, sent: recall_pb2.User, most_bytes: int) -> list[str]:
    """The keys that the caller sent and the model does not know, without repeats, up to a number of them and of bytes.

    Only the hashes of a stored history are known, so its unknown clicks are counted and not listed.
    """
    if not len(sent.hist_item_keys):
        return []
    unknown = set(result.unknown.tolist())
    history = zip(sent.hist_item_keys, user.hist_item.tolist(), strict=True)
    keys = list(dict.fromkeys(key for key, item_id in history if item_id in unknown))[:UNKNOWN_LISTED]
    ends = np.cumsum([len(key.encode()) for key in keys])
    return keys[: int(np.searchsorted(ends, most_bytes, side="right"))]


def steps(trace: Trace, release: Release, hits: Named | None) -> dict[str, Any]:
    """The fields that show how candidates came about. `hits`: as in `interests`."""
    return {
        "interests": interests(trace, release, hits),
        "dropped": dropped(trace, hits),
        "search": trace.search,
        **used_history(trace, release),
    }


def interests(trace: Trace, release: Release, hits: Named | None) -> list[recall_pb2.Interest]:
    """Every interest of a model and what was found for it.

    `hits`: the keys of all hits (`hits_of`), without which a hit is left out; None for integers.
    """
    if not len(trace.interest):
        return []
    found = [recall_pb2.Interest() for _ in range(release.hyper_parameters.num_interests)]
    searched_with = trace.interest.tolist(), trace.interest_vectors, trace.click_weights
    for number, vector, weights in zip(*searched_with, strict=True):
        found[number].vector.extend(vector.tolist())
        found[number].weights.extend(weights.tolist())
    near, searched = trace.near, len(trace.hits.item_ids)
    keys = [None, None] if hits is None else [hits.keys[:searched], hits.keys[searched:]]
    for number, own in zip(trace.interest.tolist(), _parts(trace.hits), strict=True):
        there = _list(found[number], "item_", trace.hits.item_ids[own], keys[0] and keys[0][own])
        found[number].scores.extend(trace.hits.scores[own][there].tolist())
        if trace.added is not None:
            found[number].added.extend(trace.added[own][there].tolist())
    for number, own in zip(near.interest.tolist(), _parts(near.hits), strict=True):
        there = _list(found[number], "neighbour_item_", near.hits.item_ids[own], keys[1] and keys[1][own])
        found[number].neighbour_scores.extend(near.hits.scores[own][there].tolist())
        found[number].neighbour_bonuses.extend(near.bonus[own][there].tolist())
        added = release.vocabulary.item_index(near.hits.item_ids[own][there]) == 0
        found[number].neighbour_fresh.extend(added.tolist())
        if trace.added is not None:
            found[number].neighbour_added.extend(trace.added[searched:][own][there].tolist())
    return found


def hits_of(trace: Trace) -> Int64:
    """The ids of all hits, those of the search and then the neighbours, [n] int64."""
    return np.concatenate([trace.hits.item_ids, trace.near.hits.item_ids])


def _parts(hits: Hits) -> list[slice]:
    """Where the hits of each query are."""
    ends = np.cumsum(hits.lengths).tolist()
    return [slice(start, end) for start, end in pairwise([0, *ends])]


def _list(interest: recall_pb2.Interest, name: str, item_ids: Int64, keys: list[str] | None) -> list[int]:
    """Add items to the field of that name, by id or, if `keys` has them, by key; gives the places of those added."""
    if keys is None:
        getattr(interest, name + "ids").extend(item_ids.tolist())
        return list(range(len(item_ids)))
    getattr(interest, name + "keys").extend(key for key in keys if key)
    return [place for place, key in enumerate(keys) if key]


def dropped(trace: Trace, hits: Named | None) -> list[recall_pb2.DroppedHit]:
    """The hits that are not among the candidates. `hits`: as in `interests`."""
    lost, near, searched = np.flatnonzero(trace.fate != Fate.KEPT), trace.near, len(trace.hits.item_ids)
    interest = np.concatenate([trace.interest.repeat(trace.hits.lengths), near.interest.repeat(near.hits.lengths)])
    scores = np.concatenate([trace.hits.scores, near.hits.scores])
    source = (
        np.where(lost < searched, Source.SEARCH, Source.NEIGHBOURS)
        if len(near.bonus)
        else np.zeros(len(lost), np.int64)
    )
    added = np.zeros(len(lost), np.float32) if trace.added is None else trace.added[lost]
    columns = (hits_of(trace)[lost], interest[lost], scores[lost], trace.fate[lost], source, added, lost)
    return [
        recall_pb2.DroppedHit(
            **({"item_id": item_id} if hits is None else {"item_key": hits.keys[place]}),
            interest=number,
            score=score,
            reason=reason,
            source=of,
            at_most=[name for name, dropped in trace.capped_by.items() if dropped[place]],
            added=gets,
        )
        for item_id, number, score, reason, of, gets, place in zip(
            *(column.tolist() for column in columns), strict=True
        )
        if hits is None or hits.keys[place]
    ]


def applied(parts: Sequence[tuple[Boost, Float32]], named: Named | None) -> list[recall_pb2.AppliedBoost]:
    """What each boost adds to the candidates. `named`: their keys, without which one is left out; None for integers."""
    return [
        recall_pb2.AppliedBoost(
            boost=recall_pb2.Boost(**{name: value for name, value in vars(boost).items() if name != "of_release"}),
            of_release=boost.of_release,
            added=[each for place, each in enumerate(added.tolist()) if named is None or named.keys[place]],
        )
        for boost, added in parts
    ]


def used_history(trace: Trace, release: Release) -> dict[str, Any]:
    """The history items that the model looked at, in the field for them."""
    if release.keys is None:
        return {"used_hist_item": trace.used_hist_item.tolist()}
    position = release.vocabulary.item_index(trace.used_hist_item) - 1
    return {"used_hist_item_keys": release.keys.at(position)}

"""Writes the answers of Recall and Explain as protobuf, with the items' integers or keys, as the release has them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mind.sequences import Int64
from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError
from server.release import Release
from server.serving.answer import Outcome, Trace, UserResult
from server.serving.attributes import Values
from server.serving.item_keys import Named
from server.serving.merge import Fate
from server.serving.question import UserQuery

UNKNOWN_LISTED = 100
"""Most unknown ids that an answer lists for one user."""
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


def items_of(results: Sequence[UserResult]) -> Int64:
    """The ids of the candidates of all users, [n] int64."""
    return np.concatenate([result.item_ids for result in results])


def named_items(results: Sequence[UserResult], named: Named | None) -> Int64:
    """The ids of the candidates that are in the answer: all of them, or those that have keys."""
    item_ids = items_of(results)
    return item_ids if named is None else item_ids[[bool(key) for key in named.keys]]


def add_attributes(results: Sequence[recall_pb2.UserCandidates], columns: Sequence[Values]) -> None:
    """Write the values of attributes into the candidates that they belong to.

    Args:
        results: the candidates of all users.
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


def provenance(release: Release, outcome: Outcome, history_ms: float) -> dict[str, Any]:
    """The fields that say what answered, and how long it took."""
    timings = recall_pb2.StageTimings(
        **vars(outcome.timings), history_ms=history_ms, total_ms=outcome.timings.total_ms + history_ms
    )
    return {"model_version": release.model_version, "collection": release.collection, "timings": timings}


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
        **_told(result, result.detail),
    )


def _by_key(result: UserResult, keys: list[str], absent: str, unknown: list[str]) -> recall_pb2.UserCandidates:
    """The candidates that have keys. `absent`: why some have none."""
    scores, interest, detail = result.scores.tolist(), result.interest.tolist(), result.detail
    if "" in keys:
        there = [place for place, key in enumerate(keys) if key]
        left_out = f"{len(keys) - len(there)} of {len(keys)} candidates are left out: {absent}"
        detail = f"{detail}; {left_out}" if detail else left_out
        keys, scores, interest = ([column[place] for place in there] for column in (keys, scores, interest))
    return recall_pb2.UserCandidates(
        item_keys=keys, scores=scores, interest=interest, unknown_item_keys=unknown, **_told(result, detail)
    )


def _told(result: UserResult, detail: str) -> dict[str, Any]:
    return {
        "status": int(result.status),
        "fallback": result.fallback,
        "unknown_count": len(result.unknown),
        "detail": detail,
    }


def _unknown_keys(result: UserResult, user: UserQuery, sent: recall_pb2.User, most_bytes: int) -> list[str]:
    """The keys that the caller sent and the model does not know, without repeats, up to a number of them and of bytes.

    Of a stored history only the hashes are known, so its unknown clicks are counted and not listed.
    """
    if not len(sent.hist_item_keys):
        return []
    unknown = set(result.unknown.tolist())
    history = zip(sent.hist_item_keys, user.hist_item.tolist(), strict=True)
    keys = list(dict.fromkeys(key for key, item_id in history if item_id in unknown))[:UNKNOWN_LISTED]
    ends = np.cumsum([len(key.encode()) for key in keys])
    return keys[: int(np.searchsorted(ends, most_bytes, side="right"))]


def interests(trace: Trace, num_interests: int, hits: Named | None) -> list[recall_pb2.Interest]:
    """Every interest and its hits. `hits`: the keys of all hits, without which a hit is left out; None for integers."""
    if not len(trace.interest):
        return []
    found = [recall_pb2.Interest() for _ in range(num_interests)]
    ends = np.cumsum(trace.hits.lengths)
    for number, vector, end, length in zip(
        trace.interest, trace.interest_vectors, ends, trace.hits.lengths, strict=True
    ):
        own = slice(end - length, end)
        found[number].vector.extend(vector.tolist())
        scores = trace.hits.scores[own].tolist()
        if hits is None:
            found[number].item_ids.extend(trace.hits.item_ids[own].tolist())
            found[number].scores.extend(scores)
        else:
            keys = hits.keys[own]
            found[number].item_keys.extend(key for key in keys if key)
            found[number].scores.extend(score for key, score in zip(keys, scores, strict=True) if key)
    return found


def dropped(trace: Trace, hits: Named | None) -> list[recall_pb2.DroppedHit]:
    """The hits that are not among the candidates. `hits`: as in `interests`."""
    lost = np.flatnonzero(trace.fate != Fate.KEPT)
    interest = np.repeat(trace.interest, trace.hits.lengths)
    columns = (trace.hits.item_ids[lost], interest[lost], trace.hits.scores[lost], trace.fate[lost], lost)
    return [
        recall_pb2.DroppedHit(
            **({"item_id": item_id} if hits is None else {"item_key": hits.keys[place]}),
            interest=number,
            score=score,
            reason=reason,
        )
        for item_id, number, score, reason, place in zip(*(column.tolist() for column in columns), strict=True)
        if hits is None or hits.keys[place]
    ]


def used_history(trace: Trace, release: Release) -> dict[str, Any]:
    """The history items that the model looked at, in the field for them."""
    if release.keys is None:
        return {"used_hist_item": trace.used_hist_item.tolist()}
    position = release.vocabulary.item_index(trace.used_hist_item) - 1
    return {"used_hist_item_keys": release.keys.at(position)}

"""Logs what lists had and what users did with them, as the rows of clicks that `mind.prepare` reads.

A line is an item: user_id, item_id, timestamp (in ms) and event, and the recall_id of the list. The event is the kind
of the feedback, or `candidate` where the line is a candidate of an answer.
"""

import random
import secrets
import time
from collections.abc import Iterator
from typing import Any

from mind.keys import MAX_KEY_BYTES
from protos.recall.v1 import recall_pb2
from server.edge.limits import check_user_id
from server.errors import DisabledError, InvalidRequestError, OverloadedError
from server.release import Release
from server.watching.line_sink import LineSink

CANDIDATE = "candidate"
"""The event of a candidate."""
INVALID = "FEEDBACK_INVALID"
MAX_ITEMS = 1_000
"""Most items of a LogFeedback."""
MAX_KIND_BYTES, MAX_RECALL_ID_BYTES = 64, 64
FIRST_MS, AHEAD_MS = 10**12, 24 * 3600 * 1000
"""Times are from 2001 on, up to a day ahead: others are in another unit."""
RETRY_MS = 1_000
"""After how long a caller should come back while the log is behind."""


class FeedbackLog:
    """Writes candidates of a share of the answers, and all feedback."""

    def __init__(self, sink: LineSink | None, sample: float) -> None:
        """`sink`: None if nothing is logged; `sample`: share of the answers whose candidates are logged."""
        self._sink = sink
        self._sample = sample

    @property
    def enabled(self) -> bool:
        """Whether anything is logged."""
        return self._sink is not None

    def add_ids(self, request: recall_pb2.RecallRequest, answer: recall_pb2.RecallResponse) -> None:
        """Give each list of an answer its recall_id, and log a share of the answers."""
        assert self._sink is not None  # noqa: S101 - it is enabled
        name, lines = secrets.token_hex(8), 0
        for number, found in enumerate(answer.results):
            found.recall_id = f"{name}-{number}"
            lines += len(found.item_ids) or len(found.item_keys)
        if self._sample and random.random() < self._sample:
            user_ids, at_ms = [user.user_id for user in request.users], _now_ms()
            self._sink.offer(lines, lambda: _candidates(user_ids, answer, at_ms))

    def log(self, request: recall_pb2.LogFeedbackRequest, release: Release) -> recall_pb2.LogFeedbackResponse:
        """Log what a user did.

        Raises:
            DisabledError: nothing is logged.
            InvalidRequestError: a field breaks a limit.
            OverloadedError: too many lines wait for the disk.
        """
        if self._sink is None:
            raise DisabledError("the server logs no feedback; --feedback-log enables it", "FEEDBACK_DISABLED")
        _check(request, release.has_text_ids)
        shared = {"timestamp": request.time_ms or _now_ms(), "event": request.kind, "recall_id": request.recall_id}
        shared |= {"channel": request.channel} if request.channel else {}
        who = request.user_id or request.recall_id
        items = list(request.item_keys or request.item_ids)
        if not self._sink.offer(len(items), lambda: ({"user_id": who, "item_id": item} | shared for item in items)):
            raise OverloadedError("the feedback log is behind; come back later", RETRY_MS)
        return recall_pb2.LogFeedbackResponse()

    def close(self) -> None:
        """Write what waits."""
        if self._sink:
            self._sink.close()


def _candidates(user_ids: list[str], answer: recall_pb2.RecallResponse, at_ms: int) -> Iterator[dict[str, Any]]:
    for user_id, found in zip(user_ids, answer.results, strict=True):
        columns = found.item_keys or found.item_ids, found.scores, found.interest
        for rank, (item, score, interest) in enumerate(zip(*columns, strict=True)):
            yield {
                "user_id": user_id or found.recall_id,
                "item_id": item,
                "timestamp": at_ms,
                "event": CANDIDATE,
                "recall_id": found.recall_id,
                "rank": rank,
                "score": round(score, 6),
                "interest": interest,
                "model_version": answer.model_version,
                "collection": answer.collection,
                "channel": answer.channel,
            }


def _check(request: recall_pb2.LogFeedbackRequest, text: bool) -> None:
    """Raise InvalidRequestError if a field breaks a limit. `text`: whether the ids of the release are text."""
    right, wrong = ("item_keys", "item_ids") if text else ("item_ids", "item_keys")
    if found := len(getattr(request, wrong)):
        kind = "text" if text else "integers"
        says = f"has {found} ids, but the ids of this release are {kind}; send them in {right}"
        raise InvalidRequestError(wrong, says, "WRONG_ID_TYPE")
    items = getattr(request, right)
    _must(1 <= len(items) <= MAX_ITEMS, right, f"has {len(items)} ids, must have 1 to {MAX_ITEMS}")
    for place, key in enumerate(request.item_keys):
        size = len(key.encode())
        _must(1 <= size <= MAX_KEY_BYTES, f"{right}[{place}]", f"has {size} bytes, a key has 1 to {MAX_KEY_BYTES}")
    size = len(request.kind.encode())
    _must(1 <= size <= MAX_KIND_BYTES, "kind", f"has {size} bytes, must have 1 to {MAX_KIND_BYTES}")
    _must(request.kind != CANDIDATE, "kind", f"is {CANDIDATE!r}, which the server itself writes; take another word")
    size = len(request.recall_id.encode())
    _must(size <= MAX_RECALL_ID_BYTES, "recall_id", f"has {size} bytes, the limit is {MAX_RECALL_ID_BYTES}")
    _must(bool(request.user_id or request.recall_id), "user_id", "is empty, and so is recall_id; give one of them")
    if request.user_id and (says := check_user_id(request.user_id)):
        raise InvalidRequestError("user_id", says.removeprefix("user_id "), INVALID)
    at_ms, last = request.time_ms, _now_ms() + AHEAD_MS
    says = f"is {at_ms}, must be 0 for now, or milliseconds since 1970, {FIRST_MS} to {last}"
    _must(at_ms == 0 or FIRST_MS <= at_ms <= last, "time_ms", says)


def _must(right: bool, field: str, says: str) -> None:
    if not right:
        raise InvalidRequestError(field, says, INVALID)


def _now_ms() -> int:
    return int(time.time() * 1000)

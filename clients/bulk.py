"""Candidates for every user of a file. Many requests are in progress; answers keep the order of the file, and are saved
part by part.

This module knows nothing of the command line. To keep a server busy from one core, Python handles users, never single
hits.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clients.aio_client import AsyncRecallClient
from clients.bulk_answers import Columns
from clients.bulk_input import Histories, Int64
from clients.bulk_parts import Parts
from clients.core import MergeStrategyName, NeighboursName, RecallResult
from clients.errors import DeadlineExceededError, RecallError, UnavailableError
from clients.ids import has_text_ids
from clients.requests import user_of
from protos.recall.v1 import recall_pb2

Answer = TypeVar("Answer")
Report = Callable[[str, int], None]
"""A function that gets the current stage and the number of users who have passed it."""

_UNLIMITED = 2**31 - 1
_REQUESTS_PER_READ = 16
_HITS_PER_PART = 2_000_000
"""Bounds memory where `top_k` is large: 16 bytes a hit, and two parts at once. An attribute counts as another hit."""
_USER_BYTES = 16
"""Most bytes that a user takes in a request besides ids."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Question:
    """What is asked for every user; see RecallClient.recall."""

    top_k: int
    filter: str = ""
    exclude_history: bool = False
    merge_strategy: MergeStrategyName = "best_score"
    neighbours: NeighboursName = "default"
    return_attributes: list[str] = field(default_factory=list)
    exclude_shown: bool = False
    at_most: dict[str, int] = field(default_factory=dict)
    per_interest_min: int = 0
    diversity: float = 0
    channel: str = ""
    """The channel whose release answers all users. A split does not apply to users together."""

    @property
    def values(self) -> int:
        """Values that the answer has for each user: candidates, and their attributes."""
        return self.top_k * (1 + len(self.return_attributes))


@dataclass(frozen=True)
class Pace:
    """How fast requests are sent. It changes nothing in the answers."""

    concurrency: int = 8
    """Requests in progress at a time."""
    users_per_request: int = 64
    """Users per request. There are fewer if the server allows fewer, or if histories are long."""
    users_per_part: int = 20_000
    """Users between two saves, which is also a row group of the output."""
    give_up_after_s: float = 300.0
    """After so many seconds without any answer, a failing request is no longer repeated."""


@dataclass
class Outcome:
    """The results of a run."""

    users: int = 0
    """All users of the output."""
    asked: int = 0
    """The users that were asked for in this run. Parts of an earlier run have the others."""
    elapsed_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    model_versions: Counter[str] = field(default_factory=Counter)
    """The number of users that each model answered."""
    noted: int = 0
    """Users with a detail, such as a rule that was not applied or why a list is short."""
    note: str = ""
    """The first such detail."""


async def run(
    connection: Mapping[str, Any], histories: Histories, parts: Parts, question: Question, pace: Pace, report: Report
) -> Outcome:
    """Answer the users that `parts` does not have yet, and make the output from all parts.

    If it ends early, even by cancellation, `parts` keeps what was saved, and another call continues from there.

    Args:
        connection: arguments of AsyncRecallClient.
        histories: the users.
        parts: where the run continues and saves.
        question: the same for all users.
        pace: bounded by the limits of the server.
        report: called for every request.

    Raises:
        RecallError: the server refused a request, or nothing was answered for `give_up_after_s`.
        FileError: the input is damaged.
        OSError: the output cannot be written.
    """
    started, before = time.monotonic(), parts.rows
    if before < histories.rows:
        # No limits of its own: it must not split what was measured to be one request.
        async with AsyncRecallClient(**connection, max_users=_UNLIMITED, max_candidates=_UNLIMITED) as client:
            await _Asking(client, histories, parts, question, pace, report).all()
    outcome = Outcome(asked=parts.rows - before)
    with closing(parts.join()) as tables:
        for table in tables:
            outcome.users += len(table)
            outcome.statuses.update(_counts(table.column("status")))
            outcome.model_versions.update(_counts(table.column("model_version")))
            noted = table.column("detail").filter(pc.not_equal(table.column("detail"), ""))
            outcome.noted += len(noted)
            outcome.note = outcome.note or (noted[0].as_py() if len(noted) else "")
            report("joining the parts", outcome.users)
            await asyncio.sleep(0)  # where a cancellation arrives
    outcome.elapsed_s = time.monotonic() - started
    return outcome


class _Asking:
    """One pass over the users who are not answered yet."""

    def __init__(
        self,
        client: AsyncRecallClient,
        histories: Histories,
        parts: Parts,
        question: Question,
        pace: Pace,
        report: Report,
    ) -> None:
        self._client = client
        self._histories = histories
        self._parts = parts
        self._question = question
        self._pace = pace
        self._report = report
        self._part_rows = max(1, min(pace.users_per_part, _HITS_PER_PART // question.values))
        self._unsaved: list[Any] = []  # record batches
        self._unsaved_rows = 0
        self._saving: asyncio.Task[None] | None = None
        self._done = parts.rows
        self._answered_at_s = time.monotonic()

    async def all(self) -> None:
        """Keep `concurrency` requests in progress, and take the answers in the order of the users."""
        channel = self._question.channel
        info = await self._patiently(lambda: self._client.get_server_info(channel=channel))
        limits, text = info.limits, has_text_ids(info)
        self._histories.check_ids(text)
        types = {attribute.name: attribute.type for attribute in info.attributes}
        user = self._histories.user_column, self._histories.user_type
        self._columns = Columns.of(*user, text, types, self._question.return_attributes)
        self._parts.check(self._columns.schema)
        concurrency = min(self._pace.concurrency, limits.max_concurrent_requests or _UNLIMITED)
        slots = asyncio.Semaphore(concurrency)
        # Answers that came before an earlier user's wait here, so the others need not stop at once for a slow one.
        pending: deque[asyncio.Task[Any]] = deque()
        try:
            for user_ids, users in self._requests(limits):
                await slots.acquire()
                pending.append(asyncio.create_task(self._ask(user_ids, users, slots)))
                while pending and (pending[0].done() or len(pending) >= 4 * concurrency):
                    await self._keep(await pending.popleft())
            while pending:
                await self._keep(await pending.popleft())
            if self._unsaved:
                await self._save(self._part_rows)
            if self._saving:
                await self._saving
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, *([self._saving] if self._saving else []), return_exceptions=True)

    def _requests(self, limits: recall_pb2.Limits) -> Iterator[tuple[Any, list[recall_pb2.User]]]:
        """Yield user ids and users of each request within the limits. A limit of 0 is not known."""
        size = min(
            self._pace.users_per_request,
            limits.max_users or _UNLIMITED,
            max(1, (limits.max_candidates or _UNLIMITED) // self._question.values),
        )
        max_history = limits.max_history or _UNLIMITED
        # One more than the limit breaks it just as well, and boundless exclusions are no boundless request.
        max_exclude = (limits.max_exclude or _UNLIMITED) + 1
        with closing(self._histories.read(self._done, size * _REQUESTS_PER_READ)) as batches:
            for rows in batches:
                hist_item = rows.hist_item.last(max_history)
                exclude_item_ids = rows.exclude_item_ids.last(max_exclude)
                names = rows.names() if self._question.exclude_shown else [""] * len(rows.user_ids)
                sizes = _USER_BYTES + hist_item.sizes + exclude_item_ids.sizes
                sizes += np.fromiter((len(name.encode()) for name in names), np.int64, len(names))
                for start, end in _spans(sizes, size, limits.max_request_bytes or _UNLIMITED):
                    users = [
                        user_of(hist_item.of(user), exclude_item_ids.of(user), max_history)
                        for user in range(start, end)
                    ]
                    for user, name in zip(users, names[start:end], strict=True):
                        user.user_id = name
                    yield rows.user_ids[start:end], users

    async def _ask(self, user_ids: Any, users: list[recall_pb2.User], slots: asyncio.Semaphore) -> Any:
        """Return the answer to one request as a record batch."""
        try:
            result = await self._patiently(lambda: self._recall(users))
        finally:
            slots.release()
        return self._columns.rows(user_ids, result)

    async def _recall(self, users: list[recall_pb2.User]) -> RecallResult:
        """The answer with all attributes. An answer without them counts as a failure that passes."""
        result = await self._client.recall(users, **asdict(self._question))
        if result.attributes_detail:
            raise UnavailableError(grpc.StatusCode.UNAVAILABLE, f"attributes are missing: {result.attributes_detail}")
        return result

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a call that fails for temporary reasons, with growing pauses."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await call()
                self._answered_at_s = time.monotonic()
                return answer
            except RecallError as error:
                silent_s = time.monotonic() - self._answered_at_s
                if not _passes(error) or silent_s > self._pace.give_up_after_s:
                    raise
                least_s = error.retry_after_s or 0.0
            self._report("waiting for the server", self._done)
            await asyncio.sleep(max(least_s, pause_s * random.uniform(0.5, 1)))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _keep(self, answer: Any) -> None:
        """Take the next answer in order, and save a part when it is complete."""
        self._unsaved.append(answer)
        self._unsaved_rows += answer.num_rows
        self._done += answer.num_rows
        self._report("asking", self._done)
        while self._unsaved_rows >= self._part_rows:
            await self._save(self._part_rows)

    async def _save(self, rows: int) -> None:
        """Write the first unsaved rows in a thread, after the previous part."""
        table = pa.Table.from_batches(self._unsaved)
        self._unsaved = table.slice(rows).to_batches()
        self._unsaved_rows = max(0, self._unsaved_rows - rows)
        if self._saving:
            await self._saving
        self._saving = asyncio.create_task(asyncio.to_thread(self._parts.write, table.slice(0, rows)))


def _passes(error: RecallError) -> bool:
    """Whether the same request may succeed later. A server that stops sends CANCELLED."""
    return isinstance(error, DeadlineExceededError | UnavailableError) or error.code is grpc.StatusCode.CANCELLED


def _spans(sizes: Int64, most: int, most_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield spans of users for requests of at most `most` users and `most_bytes`. A larger user is a request alone.

    Args:
        sizes: [N] int64, bytes of each user.
        most: users in a request.
        most_bytes: bytes in a request.

    Returns:
        start and end of each request.
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        taken = ends[start] - sizes[start]
        fitting = int(np.searchsorted(ends, taken + most_bytes, side="right"))
        end = max(start + 1, min(start + most, fitting))
        yield start, min(end, len(sizes))
        start = end


def _counts(column: Any) -> dict[str, int]:
    return {count["values"]: count["counts"] for count in column.value_counts().to_pylist()}

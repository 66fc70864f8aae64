"""Requests to batches: whatever waits when nothing is in progress is answered together, without a timer.

Alone, a request starts at once. Under load, a second batch starts beside one of its group once half a full one waits:
small ones side by side cost more than they win. Those of another group, a slow filter say, hold nobody up: they have
room of their own. What cannot be answered in time is turned away at the door, and dropped if it no longer can. Knows
nothing of recall.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.errors import DeadlineExceededError, OverloadedError

SMOOTHING = 0.1
"""Weight of the newest batch in what a batch is believed to take."""
OUTLIER = 4
"""Times the usual that a batch counts for at most: one of a slow filter says little of the others."""
STUCK = 4
"""Times the usual after which a batch in progress is waited for no longer."""
ROOM = 2
"""Batches in progress of all groups, for each of one group."""
HEADROOM = 2
"""How many times the wait, as it is guessed, must fit into a deadline: under overload all is slower than it was."""
SHORTEST_RETRY_MS, LONGEST_RETRY_MS = 10, 2_000
"""Bounds of when a caller that was turned away should come back."""

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass
class Waiting(Generic[Ask, Answer]):
    """A request in the queue."""

    ask: Ask
    users: int
    group: Hashable
    """Requests of one group can be answered together."""
    deadline: float
    """On the clock of `time.perf_counter`; infinite without one."""
    answer: asyncio.Future[Answer]
    arrived: float = field(default_factory=time.perf_counter)
    queued: bool = True
    """Whether it waits for a batch."""

    @property
    def late(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answer.done() or time.perf_counter() >= self.deadline


class Batcher(Generic[Ask, Answer]):
    """A bounded queue, and workers that take batches from it."""

    def __init__(
        self,
        answer: Callable[[list[Waiting[Ask, Answer]]], Awaitable[list[Answer | Exception]]],
        max_batch_users: int,
        max_queued_users: int,
        workers: int,
    ) -> None:
        """Make a batcher.

        Args:
            answer: answers a batch of one group, in order. An exception among the answers is for that request; one
                that is raised is for all of them.
            max_batch_users: most users of a batch, unless a single request has more.
            max_queued_users: most users that wait; a request that finds the queue empty is always taken.
            workers: batches of one group in progress at once, and `ROOM` times as many of all groups; with two, one
                is encoded and merged while the other is searched.
        """
        self._answer = answer
        self._max_batch_users = max_batch_users
        self._max_queued_users = max_queued_users
        self._workers = workers
        self._running: list[tuple[Hashable, float]] = []
        """Group of each batch in progress, and when it began."""
        self._queue: deque[Waiting[Ask, Answer]] = deque()
        self._queued_users = 0
        self._queued_by_group: dict[Hashable, int] = {}
        """Users that wait, by group, the group whose queue is oldest first; none for whom nobody waits."""
        self._seconds_per_batch = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def queued_users(self) -> int:
        """Users that wait."""
        return self._queued_users

    async def submit(self, ask: Ask, users: int, group: Hashable, remaining_s: float | None) -> Answer:
        """Wait for the answer to a request.

        Args:
            ask: what is asked.
            users: how much of a batch it fills.
            group: see `Waiting.group`.
            remaining_s: time left to the caller; None without a deadline.

        Raises:
            OverloadedError: too much is waiting, or more than can be answered in the time left.
            DeadlineExceededError: the time ran out in the queue.
        """
        self.admit(users, remaining_s)
        deadline = time.perf_counter() + remaining_s if remaining_s is not None else float("inf")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = Waiting(ask, users, group, deadline, answer)
        self._queue.append(waiting)
        self._count(group, users)
        if begun := self._begin():
            task = asyncio.create_task(self._work(begun))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await answer
        except asyncio.CancelledError:  # the caller left: its place is free now, not when its turn comes
            if waiting.queued:
                self._count(group, -waiting.users)
                waiting.users = 0
            raise

    def admit(self, users: int, remaining_s: float | None) -> None:
        """Raise OverloadedError if a request would be turned away now."""
        if not self._queue:
            return
        batches = self._queued_users / self._max_batch_users / self._workers + 1  # those before it, and its own
        wait_s = batches * self._seconds_per_batch
        full = self._queued_users + users > self._max_queued_users
        if full or (remaining_s is not None and HEADROOM * wait_s > remaining_s):
            reason = f"{self._queued_users} users are waiting, about {wait_s * 1000:.0f} ms"
            limit = f"the limit is {self._max_queued_users}" if full else f"the deadline is in {remaining_s:.3g} s"
            retry_ms = min(max(int(wait_s * 500), SHORTEST_RETRY_MS), LONGEST_RETRY_MS)
            raise OverloadedError(f"{reason}; {limit}", retry_ms)

    def _count(self, group: Hashable, users: int) -> None:
        """That many users of a group more wait, or less."""
        self._queued_users += users
        if left := self._queued_by_group.get(group, 0) + users:
            self._queued_by_group[group] = left
        else:
            del self._queued_by_group[group]

    def _begin(self) -> tuple[Hashable, float] | None:
        """Note the batch that should start beside those in progress; None if none should."""
        if len(self._running) >= ROOM * self._workers:
            return None
        now = time.perf_counter()
        for group, users in self._queued_by_group.items():
            began = [since for running, since in self._running if running == group]
            stuck = 0 < STUCK * self._seconds_per_batch < now - min(began, default=now)
            worthwhile = stuck or users >= self._max_batch_users / 2
            if not began or (worthwhile and len(began) < self._workers):
                self._running.append((group, now))
                return group, now
        return None

    async def _work(self, begun: tuple[Hashable, float] | None) -> None:
        while begun:
            try:
                if batch := self._next_batch(begun[0]):
                    await self._run(batch)
            finally:
                self._running.remove(begun)
            begun = self._begin()

    def _next_batch(self, group: Hashable) -> list[Waiting[Ask, Answer]]:
        """The oldest request of a group that somebody still waits for, and others as far as they fit."""
        batch: list[Waiting[Ask, Answer]] = []
        users = 0
        left: deque[Waiting[Ask, Answer]] = deque()
        while self._queue and users < self._max_batch_users:
            waiting = self._queue.popleft()
            if waiting.late:
                self._take(waiting)
                if not waiting.answer.done():
                    waiting.answer.set_exception(DeadlineExceededError("the deadline passed in the queue"))
            elif waiting.group == group and (not batch or users + waiting.users <= self._max_batch_users):
                self._take(waiting)
                batch.append(waiting)
                users += waiting.users
            else:
                left.append(waiting)
        self._queue.extendleft(reversed(left))
        return batch

    def _take(self, waiting: Waiting[Ask, Answer]) -> None:
        """It is out of the queue."""
        waiting.queued = False
        if waiting.users:  # or it left, and is not counted any more
            self._count(waiting.group, -waiting.users)

    async def _run(self, batch: list[Waiting[Ask, Answer]]) -> None:
        started = time.perf_counter()
        answers: list[Answer | Exception]
        try:
            answers = await self._answer(batch)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        except Exception as error:
            answers = [error] * len(batch)
        if not all(isinstance(answer, Exception) for answer in answers):
            self._learn(sum(waiting.users for waiting in batch), time.perf_counter() - started)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue  # the caller left
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)

    def _learn(self, users: int, took_s: float) -> None:
        """Remember how long batches take.

        Small ones are quicker, so the guess is low until they are full: a burst after a quiet time is let in, and only
        lasting overload is turned away.
        """
        took_s /= max(1, users / self._max_batch_users)
        known = self._seconds_per_batch or took_s
        self._seconds_per_batch = known + SMOOTHING * (min(took_s, OUTLIER * known) - known)

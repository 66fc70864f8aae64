"""Makes batches of requests: requests that wait at the same time are answered together, without a timer.

A request that comes alone starts at once. Under load, a second batch of a group starts beside the first once half a
full batch waits, as two small batches cost more than one. Requests of another group, of more candidates for example,
delay nobody, as each group has room of its own. A request that cannot be answered in time is turned away when it
comes; one whose time runs out in the queue is dropped. Knows nothing of recall.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from server.errors import DeadlineExceededError, OverloadedError

SMOOTHING = 0.1
"""Weight of the newest batch in the estimate of how long a batch takes."""
OUTLIER = 4
"""A batch counts in the estimate as at most this many times the usual: one that is slow says little about others."""
STUCK = 4
"""After this many times the usual, the next batch of the group does not wait for the one in progress."""
ROOM = 2
"""Most batches in progress of all groups together, as a multiple of the most of one group."""
STALE = 2
"""Batches before the oldest request came that an estimate may be old, to be believed."""
HEADROOM = 2
"""How often the estimated wait must fit into a deadline: under overload batches take longer than they did."""
GATHERING_ROUNDS = 8
"""Rounds of the event loop in which no request came, after which a batch that gathers begins. A request takes some
rounds from its arrival to its queue."""
SHORTEST_RETRY_MS, LONGEST_RETRY_MS = 10, 2_000
"""Bounds of the time after which a caller that was turned away should come back."""

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class Waiting(Generic[Ask, Answer]):
    """A request that waits for its answer."""

    ask: Ask
    """What is asked."""
    users: int
    """How many users of a batch it takes."""
    group: Hashable
    """Requests of one group can be answered together."""
    deadline: float
    """When the caller stops waiting, on the clock of `time.perf_counter`; infinite without a deadline."""
    answer: asyncio.Future[Answer]
    """The answer, when it is there."""
    arrived: float = field(default_factory=lambda: time.perf_counter())  # asked of the module, so that tests can set it
    """When it came, on the same clock."""

    @property
    def late(self) -> bool:
        """Whether the caller left, or its deadline passed."""
        return self.answer.done() or time.perf_counter() >= self.deadline


class Batcher(Generic[Ask, Answer]):
    """A bounded queue of requests, and workers that answer batches of them."""

    def __init__(
        self,
        answer: Callable[[list[Waiting[Ask, Answer]]], Awaitable[list[Answer | Exception]]],
        max_batch_users: int,
        max_queued_users: int,
        workers: int,
        gathers: bool = False,
    ) -> None:
        """Make a batcher.

        Args:
            answer: answers the requests of a batch of one group, in order. An exception among the answers goes to its
                request; an exception that is raised goes to all of them.
            max_batch_users: most users of a batch; a request with more is a batch by itself.
            max_queued_users: most users that wait; a request that finds the queue empty is always accepted.
            workers: most batches of one group in progress at once. All groups together may have `ROOM` times as many.
                With two, one batch is encoded and merged while the other is searched.
            gathers: whether a batch waits while more requests come, round after round of the event loop. It pays where
                batches are answered so fast that few requests come meanwhile.
        """
        self._answer = answer
        self._max_batch_users = max_batch_users
        self._max_queued_users = max_queued_users
        self._workers = workers
        self._gathers = gathers
        self._running: list[tuple[Hashable, float]] = []
        """The group of each batch in progress, and when the batch began."""
        self._queue: dict[Waiting[Ask, Answer], None] = {}
        """The requests that wait, oldest first; whoever leaves is taken out at once."""
        self._queued_users = 0
        self._queued_by_group: dict[Hashable, int] = {}
        """Users that wait, for each group; the group that has waited longest comes first."""
        self._seconds_per_batch = 0.0
        self._learned_at = -float("inf")
        """When a batch last ended, on the clock of `time.perf_counter`."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def queued_users(self) -> int:
        """Users that wait."""
        return self._queued_users

    async def submit(self, ask: Ask, users: int, group: Hashable, remaining_s: float | None) -> Answer:
        """Wait for the answer to a request.

        Args:
            ask: what is asked.
            users: how many users of a batch it takes.
            group: requests of one group can be answered together.
            remaining_s: time left to the caller; None without a deadline.

        Raises:
            OverloadedError: too much is waiting, or more than can be answered in the time left.
            DeadlineExceededError: the time ran out in the queue.
        """
        self.admit(users, remaining_s)
        deadline = time.perf_counter() + remaining_s if remaining_s is not None else float("inf")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = Waiting(ask, users, group, deadline, answer)
        self._queue[waiting] = None
        self._count(group, users)
        if begun := self._begin():
            task = asyncio.create_task(self._work(begun))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            return await answer
        except asyncio.CancelledError:  # the caller left: its place in the queue is free at once
            self._take(waiting)
            raise

    def admit(self, users: int, remaining_s: float | None) -> None:
        """Raise OverloadedError if a request would be turned away now."""
        if not self._queue:
            return
        batches = self._queued_users / self._max_batch_users / self._workers + 1  # the batches before it, and its own
        wait_s = batches * self._seconds_per_batch if self._believes() else 0.0
        full = self._queued_users + users > self._max_queued_users
        if full or (remaining_s is not None and HEADROOM * wait_s > remaining_s):
            reason = f"{self._queued_users} users are waiting, about {wait_s * 1000:.0f} ms"
            limit = f"the limit is {self._max_queued_users}" if full else f"the deadline is in {remaining_s:.3g} s"
            retry_ms = min(max(int(wait_s * 500), SHORTEST_RETRY_MS), LONGEST_RETRY_MS)
            raise OverloadedError(f"{reason}; {limit}", retry_ms)

    def _believes(self) -> bool:
        """Whether the estimate of a batch is from the time in which the queue filled.

        An older one may be from a slow moment long ago. Where requests wait, batches end, so a new one comes soon.
        """
        oldest = next(iter(self._queue)).arrived
        return self._learned_at >= oldest - STALE * self._seconds_per_batch

    def _count(self, group: Hashable, users: int) -> None:
        """Add to the number of users that wait; `users` is negative for users that stop waiting."""
        self._queued_users += users
        if left := self._queued_by_group.get(group, 0) + users:
            self._queued_by_group[group] = left
        else:
            del self._queued_by_group[group]

    def _begin(self) -> tuple[Hashable, float] | None:
        """Note that a batch begins; gives its group and time, or None if no batch should begin now."""
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
                if self._gathers:
                    await self._gather(begun[0])
                if batch := self._next_batch(begun[0]):
                    await self._run(batch)
            finally:
                self._running.remove(begun)
            begun = self._begin()

    async def _gather(self, group: Hashable) -> None:
        """Wait until no more requests of a group come, or they fill a batch."""
        users, rounds = 0, 0
        while rounds < GATHERING_ROUNDS and users < self._max_batch_users:
            await asyncio.sleep(0)
            before, users = users, self._queued_by_group.get(group, 0)
            rounds = 0 if users > before else rounds + 1

    def _next_batch(self, group: Hashable) -> list[Waiting[Ask, Answer]]:
        """The oldest request of a group whose caller still waits, and as many others of the group as fit."""
        batch: list[Waiting[Ask, Answer]] = []
        late: list[Waiting[Ask, Answer]] = []
        users = 0
        for waiting in self._queue:
            if users >= self._max_batch_users:
                break
            if waiting.late:
                late.append(waiting)
            elif waiting.group == group and (not batch or users + waiting.users <= self._max_batch_users):
                batch.append(waiting)
                users += waiting.users
        for waiting in (*late, *batch):
            self._take(waiting)
        for waiting in late:
            if not waiting.answer.done():
                waiting.answer.set_exception(DeadlineExceededError("the deadline passed in the queue"))
        return batch

    def _take(self, waiting: Waiting[Ask, Answer]) -> None:
        """Take a request out of the queue; one that is not in it any more is fine."""
        if waiting in self._queue:
            del self._queue[waiting]
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
        """Improve the estimate of how long a full batch takes.

        Small batches are quicker, so the estimate is low until batches are full: a burst after a quiet time is
        accepted, and only lasting overload is turned away.
        """
        self._learned_at = time.perf_counter()
        took_s /= max(1, users / self._max_batch_users)
        known = self._seconds_per_batch or took_s
        self._seconds_per_batch = known + SMOOTHING * (min(took_s, OUTLIER * known) - known)

"""A model of the batcher: requests come, leave, expire, are slow and fail in any order, and two promises hold.

After every step the users that wait are those that were submitted and neither left nor were taken into a batch; and a
server in which nothing runs has an empty queue and admits a caller with hardly any time left.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.errors import DeadlineExceededError, OverloadedError, StoreError
from server.serving.batching import Batcher, Waiting

ENDS = (DeadlineExceededError, OverloadedError, StoreError, asyncio.CancelledError)


class Batching(RuleBasedStateMachine):
    """Holds batches until a rule ends them; the clock moves only when a rule moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1000.0
        self.batcher: Batcher[int, int] = Batcher(self._answer, max_batch_users=8, max_queued_users=64, workers=2)
        self.running: list[asyncio.Future[bool]] = []
        self.waiting: dict[asyncio.Task[int], int] = {}
        """Tasks of requests that nobody took yet, and their users."""
        self.by_number: dict[int, asyncio.Task[int]] = {}

    async def _answer(self, batch: list[Waiting[int, int]]) -> list[int | Exception]:
        for each in batch:
            self.waiting.pop(self.by_number[each.ask], None)
        held: asyncio.Future[bool] = self.loop.create_future()
        self.running.append(held)
        if await held:
            return [each.ask for each in batch]
        raise StoreError("failed")

    @contextmanager
    def _clock(self) -> Iterator[None]:
        with patch("server.serving.batching.time.perf_counter", lambda: self.now):
            yield

    def _settle(self) -> None:
        async def turn() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        with self._clock():
            self.loop.run_until_complete(turn())
        for task in [task for task in self.waiting if task.done()]:
            del self.waiting[task]

    @rule(users=st.integers(1, 12), group=st.integers(0, 2), remaining_s=st.sampled_from([None, 0.001, 0.1, 5.0]))
    def submit(self, users: int, group: int, remaining_s: float | None) -> None:
        number = len(self.by_number)
        with self._clock():
            task = self.loop.create_task(self.batcher.submit(number, users, group, remaining_s))
        self.by_number[number], self.waiting[task] = task, users
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        self._settle()

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if self.waiting:
            data.draw(st.sampled_from(list(self.waiting))).cancel()
            self._settle()

    @rule(seconds=st.sampled_from([0.01, 1.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data(), well=st.booleans())
    def end(self, data: Any, well: bool) -> None:
        if self.running:
            self.running.pop(data.draw(st.integers(0, len(self.running) - 1))).set_result(well)
            self._settle()

    @invariant()
    def users_waiting_are_the_sum_of_who_waits(self) -> None:
        assert self.batcher.queued_users == sum(self.waiting.values())

    @invariant()
    def an_idle_server_admits(self) -> None:
        if not self.running:
            assert not self.waiting
            with self._clock():
                self.batcher.admit(1, 1e-6)

    def teardown(self) -> None:
        while self.running:
            self.running.pop().set_result(True)
            self._settle()
        assert self.batcher.queued_users == 0 and not self.waiting
        for task in self.by_number.values():
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), ENDS)
        self.loop.close()


TestBatching = Batching.TestCase
TestBatching.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)

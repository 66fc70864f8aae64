"""What is answered together, what is dropped, and what is turned away."""

import asyncio
from collections.abc import Hashable

import pytest

from server.errors import DeadlineExceededError, OverloadedError, StoreError
from server.serving.batching import Batcher, Waiting


class Worker:
    """Answers every ask with its double, batch by batch, as soon as it is let go."""

    def __init__(self, hold: bool = True, **limits: int) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        if not hold:
            self.open.set()
        self.batcher = Batcher(self.answer, **({"max_batch_users": 10, "max_queued_users": 100, "workers": 1} | limits))

    async def answer(self, waiting: list[Waiting[int, int]]) -> list[int | Exception]:
        self.batches.append([each.ask for each in waiting])
        await self.open.wait()
        return [StoreError("13 is no number") if each.ask == 13 else 2 * each.ask for each in waiting]

    def ask(
        self, number: int, users: int = 1, group: Hashable = "", remaining_s: float | None = None
    ) -> asyncio.Task[int]:
        return asyncio.create_task(self.batcher.submit(number, users, group, remaining_s))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_alone_a_request_starts_at_once() -> None:
    worker = Worker()
    task = worker.ask(1)
    await settle()
    assert worker.batches == [[1]]
    worker.open.set()
    assert await task == 2


async def test_what_waits_while_a_worker_is_busy_goes_together() -> None:
    worker = Worker()
    first = worker.ask(1)
    await settle()
    rest = [worker.ask(number) for number in (2, 3, 4)]
    await settle()
    worker.open.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert worker.batches == [[1], [2, 3, 4]]


async def test_a_batch_that_gathers_waits_while_requests_come() -> None:
    worker = Worker(gathers=True, max_batch_users=6)

    async def ask_after(rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return await worker.batcher.submit(rounds, 1, "", None)

    tasks = [asyncio.create_task(ask_after(rounds)) for rounds in (0, 2, 8, 14, 40)]
    for _ in range(60):
        await asyncio.sleep(0)
    assert worker.batches == [[0, 2, 8, 14]]
    tasks += [worker.ask(number) for number in range(100, 107)]
    await settle()
    worker.open.set()
    await asyncio.gather(*tasks)
    assert worker.batches[1:] == [[40, *range(100, 105)], [105, 106]]


async def test_a_second_batch_starts_beside_the_first_once_half_a_full_one_waits() -> None:
    worker = Worker(workers=2)
    tasks = []
    for number in range(1, 7):
        tasks.append(worker.ask(number))
        await settle()
        assert worker.batches == ([[1]] if number < 6 else [[1], [2, 3, 4, 5, 6]])
    tasks += [worker.ask(number, users=5) for number in (7, 8)]  # both workers are busy
    await settle()
    assert len(worker.batches) == 2
    worker.open.set()
    await asyncio.gather(*tasks)
    assert worker.batches[2:] == [[7, 8]]


async def test_a_slow_batch_holds_nobody_of_another_group_up() -> None:
    worker = Worker(workers=2)
    tasks = []
    for number, group in ((1, "slow filter"), (2, "slow filter"), (3, ""), (4, "")):
        tasks.append(worker.ask(number, group=group))
        await settle()
    assert worker.batches == [[1], [3]]
    worker.open.set()
    await asyncio.gather(*tasks)
    assert worker.batches == [[1], [3], [2], [4]]


async def test_slow_groups_leave_room_for_others() -> None:
    worker = Worker(workers=2)
    slow = ("one filter", 1), ("another", 1), ("one filter", 9), ("a third", 1), ("", 1)
    tasks = []
    for number, (group, users) in enumerate(slow):
        tasks.append(worker.ask(number, group=group, users=users))
        await settle()
    assert worker.batches == [[0], [1], [2], [3]]  # four of all groups, and two of one, are the most
    worker.open.set()
    await asyncio.gather(*tasks)
    worker = Worker(workers=2)
    tasks = [worker.ask(number, group=group, users=9) for number, group in enumerate(["slow"] * 5 + [""])]
    await settle()
    assert worker.batches == [[0], [1], [5]]
    worker.open.set()
    await asyncio.gather(*tasks)


async def test_a_batch_that_hangs_is_not_waited_for(clock: list[float]) -> None:
    worker = Worker(workers=2)
    await answered_in(worker, clock, 0.01)
    hanging = worker.ask(1)
    await settle()
    clock[0] += 0.05
    worker.open, held = asyncio.Event(), worker.open
    worker.open.set()
    assert await asyncio.wait_for(worker.ask(2), 1) == 4
    held.set()
    assert await hanging == 2


async def test_a_batch_is_bounded_and_of_one_group_and_nobody_is_forgotten() -> None:
    worker = Worker()
    first = worker.ask(0)
    await settle()
    rest = [worker.ask(1, users=6), worker.ask(2, group="other"), worker.ask(3, users=6), worker.ask(4, users=4)]
    rest.append(worker.ask(5, users=50))  # larger than a batch: it goes alone
    await settle()
    worker.open.set()
    await asyncio.gather(first, *rest)
    assert worker.batches == [[0], [2], [1, 4], [3], [5]]


async def test_those_whom_nobody_waits_for_are_dropped() -> None:
    worker = Worker()
    first = worker.ask(0)
    await settle()
    late, left, patient = worker.ask(1, remaining_s=0.01), worker.ask(2), worker.ask(3)
    await asyncio.sleep(0.02)
    left.cancel()
    await settle()
    worker.open.set()
    assert await asyncio.gather(first, patient) == [0, 6]
    with pytest.raises(DeadlineExceededError, match="in the queue"):
        await late
    assert worker.batches == [[0], [3]]


async def test_a_fault_of_one_is_not_the_fault_of_all() -> None:
    worker = Worker()
    first = worker.ask(0)
    await settle()
    rest = [worker.ask(number) for number in (13, 4)]
    await settle()
    worker.open.set()
    with pytest.raises(StoreError, match="13 is no number"):
        await rest[0]
    assert await rest[1] == 8
    assert await first == 0


async def test_a_full_queue_turns_away_and_takes_again_when_it_is_empty() -> None:
    worker = Worker(max_queued_users=10)
    first = worker.ask(0)
    await settle()
    waiting = worker.ask(1, users=8)
    await settle()
    with pytest.raises(OverloadedError, match=r"8 users are waiting.* the limit is 10") as turned_away:
        await worker.ask(2, users=3)
    assert turned_away.value.retry_after_ms >= 10
    worker.open.set()
    await asyncio.gather(first, waiting)
    assert await worker.ask(3, users=50) == 6  # more than the limit, but nobody waits


async def test_what_cannot_be_answered_in_time_is_turned_away_at_once(clock: list[float]) -> None:
    worker = Worker(max_batch_users=1)
    await answered_in(worker, clock, 0.05)
    busy = worker.ask(1)
    await settle()
    queue = [worker.ask(number) for number in range(2, 6)]
    await settle()
    with pytest.raises(OverloadedError, match=r"4 users are waiting, about 2\d\d ms; the deadline is in 0.1 s"):
        await worker.ask(9, remaining_s=0.1)
    patient = worker.ask(10, remaining_s=10)
    worker.open.set()
    await asyncio.gather(busy, *queue, patient)


async def test_who_left_takes_nobodys_place() -> None:
    worker = Worker(max_queued_users=4)
    busy = worker.ask(1)
    await settle()
    left = [worker.ask(number, users=2) for number in (2, 3)]
    await settle()
    with pytest.raises(OverloadedError, match="4 users are waiting"):
        await worker.ask(4)
    for task in left:
        task.cancel()
    await settle()
    stays = worker.ask(5, users=3)
    await settle()
    worker.open.set()
    assert await asyncio.gather(busy, stays) == [2, 10]
    assert worker.batches == [[1], [5]]
    assert await worker.ask(6, users=4) == 12


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The batcher's clock; add to it to let time pass."""
    now = [0.0]
    monkeypatch.setattr("server.serving.batching.time.perf_counter", lambda: now[0])
    return now


async def answered_in(worker: Worker, clock: list[float], took_s: float, group: Hashable = "") -> None:
    """Have one batch take so long."""
    worker.open.clear()
    task = worker.ask(0, group=group)
    await settle()
    clock[0] += took_s
    worker.open.set()
    await task
    worker.open.clear()


async def test_a_burst_after_a_quiet_time_is_taken(clock: list[float]) -> None:
    worker = Worker(max_batch_users=64)
    await answered_in(worker, clock, 0.03)
    busy = worker.ask(1)
    await settle()
    numbers = range(20, 84)  # one batch, though 64 times as many users
    burst = [worker.ask(number, remaining_s=0.2) for number in numbers]
    await settle()
    worker.open.set()
    assert await asyncio.gather(busy, *burst) == [2, *(2 * number for number in numbers)]


async def test_one_slow_batch_turns_nobody_else_away(clock: list[float]) -> None:
    worker = Worker(max_batch_users=1)
    await answered_in(worker, clock, 0.01)
    await answered_in(worker, clock, 3, "slow filter")  # a tenth of it would be 300 ms a batch
    busy = worker.ask(1)
    await settle()
    rest = [worker.ask(number, remaining_s=0.06) for number in (2, 3)]
    await settle()
    worker.open.set()
    assert await asyncio.gather(busy, *rest) == [2, 4, 6]


@pytest.mark.parametrize("raised", [True, False])
async def test_a_fault_teaches_nothing_about_how_long_batches_take(raised: bool, clock: list[float]) -> None:
    worker = Worker(max_batch_users=1)
    await answered_in(worker, clock, 0.01)

    async def fail(_: list[Waiting[int, int]]) -> list[int | Exception]:
        clock[0] += 0.3
        if raised:
            raise StoreError("no answer")
        return [StoreError("no answer")]

    worker.batcher._answer = fail
    with pytest.raises(StoreError):
        await worker.ask(1)
    worker.batcher._answer = worker.answer
    busy = worker.ask(2)
    await settle()
    # Two batches of 10 ms, twice over, fit; had the fault counted for 40 ms, they were of 13.
    rest = [worker.ask(number, remaining_s=0.045) for number in (3, 4)]
    await settle()
    worker.open.set()
    assert await asyncio.gather(busy, *rest) == [4, 6, 8]


async def test_a_caller_that_leaves_during_a_slow_moment_does_not_close_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr("server.serving.batching.time.perf_counter", lambda: now[0])
    worker = Worker()
    slow = worker.ask(1)
    await settle()
    leaves = worker.ask(2, remaining_s=0.5)
    await settle()
    now[0] += 5  # the batch takes 5 s, and the caller that waits behind it gives up
    leaves.cancel()
    await settle()
    worker.open.set()
    assert await slow == 2
    assert await worker.ask(3, remaining_s=0.05) == 6
    burst = [worker.ask(number, remaining_s=0.05) for number in (4, 5)]  # the second finds the first in the queue
    now[0] += 60
    burst += [worker.ask(number, remaining_s=0.05) for number in (6, 7)]
    assert await asyncio.gather(*burst) == [8, 10, 12, 14]

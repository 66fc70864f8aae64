"""The two ways to put load on a service. This module does not know what a call is."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

Call = Callable[[float], Coroutine[Any, Any, None]]
"""A function that makes one call. It gets the time when the call was due (`time.perf_counter()`), and must not raise.
"""


async def closed_loop(call: Call, callers: int, seconds: float) -> None:
    """Run callers that each wait for an answer before they ask again."""
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (now := time.perf_counter()) < end:
            await call(now)

    async with asyncio.TaskGroup() as waiting:
        for _ in range(callers):
            waiting.create_task(caller())


async def open_loop(call: Call, calls_per_s: float, seconds: float, rng: random.Random) -> None:
    """Make calls at random times, whether earlier calls have been answered or not: Poisson arrivals."""
    due = time.perf_counter()
    end = due + seconds
    async with asyncio.TaskGroup() as calls:
        while (due := due + rng.expovariate(calls_per_s)) < end:
            wait_s = due - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            calls.create_task(call(due))

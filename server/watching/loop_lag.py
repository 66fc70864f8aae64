"""Measures the delay of the event loop, because a computation on the loop delays every call."""

import asyncio
import time
from collections.abc import Callable

EVERY_S = 0.05
"""Time in seconds between two measurements."""


async def watch_loop_lag(tell: Callable[[float], None]) -> None:
    """Report the delay of the event loop in seconds, again and again."""
    while True:
        due = time.perf_counter() + EVERY_S
        await asyncio.sleep(EVERY_S)
        tell(max(0.0, time.perf_counter() - due))

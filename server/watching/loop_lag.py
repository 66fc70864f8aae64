"""Measures how late the event loop is: something that computes on it holds up every call."""

import asyncio
import time
from collections.abc import Callable

EVERY_S = 0.05
"""Time between two measurements."""


async def watch_loop_lag(tell: Callable[[float], None]) -> None:
    """Tell for ever by how many seconds the event loop was late to call back."""
    while True:
        due = time.perf_counter() + EVERY_S
        await asyncio.sleep(EVERY_S)
        tell(max(0.0, time.perf_counter() - due))

"""Waits for a condition, however slow the machine is: a test fails after a minute, and not after a guess."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60


async def until(condition: Callable[[], object]) -> None:
    """Wait in a coroutine until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s"
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait in a thread until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S} s"
        time.sleep(0.01)

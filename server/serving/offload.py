"""Runs a computation where it is called, or in a thread if it is large enough to hold up other calls."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

INLINE_ITEMS = 20_000
"""Hits, or clicks, up to which a computation runs on the event loop: 2 ms at most, less than a thread would cost."""
ITEMS_PER_USER = 200
"""To encode a user takes as long as to work through so many items."""


async def computed(items: int, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a function that works through that many items."""
    if items <= INLINE_ITEMS:
        return compute(*args, **kwargs)
    return await asyncio.to_thread(compute, *args, **kwargs)

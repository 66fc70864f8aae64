"""Runs a computation on the event loop, or in a thread if it is large enough to delay other calls."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

INLINE_ITEMS = 20_000
"""Computations over at most so many hits or clicks run on the event loop: 2 ms at most, less than a thread would cost.
"""
ITEMS_PER_USER = 200
"""Encoding a user takes as long as processing this many items."""


async def computed(items: int, compute: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return the result of a function that processes this many items."""
    if items <= INLINE_ITEMS:
        return compute(*args, **kwargs)
    return await asyncio.to_thread(compute, *args, **kwargs)

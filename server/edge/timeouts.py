"""Limits the time of a call to Milvus, and chooses the error when the time is over."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.errors import DeadlineExceededError, StoreTimeoutError

T = TypeVar("T")


async def within(remaining_s: float | None, limit_s: float, ask: Callable[[float], Awaitable[T]]) -> T:
    """Call `ask` with the maximum time in seconds, and return its answer.

    Args:
        remaining_s: the time that the caller has left; None without a deadline.
        limit_s: the maximum time to wait for Milvus.
        ask: calls Milvus, and raises StoreTimeoutError when the time is over.

    Raises:
        DeadlineExceededError: the caller's deadline was shorter than the limit.
        StoreTimeoutError: Milvus did not answer within the limit.
    """
    timeout_s = limit_s if remaining_s is None else min(remaining_s, limit_s)
    try:
        return await ask(timeout_s)
    except StoreTimeoutError as error:
        if timeout_s == limit_s:
            raise
        raise DeadlineExceededError(f"the deadline of {timeout_s * 1000:.0f} ms passed in Milvus") from error

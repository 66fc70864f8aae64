"""How long a call that asks Milvus once may take, and which error it is when the time is over."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from server.errors import DeadlineExceededError, StoreTimeoutError

T = TypeVar("T")


async def within(remaining_s: float | None, limit_s: float, ask: Callable[[float], Awaitable[T]]) -> T:
    """The answer of `ask`, which is called with the seconds that it may take.

    Args:
        remaining_s: time left to the caller; None without a deadline.
        limit_s: longest wait for Milvus.
        ask: raises StoreTimeoutError when the time is over.

    Raises:
        DeadlineExceededError: the caller's own deadline was the shorter one.
        StoreTimeoutError: Milvus did not answer within the limit.
    """
    timeout_s = limit_s if remaining_s is None else min(remaining_s, limit_s)
    try:
        return await ask(timeout_s)
    except StoreTimeoutError as error:
        if timeout_s == limit_s:
            raise
        raise DeadlineExceededError(f"the deadline of {timeout_s * 1000:.0f} ms passed in Milvus") from error

"""Decides from the description of an index whether to wait for it longer. This module does not use Milvus."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from mind.milvus.errors import StoreError

UNCOUNTED_S = 30
"""Maximum time in seconds to wait for a Milvus that counts no rows of an index and does not say that it works on it."""
_IDLE = ("Finished", "IndexStateNone")
"""States of an index without work in progress. An answer without this field means the second one."""

_log = logging.getLogger(__name__)


class IndexWait:
    """The progress of one wait for an index.

    No version says in one field that an index is complete: 2.3.5 and 2.5 say "Finished" too early, so the rows must be
    counted, and Milvus Lite 2 does not count them. The wait ends in one of three ways: all rows are indexed; or nothing
    was counted for `UNCOUNTED_S`, which is logged; or there was no progress for `wait_s`, which is an error.
    """

    def __init__(self, what: str, count: int, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start to wait.

        Args:
            what: the index, for messages, such as "the HNSW index of items_1".
            count: the number of rows that it must have.
            wait_s: maximum time without progress.
            clock: returns the time in seconds.
        """
        self._what = what
        self._count = count
        self._wait_s = wait_s
        self._clock = clock
        self._since = clock()
        self._counted = False
        self.indexed = 0
        """The largest number of indexed rows that Milvus reported."""

    def is_over(self, described: Mapping[str, Any] | None) -> bool:
        """Take an answer of describe_index, None if there was no index in it. Return whether the wait is over.

        Raises:
            StoreError: the index failed, or made no progress for too long.
        """
        answer = described or {}
        state = answer.get("state") or _IDLE[-1]
        indexed, *others = (int(answer.get(f"{name}_rows") or 0) for name in ("indexed", "total", "pending_index"))
        if state == "Failed":
            raise StoreError(f"{self._what} failed; see the log of Milvus")
        if indexed > self.indexed:
            self.indexed, self._since = indexed, self._clock()
        self._counted |= any((indexed, *others))
        if state == "Finished" and indexed >= self._count:
            return True
        waited_s = self._clock() - self._since
        if not self._counted and state in _IDLE and waited_s > min(UNCOUNTED_S, self._wait_s):
            _log.warning(
                "%s: Milvus counted no row of it for %.0f s and says %s; it may be incomplete, and the work goes on",
                self._what,
                waited_s,
                state,
            )
            return True
        if waited_s > self._wait_s:
            raise StoreError(
                f"{self._what} has {self.indexed:,} of {self._count:,} rows, is {state} and made no progress for "
                f"{self._wait_s:g} s (--wait-s); see the log of Milvus"
            )
        return False

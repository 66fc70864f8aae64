"""Splits the requests that name no channel among channels: each key always gets the same one, from every server.

A key is hashed to a place on a line. The share of a channel is a part of this line. The parts begin where they lie far
apart (at 0, 1/2, 1/4, 3/4, 1/8, ... of the line, in the order of the splits) and grow to the right. So a larger share
only moves keys of the default channel, as long as it does not reach the part of the next channel, which a part skips.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from protos.recall.v1 import recall_pb2
from server.errors import InvalidRequestError

LINE = 2**32
"""The number of places."""
MAX_KEY_BYTES = 128
"""Maximum length of a key in bytes of UTF-8."""
_PERSON = b"recall.split"
"""Makes the hashes different from those of others, who split the same keys for other purposes."""

_Part = tuple[int, int, str]
"""The first place, the place after the last one, and the channel."""


class Split:
    """Which keys go to which channels."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        """`shares`: of the channels that requests are split to, in order; together at most 1."""
        self.shares = dict(shares)
        parts: list[_Part] = []
        for number, (channel, share) in enumerate(shares.items()):
            parts = _with(parts, channel, round(share * LINE), _begin(number))
        self._starts = [start for start, _, _ in parts]
        self._parts = parts

    def share_of(self, channel: str, default: str) -> float:
        """The share of the keys that a channel gets. `default`: the channel that gets what is left."""
        return 1 - sum(self.shares.values()) if channel == default else self.shares.get(channel, 0.0)

    def channel_of(self, request: recall_pb2.RecallRequest | recall_pb2.ExplainRequest) -> str:
        """The channel that a request names or gets; empty for the default one.

        Raises:
            InvalidRequestError: the key is too long.
        """
        if len(request.split_key) > MAX_KEY_BYTES or len(request.split_key.encode()) > MAX_KEY_BYTES:
            says = f"has {len(request.split_key.encode())} bytes, the limit is {MAX_KEY_BYTES}"
            raise InvalidRequestError("split_key", says, "SPLIT_KEY_TOO_LONG")
        if request.channel or not self._parts:
            return request.channel
        key = request.split_key or _user_id(request)
        return self.of(key) if key else ""

    def of(self, key: str) -> str:
        """The channel of a key; empty for the default one."""
        digest = hashlib.blake2b(key.encode(), digest_size=4, person=_PERSON).digest()
        place = int.from_bytes(digest)
        found = bisect_right(self._starts, place) - 1
        if found < 0:
            return ""
        _, end, channel = self._parts[found]
        return channel if place < end else ""


def _user_id(request: recall_pb2.RecallRequest | recall_pb2.ExplainRequest) -> str:
    """The id of the only user of a request; empty without one."""
    if isinstance(request, recall_pb2.ExplainRequest):
        return request.user.user_id
    return request.users[0].user_id if len(request.users) == 1 else ""


def _begin(number: int) -> int:
    """The place where the part of a channel begins, by its number in order: 0, 1/2, 1/4, 3/4, ... of the line."""
    place, step = 0, LINE // 2
    while number:
        place += step * (number & 1)
        number, step = number >> 1, step // 2
    return place


def _with(parts: list[_Part], channel: str, places: int, begin: int) -> list[_Part]:
    """The parts with those of one more channel: the first free places from `begin` on, and then from the start on."""
    added = []
    for start, end in _free(parts, begin):
        if places > 0:
            added.append((start, min(end, start + places), channel))
            places -= end - start
    return sorted(parts + added)


def _free(parts: list[_Part], begin: int) -> Iterator[tuple[int, int]]:
    """The free stretches of the line, those behind `begin` first."""
    ends = [0, *(end for _, end, _ in parts)]
    starts = [*(start for start, _, _ in parts), LINE]
    gaps = [(start, end) for start, end in zip(ends, starts, strict=True) if start < end]
    yield from ((max(start, begin), end) for start, end in gaps if end > begin)
    yield from ((start, min(end, begin)) for start, end in gaps if start < begin)

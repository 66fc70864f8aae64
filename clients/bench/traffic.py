"""The requests of a load test, which are made before the time is measured."""

import itertools
import random
from collections.abc import Sequence

from clients.bench.histories import Clicks
from clients.bench.mix import Shape
from clients.requests import user_of
from protos.recall.v1 import recall_pb2

_MOST_REQUESTS, _LEAST_REQUESTS = 4_096, 64
_MOST_USERS = 65_536
"""Most users of all requests of a shape; it bounds memory."""
_STRATEGIES = {
    "best-score": recall_pb2.MERGE_STRATEGY_BEST_SCORE,
    "round-robin": recall_pb2.MERGE_STRATEGY_ROUND_ROBIN,
}


class Traffic:
    """An endless sequence of requests. The same seed gives the same sequence."""

    def __init__(self, shapes: Sequence[Shape], users: Sequence[Clicks], max_history: int, seed: int) -> None:
        """Make some thousand requests of each shape, which are sent in turn.

        Args:
            shapes: each is sent in proportion to its weight.
            users: drawn from at random.
            max_history: items of a history that the server accepts; the newest are sent.
            seed: for everything that is drawn.
        """
        self._rng = random.Random(seed)
        self._numbers = range(len(shapes))
        self._up_to = list(itertools.accumulate(shape.weight for shape in shapes))
        self._requests = [itertools.cycle(self._made(shape, users, max_history)) for shape in shapes]

    def next(self) -> tuple[int, recall_pb2.RecallRequest]:
        """Return the number of a shape, drawn by the weights, and a request of it."""
        (number,) = self._rng.choices(self._numbers, cum_weights=self._up_to)
        return number, self.of(number)

    def of(self, number: int) -> recall_pb2.RecallRequest:
        """Return the next request of one shape."""
        return next(self._requests[number])

    def _made(self, shape: Shape, users: Sequence[Clicks], max_history: int) -> list[recall_pb2.RecallRequest]:
        count = max(_LEAST_REQUESTS, min(_MOST_REQUESTS, _MOST_USERS // shape.users))
        return [
            recall_pb2.RecallRequest(
                users=[self._user(shape, each, max_history) for each in self._rng.choices(users, k=shape.users)],
                top_k=shape.top_k,
                filter=shape.filter,
                exclude_history=shape.exclude_history,
                merge_strategy=_STRATEGIES[shape.merge],
                channel=shape.channel,
            )
            for _ in range(count)
        ]

    def _user(self, shape: Shape, clicks: Clicks, max_history: int) -> recall_pb2.User:
        length = min(self._rng.randint(*shape.history) if shape.history else max_history, max_history)
        newest = clicks.hist_item[max(0, len(clicks.hist_item) - length) :]
        return user_of(newest, clicks.exclude_item_ids, max_history)

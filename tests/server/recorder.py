"""Notes what a store answers, so that the answers of two stores to the same calls can be compared."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from mind.hits import Hits
from mind.milvus.change_log import ChangeLog
from mind.milvus.errors import FilterError, StoreError
from mind.milvus.users import Neighbours


class Recorder:
    """Passes every call on to a store, and keeps the call, its arguments and its answer or kind of error."""

    def __init__(self, store: Any) -> None:
        self.answers: list[tuple[str, Any, Any]] = []
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def recorded(*arguments: Any, **named: Any) -> Any:
            call = name, plain((arguments, named))
            try:
                answer = await method(*arguments, **named)
            except (StoreError, FilterError) as error:
                self.answers.append((*call, type(error).__name__))
                raise
            self.answers.append((*call, plain(answer)))
            return answer

        return recorded


def assert_same_answers(ours: Recorder, theirs: Recorder) -> None:
    """Two stores were called in the same way and answered the same, up to the last digits of scores."""
    assert [name for name, *_ in ours.answers] == [name for name, *_ in theirs.answers]
    for one, other in zip(ours.answers, theirs.answers, strict=True):
        assert_same(one, other, one[0])


def assert_same(one: Any, other: Any, where: str) -> None:
    """Two plain values are the same; `where` says what they belong to."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}, {key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other), f"{where}: {one} and {other}"
        for number, (value, counterpart) in enumerate(zip(one, other, strict=True)):
            assert_same(value, counterpart, f"{where}, {number}")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5), where
    else:
        assert one == other, f"{where}: {one!r} and {other!r}"


def plain(value: Any) -> Any:
    """A value as lists, dictionaries and numbers. Hits of equal scores, which have no order, are ordered by id."""
    match value:
        case Hits():
            return _by_query(value.item_ids.tolist(), value.scores, value.lengths)
        case Neighbours():
            return _by_query(value.keys, value.scores, value.lengths)
        case ChangeLog():  # tokens are random
            return [batch.item_ids for batch in value.batches]
        case BaseModel():
            return plain(value.model_dump())
        case np.ndarray():
            return value.tolist()
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case set():
            return sorted(value)
        case list() | tuple():
            return [plain(each) for each in value]
    return plain(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else value


def _by_query(ids: list[Any], scores: Any, lengths: Any) -> list[list[tuple[Any, float]]]:
    ends = np.cumsum(lengths).tolist()
    found = list(zip(ids, scores.tolist(), strict=True))
    queries = [found[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [sorted(query, key=lambda hit: (-round(hit[1], 3), hit[0])) for query in queries]

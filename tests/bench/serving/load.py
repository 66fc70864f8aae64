"""The load generator: `Worker("tests.bench.serving.load", DIRECTORY)` asks it, see `answer` for what.

A process of its own that shares nothing but the machine with what it measures. Bodies are made beforehand and answers
are not decoded, so that it costs little; its processor time is in every answer.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from clients.bench.loops import closed_loop, open_loop
from clients.requests import Boost, rules_of
from tests.bench.serving.http2 import CallError
from tests.bench.serving.ways import Call, Grpc, Http, Similar
from tests.bench.serving.world import TOP_K, answer_lines, read_histories, read_keys, user_id_of, watching

BODIES = 4_096


@dataclass(frozen=True)
class Shape:
    """What requests look like. Where there are several of something, requests have them in turn."""

    users: int = 1
    top_k: tuple[int, ...] = (TOP_K,)
    history: int = 0
    """Newest clicks of a history that are sent; 0 for all."""
    up_to: int = 0
    """Histories have 1 to so many clicks, the older ones those of other users; 0 for histories as they are."""
    exclude_history: bool = False
    neighbours: str = "default"
    """Whether neighbours of the newest clicks are candidates."""
    filters: tuple[str, ...] = ("",)
    attributes: tuple[str, ...] = ()
    """Attributes that are wanted with the candidates."""
    at_most: tuple[tuple[str, int], ...] = ()
    """Attributes, and how many candidates may share a value of each."""
    per_interest_min: int = 0
    diversity: float = 0
    first: int = 0
    """Only the first so many users; 0 for all."""
    exclude_shown: bool = False
    """Whether what the users were shown is left out, who are called as `world.user_id_of` says."""
    paged: bool = False
    """Whether a token for the next page is wanted."""
    boosts: tuple[tuple[str, float], ...] = ()
    """Filters, and what is added to the scores of items that match."""
    newer: tuple[tuple[str, float, float], ...] = ()
    """Attributes with the time of items, and weight and half-life in days of a boost by age."""
    pin: tuple[int, ...] = ()
    explore: float = 0
    """Share of the places for drawn items."""
    text: bool = False
    """Whether items are sent by their text ids (`world.read_keys`)."""

    def histories(self, known: list[list[Any]]) -> list[list[Any]]:
        """The histories of users, made of those that are known."""
        if not self.up_to:
            return [ids[-self.history :] for ids in known]
        lengths = np.random.default_rng(self.up_to).integers(1, self.up_to + 1, len(known)).tolist()
        clicks = [item_id for ids in known for item_id in ids]
        ends = np.cumsum([len(ids) for ids in known]).tolist()
        return [clicks[max(0, end - length) : end] for end, length in zip(ends, lengths, strict=True)]


class Run:
    """What calls met."""

    def __init__(self, call: Call, bodies: list[bytes]) -> None:
        """Bodies are sent in turn."""
        self._call = call
        self._bodies = bodies
        self._sent = 0
        self.latency_s: list[float] = []
        self.outcomes: Counter[str] = Counter()

    async def one(self, due: float) -> None:
        """One call; its latency counts from when it was due, so that a late sender cannot hide a slow service."""
        body = self._bodies[self._sent % len(self._bodies)]
        self._sent += 1
        try:
            await self._call(body)
        except CallError as error:
            self.outcomes[str(error)] += 1
        else:
            self.outcomes["OK"] += 1
            self.latency_s.append(time.perf_counter() - due)

    async def closed(self, callers: int, seconds: float) -> None:
        """Callers that each wait for an answer before they ask again."""
        await closed_loop(self.one, callers, seconds)

    async def open(self, calls_per_s: float, seconds: float, seed: int) -> None:
        """Calls that come when they come, whatever became of those before: Poisson arrivals."""
        await open_loop(self.one, calls_per_s, seconds, random.Random(seed))


class LoadGenerator:
    """Answers questions; see `answer`."""

    def __init__(self, directory: Path) -> None:
        """Read the histories."""
        histories = read_histories(directory)
        self._directory = directory
        self._numbers: list[list[Any]] = [histories[user].tolist() for user in range(len(histories))]
        self._texts: list[list[Any]] = []
        self._bodies: dict[tuple[type, Shape], list[bytes]] = {}
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def answer(self, question: dict[str, Any]) -> Any:
        """Put load on a service, or ask it for candidates.

        Args:
            question: `address`, and `kind`, grpc, similar or http; `timeout_s`, and the fields of a `Shape` (optional);
                with `check`, the number of users whose candidates are wanted, in their order; or else `seconds` and
                `callers` (closed loop) or `calls_per_s` and `seed` (open loop); `watch`, processes whose processor time
                is wanted.

        Returns:
            The candidates, or what became of the calls: `users_per_s`, `p50_ms`, `p95_ms`, `p99_ms`, `cpu_s`,
            `watched_cpu_s`, `seconds` and `outcomes`, which counts statuses; nothing of the calls before, that warm up.
        """
        return self._runner.run(self._answer(**question))

    async def _answer(
        self,
        address: str,
        kind: str,
        timeout_s: float = 30,
        check: int = 0,
        seconds: float = 0,
        callers: int = 0,
        calls_per_s: float = 0,
        seed: int = 0,
        watch: Sequence[int] = (),
        **shape: Any,
    ) -> Any:
        way: type[Grpc] | type[Http] = {"grpc": Grpc, "similar": Similar, "http": Http}[kind]
        call = way(address, timeout_s)
        asked = Shape(**{name: _frozen(value) for name, value in shape.items()})
        try:
            if check:
                checked = self._histories(asked.text)[:check]
                parts = [checked[start : start + 64] for start in range(0, len(checked), 64)]
                return [
                    found
                    for part in parts
                    for found in way.item_ids(await call(way.body(part, asked.top_k[0], asked.filters[0])))
                ]
            run = Run(call, self._bodies_of(way, asked))
            await run.closed(1, 0.1)  # connections open
            await run.closed(max(callers, 1), min(0.5, seconds))  # batches find their size
            run = Run(call, self._bodies_of(way, asked))
            cpu, started = time.process_time(), time.perf_counter()
            with watching(watch) as watched_cpu_s:
                if calls_per_s:
                    await run.open(calls_per_s, seconds, seed)
                else:
                    await run.closed(callers, seconds)
            took = time.perf_counter() - started
        finally:
            await call.close()
        latency_ms = np.array(run.latency_s or [np.nan]) * 1000
        p50, p95, p99 = np.percentile(latency_ms, [50, 95, 99]).tolist()
        return {
            "users_per_s": len(run.latency_s) * asked.users / took,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "cpu_s": time.process_time() - cpu,
            "watched_cpu_s": watched_cpu_s,
            "seconds": took,
            "outcomes": run.outcomes,
        }

    def _histories(self, text: bool) -> list[list[Any]]:
        if text and not self._texts:
            keys = read_keys(self._directory)
            self._texts = [[keys[item] for item in history] for history in self._numbers]
        return self._texts if text else self._numbers

    def _bodies_of(self, way: type[Grpc] | type[Http], asked: Shape) -> list[bytes]:
        key = way, asked
        if key not in self._bodies:
            histories = asked.histories(self._histories(asked.text))[: asked.first or None]
            starts = range(0, len(histories) - asked.users + 1, asked.users)[:BODIES]
            names = [user_id_of(user) for user in range(len(histories))] if asked.exclude_shown else []
            columns = zip(starts, cycle(asked.top_k), cycle(asked.filters), strict=False)
            boosts: list[Boost] = [{"filter": filter_, "add": add} for filter_, add in asked.boosts]
            boosts += [
                {"attribute": name, "weight": weight, "half_life_days": days} for name, weight, days in asked.newer
            ]
            explore = {"share": asked.explore} if asked.explore else None
            choose = dict(asked.at_most), asked.per_interest_min, asked.diversity
            rules = rules_of(*choose, boosts, asked.pin, explore)
            rules |= {"exclude_shown": asked.exclude_shown, "paged": asked.paged}
            how = asked.exclude_history, asked.neighbours, asked.attributes, rules
            self._bodies[key] = [
                way.body(histories[start:end], top_k, filter_, *how, names[start:end])
                for start, top_k, filter_ in columns
                for end in [start + asked.users]
            ]
        return self._bodies[key]


def _frozen(value: Any) -> Any:
    """A value that came as JSON, so that it can be hashed."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    answer_lines(LoadGenerator(Path(sys.argv[1])).answer)

"""One way to measure things that answer: in turn, in rounds, with the processor time of everything that has a part."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from rich.progress import Progress

from tests.bench.machine import console


@dataclass(frozen=True)
class Row:
    """A subject in a cell: medians over the rounds."""

    subject: str
    users: int
    """Of a request."""
    load: str
    """Callers of a closed loop, or share of capacity of an open one."""
    users_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    service_cpu: float
    """Seconds of processor time per 1,000 users."""
    milvus_cpu: float
    load_cpu: float
    load_busy: float
    """Share of one core that the load generator used."""
    recall: float
    """Of the exact best 50."""
    outcomes: dict[str, int]
    """Calls by status, over all rounds."""


@dataclass(frozen=True)
class Subject:
    """Something that answers, and how to ask it."""

    name: str
    pid: int
    ask: Callable[..., Any]
    recall: float


class Bench:
    """The parts that run, and what was measured."""

    def __init__(self, milvus_pid: int | None, rounds: int, seconds: float) -> None:
        """`rounds` of `seconds` for every row; without `milvus_pid` what Milvus costs stays unknown."""
        self._milvus_pid = milvus_pid
        self._rounds = rounds
        self._seconds = seconds

    def beside(self, loads: Sequence[tuple[int, int]], pairs: Sequence[tuple[Subject, Subject]]) -> list[Row]:
        """Ask pairs of subjects in turn under each load, so many users a request and callers: rows in pairs."""
        rows: list[Row] = []
        with Progress(console=console, transient=True) as progress:
            turns = progress.add_task("", total=2 * len(pairs) * len(loads) * self._rounds)
            for users, callers in loads:
                progress.update(turns, description=f"{users} users a request, {callers} callers")
                question = {"users": users, "callers": callers}
                asked = [(subject, f"{callers}", question) for pair in pairs for subject in pair]
                rows += self.compare(users, asked, lambda: progress.advance(turns))
        return rows

    def compare(
        self,
        users: int,
        asked: list[tuple[Subject, str, dict[str, Any]]],
        after_turn: Callable[[], None] = lambda: None,
    ) -> list[Row]:
        """Ask in turn, `rounds` times; each is a subject, the name of its load and the question."""
        found: list[list[dict[str, Any]]] = [[] for _ in asked]
        for _ in range(self._rounds):
            for answers, (subject, _, question) in zip(found, asked, strict=True):
                answers.append(self._measure(subject, question))
                after_turn()
        return [_row(subject, users, load, answers) for (subject, load, _), answers in zip(asked, found, strict=True)]

    def _measure(self, subject: Subject, question: dict[str, Any]) -> dict[str, Any]:
        pids = {"service_cpu": subject.pid, "milvus_cpu": self._milvus_pid}
        watch = [pid for pid in pids.values() if pid]
        answer: dict[str, Any] = subject.ask(seconds=self._seconds, watch=watch, **question)
        served = answer["users_per_s"] * answer["seconds"] / 1000
        spent = dict(zip(watch, answer["watched_cpu_s"], strict=True))
        for name, pid in pids.items():
            answer[name] = spent[pid] / max(served, 1e-9) if pid else nan
        answer["load_cpu"] = answer.get("cpu_s", 0.0) / max(served, 1e-9)
        answer["load_busy"] = answer.get("cpu_s", 0.0) / answer["seconds"]
        return answer


def _row(subject: Subject, users: int, load: str, found: list[dict[str, Any]]) -> Row:
    names = ("users_per_s", "p50_ms", "p95_ms", "p99_ms", "service_cpu", "milvus_cpu", "load_cpu", "load_busy")
    medians = {name: statistics.median(each[name] for each in found) for name in names}
    outcomes: dict[str, int] = {}
    for each in found:
        for status, calls in each.get("outcomes", {}).items():
            outcomes[status] = outcomes.get(status, 0) + calls
    return Row(subject.name, users, load, recall=subject.recall, outcomes=outcomes, **medians)


def recall_of(found: list[list[int]], exact: list[list[int]]) -> float:
    """Mean share of the users' exact lists in those that were found."""
    return float(np.mean([len(set(mine) & set(best)) / len(best) for mine, best in zip(found, exact, strict=True)]))

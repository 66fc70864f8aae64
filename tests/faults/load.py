"""Callers that know the right answer: every one is held against the exact answer of the model that it names."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from rich.table import Table

from clients import AsyncRecallClient, RecallError
from mind.artifact import Artifact, Float32
from mind.encoder import NumpyEncoder
from mind.sequences import Int64
from protos.recall.v1 import recall_pb2

TOP_K, USERS = 10, 256
TOLERANCE = 1e-3
"""Of a score, near 30: Milvus sums in another order than we do."""
LATE_S = 0.5
"""How long after its deadline a call may end on a busy machine."""
SETTLE_S = 0.5
"""How long before a fault a phase begins, so that calls of the one before have ended."""
POPULAR = "POPULAR"
"""The outcome of a call of a user with the status DEGRADED who got the popular list."""
SHOWN = 5
"""Wrong answers that are printed."""


@dataclass
class Phase:
    """What calls met that began in one part of a drill."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    """Status of the answer, `POPULAR`, or the reason or code of the failure."""
    latency_s: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    late: int = 0
    """Calls that ended well after their deadline."""

    @property
    def calls(self) -> int:
        """How many."""
        return sum(self.outcomes.values())

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the latency of all calls."""
        return float(np.percentile(self.latency_s or [np.nan], percent)) * 1000


class Answers:
    """The exact answers of some models to some histories, without neighbours of the clicks."""

    def __init__(self, models: Sequence[Artifact], users: int = USERS, seed: int = 0) -> None:
        """`users`: different histories, of one to as many clicks as a model looks at."""
        rng = np.random.default_rng(seed)
        item_id = models[0].weights.item_id
        longest = models[0].hyper_parameters.maxlen
        self.histories: list[list[int]] = [
            rng.choice(item_id, rng.integers(1, longest + 1), replace=False).tolist() for _ in range(users)
        ]
        self._models = {model.model_version: model for model in models}
        self.known = True
        """Whether an answer can be judged: not while the collection is being changed."""
        self.remember()

    def _scores(self, model: Artifact) -> Float32:
        """Score of every item for every user: [users, items] float32."""
        longest = model.hyper_parameters.maxlen
        rows = np.zeros((len(self.histories), longest), np.int64)
        for row, history in zip(rows, self.histories, strict=True):
            row[: len(history)] = model.vocabulary.item_index(np.array(history))
        lengths = np.array([len(history) for history in self.histories])
        vectors = NumpyEncoder(model.weights, model.hyper_parameters).encode(rows, lengths)
        found = np.any(vectors, axis=2)[:, :, None]  # an interest that is zero is not searched
        scores = vectors @ model.weights.item_embedding[1:].T
        return np.asarray(np.max(scores, axis=1, where=found, initial=-np.inf), np.float32)

    def remember(self) -> None:
        """All items are in the collections."""
        self._best = {version: self._scores(model) for version, model in self._models.items()}

    def learn(self, model: Artifact) -> None:
        """One more model may answer from now on; it knows all items of the histories."""
        self._models[model.model_version] = model
        self._best[model.model_version] = self._scores(model)

    def forget(self, item_ids: Sequence[int]) -> None:
        """From now on these items are in no answer."""
        for version, best in self._best.items():
            best[:, self._models[version].vocabulary.item_index(np.array(item_ids)) - 1] = -np.inf

    def fault(self, user: int, answer: recall_pb2.UserCandidates, model_version: str, collection: str) -> str:
        """Why an answer is not what the model that it names says; empty if it is. Equal scores may swap places."""
        if not self.known:
            return ""
        if model_version not in self._models:
            return f"model {model_version!r} is none of ours"
        if not collection.startswith(f"items_{model_version}_"):
            return f"model {model_version} beside collection {collection}"
        if answer.status == recall_pb2.USER_STATUS_DEGRADED and answer.fallback:
            return self._popular_fault(answer, model_version)
        if answer.status not in (recall_pb2.USER_STATUS_OK, recall_pb2.USER_STATUS_DEGRADED):
            return f"status {answer.status}"
        model, best = self._models[model_version], self._best[model_version][user]
        item_ids, scores = np.array(answer.item_ids), np.array(answer.scores)
        if len(item_ids) != TOP_K or len(set(answer.item_ids)) != TOP_K:
            return f"{len(item_ids)} items, {len(set(answer.item_ids))} different ones"
        own = best[model.vocabulary.item_index(item_ids) - 1]
        expected = -np.sort(-np.partition(best, -TOP_K)[-TOP_K:])
        error = max(np.abs(own - scores).max(), np.abs(expected - scores).max())
        return "" if error <= TOLERANCE else f"scores differ from the exact ones by {error:.3g}"

    def _popular_fault(self, answer: recall_pb2.UserCandidates, model_version: str) -> str:
        popular = most_popular(self._models[model_version])[:TOP_K].tolist()
        right = answer.fallback and list(answer.item_ids) == popular and set(answer.interest) == {-1}
        return "" if right else "degraded, and not the popular list"


def most_popular(model: Artifact) -> Int64:
    """All items, the most popular first, equal ones by id."""
    order = np.lexsort((model.weights.item_id, -model.weights.popularity))
    return model.weights.item_id[order]


class Load:
    """Callers in a closed loop, single users; start it, name phases, stop it."""

    def __init__(
        self,
        addresses: Sequence[str],
        answers: Answers,
        callers: int,
        timeout_s: float,
        pause_s: float = 0,
        channels: Mapping[str, set[str]] = MappingProxyType({"": set()}),
    ) -> None:
        """`callers` share one shipped client a server; `timeout_s` is the deadline of a call, its retries included.

        `pause_s`: between an answer and the same caller's next call. `channels`: those that are asked in turn, and the
        collections that each may answer from now; an empty set is any. The drill changes the sets.
        """
        self._channels = channels
        self._clients = [AsyncRecallClient(address, timeout_s=timeout_s) for address in addresses]
        self._answers = answers
        self._callers = callers
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._running: list[asyncio.Task[None]] = []
        self._shown = 0
        self.phases = [Phase("start")]
        self.first: dict[str, float] = {}
        """When each outcome was first met in this phase; `time.monotonic`."""
        self.reasons: Counter[str] = Counter()
        """Messages of the failures."""

    def phase(self, name: str) -> Phase:
        """Calls that begin from now on count here."""
        self.phases.append(Phase(name))
        self.first = {}
        return self.phases[-1]

    async def until(self, outcome: str, timeout_s: float) -> float:
        """Wait for an outcome in this phase; gives the seconds that it took from now. Infinite if it did not come."""
        started = time.monotonic()
        while outcome not in self.first:
            if time.monotonic() - started > timeout_s:
                return float("inf")
            await asyncio.sleep(0.02)
        return max(self.first[outcome] - started, 0.0)

    async def __aenter__(self) -> "Load":
        """Begin to call."""
        self._running = [asyncio.create_task(self._call_on(number)) for number in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End; calls in progress are given up and not counted."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def _call_on(self, number: int) -> None:
        client = self._clients[number % len(self._clients)]
        rng = np.random.default_rng(number)
        while True:
            await self.one(client, int(rng.integers(len(self._answers.histories))))
            await asyncio.sleep(self._pause_s)

    async def one(self, client: AsyncRecallClient, user: int) -> None:
        """One call, counted in the phase in which it begins."""
        phase, started = self.phases[-1], time.monotonic()
        channel = list(self._channels)[sum(each.calls for each in self.phases) % len(self._channels)]
        before = set(self._channels[channel])
        try:
            history = self._answers.histories[user]
            answer = await client.recall([history], top_k=TOP_K, neighbours="off", channel=channel)
        except RecallError as error:
            outcome, fault = error.reason or error.code.name, ""
            phase.failed += 1
            self.reasons[str(error)] += 1
            await asyncio.sleep(0.02)  # a caller that fails at once must not keep the machine busy
        else:
            (result,) = answer.results
            outcome = recall_pb2.UserStatus.Name(result.status).removeprefix("USER_STATUS_")
            if result.status == recall_pb2.USER_STATUS_DEGRADED and result.fallback:
                outcome = POPULAR
            fault = self._answers.fault(user, result, answer.model_versions[0], answer.collections[0])
            may = before | self._channels[channel]
            if channel and answer.channels != (channel,):
                fault = f"channel {answer.channels}, not {channel}"
            elif may and answer.collections[0] not in may:
                fault = f"collection {answer.collections[0]} in channel {channel}, not one of {sorted(may)}"
        took = time.monotonic() - started
        phase.outcomes[outcome] += 1
        if phase is self.phases[-1]:
            self.first.setdefault(outcome, time.monotonic())
        phase.latency_s.append(took)
        phase.late += took > self._timeout_s + LATE_S
        if fault:
            phase.wrong += 1
            self._shown += 1
            if self._shown <= SHOWN:
                print(f"wrong answer to user {user}: {fault}", flush=True)

    def table(self, title: str) -> Table:
        """All phases but the first, which warms up."""
        table = Table(title=title, title_justify="left")
        for heading in ("calls that began", "calls", "failed", "wrong", "late", "p50 ms", "p99 ms", "outcomes"):
            table.add_column(heading, justify="left" if heading in ("calls that began", "outcomes") else "right")
        for phase in self.phases[1:]:
            times = [f"{phase.percentile_ms(percent):,.0f}" for percent in (50, 99)]
            outcomes = ", ".join(f"{name} {count:,}" for name, count in phase.outcomes.most_common())
            counts = (f"{count:,}" for count in (phase.calls, phase.failed, phase.wrong, phase.late))
            table.add_row(phase.name, *counts, *times, outcomes)
        return table


def begin(name: str, *loads: Load) -> None:
    """Calls of all of them that begin from now on count in a phase of this name."""
    for load in loads:
        load.phase(name)

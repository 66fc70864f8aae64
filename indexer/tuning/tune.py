"""Chooses index, search parameters and interest_cosine for a recall target, by measuring on a Milvus server.

The measurements use trial collections: `tune_<model_version>` and, for the last comparison with the default index,
`tune_<model_version>_default`. They are dropped at the end. Item collections and the alias are never changed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median

from indexer.build import Index, fill
from indexer.errors import IndexerError, RefusedError, TuningError
from indexer.items.attributes import Attributes
from indexer.progress import Progress
from indexer.tuning.candidates import DEFAULT, TYPES, ladders, plans, rungs_from
from indexer.tuning.interests import COSINES
from indexer.tuning.measure import Measured, Workload, exact_recall, limit_of, measure, prepare
from indexer.verify import MIN_RECALL, RECALL_AT, check_count, golden_recall
from mind.artifact import Artifact
from mind.encoder import NumpyEncoder, check_golden
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError, StoreUnavailableError
from mind.milvus.store import Params, Store
from mind.sequences import Sequences

SECONDS = 0.5
"""Minimum time of one measurement of speed, in seconds."""
_ROUNDS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One measurement: an index with its search parameters, and whether it finds enough."""

    measured: Measured
    passes: bool
    """Whether it reaches the recall target, and the recall that a build requires for each interest."""


@dataclass(frozen=True)
class Failed:
    """An index that Milvus could not build or search, and the reason."""

    type: str
    build_params: Params
    reason: str


@dataclass(frozen=True)
class Tuned:
    """The chosen index and all measurements."""

    best: Measured
    """The measurement of the choice. Its speed and that of `default` are medians of alternate rounds."""
    default: Measured
    """The measurement of the default index."""
    rungs: list[Rung]
    """All measurements, in order."""
    failures: list[Failed]
    users: int
    """Number of users that were searched for."""
    min_recall: float
    """The recall target."""

    @property
    def ratio(self) -> float:
        """Return the speed of the choice divided by the speed of the default."""
        return self.best.users_per_s / self.default.users_per_s


def tune(
    store: Store,
    model: Artifact,
    histories: Sequences,
    min_recall: float = 0.99,
    users: int = 512,
    types: Sequence[str] = TYPES,
    seconds: float = SECONDS,
    on_progress: Progress = lambda stage, done, total: None,
) -> Tuned:
    """Find the fastest index that reaches a recall.

    Args:
        store: the connection to a Milvus server, not Milvus Lite.
        model: the model whose items and encoder are used.
        histories: histories of real users, with external ids.
        min_recall: the recall target: minimum mean share of a user's exact merged best 50.
        users: maximum number of histories to search for.
        types: the index types to try, from `TYPES`.
        seconds: minimum time of each measurement of speed.
        on_progress: called with the progress.

    Raises:
        RefusedError: the store is Milvus Lite, or `types` has a type that is not in `TYPES`.
        TuningError: no index reaches `min_recall`, or too few histories can be used.
    """
    refuse_lite(store.connection)
    if unknown := sorted(set(types) - set(TYPES)):
        raise RefusedError(f"--index-type {unknown[0]}: this type cannot be tried; choose from {', '.join(TYPES)}")
    check_golden(NumpyEncoder(model.weights, model.hyper_parameters), model)
    workload = prepare(model, histories, users, on_progress)
    for name in _names(model):
        _drop_if_there(store, name)
    with _trial(store, model, _names(model)[0], on_progress) as trial:
        return _Tuning(trial, workload, min_recall, tuple(types), seconds).run()


def worthwhile_cosines(workload: Workload, min_recall: float) -> list[float]:
    """Return 1.0 and at most two other `COSINES` that reach the recall in exact search and save the most searches."""
    searches = {}
    for cosine in COSINES:
        recall, searches[cosine] = exact_recall(workload, cosine)
        if cosine < 1 and (recall.mean() < min_recall or searches[cosine] in list(searches.values())[:-1]):
            del searches[cosine]  # misses too much, or saves no more than a greater one
    return [1.0, *sorted(searches.keys() - {1.0}, key=lambda cosine: searches[cosine])[:2]]


def refuse_lite(connection: Connection) -> None:
    """Raise RefusedError for Milvus Lite, before its file is created."""
    if connection.is_lite:
        raise RefusedError(
            f"{connection.shown}: `choose-index` needs a Milvus server (--milvus-uri http://host:19530); "
            "with Milvus Lite a build uses exact search"
        )


class _Trial:
    """A collection of all items that gets one index after the other."""

    def __init__(self, store: Store, model: Artifact, name: str, on_progress: Progress) -> None:
        self.store, self.model, self.name, self.on_progress = store, model, name, on_progress
        self._items = len(model.weights.item_id)
        self._built: tuple[str, Params] | None = None
        store.create(name, model.hyper_parameters.embedding_dim, {})
        fill(store, name, model, Attributes(), 20_000, on_progress)

    def build(self, index: Index) -> bool:
        """Build this index unless the collection has it already. Return whether it was built."""
        if self._built == (index.type, index.build_params):
            return False
        self._built = None
        self.store.release(self.name)
        self.store.drop_index(self.name)
        self.store.index(
            self.name, index.type, index.build_params, self._items,
            lambda rows: self.on_progress(f"index {index.type}", rows, self._items),
        )  # fmt: skip
        self.on_progress("load", 0, 0)
        self.store.load(self.name)
        check_count(self.store, self.name, self._items)
        self._built = (index.type, index.build_params)
        return True


@dataclass
class _Tuning:
    """The state of one choice: what was measured and what failed so far."""

    trial: _Trial
    workload: Workload
    min_recall: float
    types: tuple[str, ...]
    seconds: float
    rungs: list[Rung] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)

    def run(self) -> Tuned:
        """Measure all candidates, choose the fastest, and compare it with the default."""
        cosines = worthwhile_cosines(self.workload, self.min_recall)
        self.trial.build(DEFAULT)
        first = self._measure(DEFAULT).measured
        for plan in plans(len(self.workload.vocabulary), self.types):
            try:
                self.trial.build(plan)
                for cosine in cosines:
                    for ladder in ladders(plan, limit_of(cosine)):
                        self._climb(replace(plan, interest_cosine=cosine), ladder)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                self.failures.append(Failed(plan.type, plan.build_params, str(error)))
        best, default = self._compared(self._settled(), first)
        return Tuned(best, default, self.rungs, self.failures, len(self.workload.vectors), self.min_recall)

    def _measure(self, index: Index) -> Rung:
        """Measure an index, which the trial collection must have."""
        store, name = self.trial.store, self.trial.name
        self.trial.on_progress(f"measure {index.type}", 0, 0)
        measured = measure(store, name, self.workload, index, self.seconds)
        passes = measured.recall >= self.min_recall and (
            golden_recall(store, name, index.search_params, self.trial.model.weights).recall >= MIN_RECALL
        )  # the check that a build makes for each interest
        self.rungs.append(Rung(measured, passes))
        return self.rungs[-1]

    def _passing(self) -> list[Measured]:
        """List the measurements that pass, the fastest first."""
        passing = [rung.measured for rung in self.rungs if rung.passes and rung.measured.index.type in self.types]
        return sorted(passing, key=lambda measured: -measured.users_per_s)

    def _climb(self, index: Index, ladder: list[Params]) -> None:
        """Try parameters in order until one passes, or is slower than the best that passes."""
        for search_params in ladder:
            rung = self._measure(replace(index, search_params=search_params))
            passing = self._passing()
            if rung.passes or (passing and rung.measured.users_per_s < passing[0].users_per_s):
                return

    def _settled(self) -> Measured:
        """Return the fastest index that still passes after it is built again, because two builds differ.

        If the parameters no longer pass on the new index, more thorough ones are tried.
        """
        for best in self._passing():
            if not self.trial.build(best.index):
                return best
            for search_params in rungs_from(best.index):
                rung = self._measure(replace(best.index, search_params=search_params))
                if rung.passes:
                    return rung.measured
        raise self._failure()

    def _failure(self) -> TuningError:
        measured = [rung.measured for rung in self.rungs if rung.measured.index.type in self.types]
        if not measured:
            return TuningError(f"no index could be measured: {self.failures[0].reason}")
        best = max(measured, key=lambda each: each.recall)
        what = " ".join([best.index.type, *(f"{name}={value}" for name, value in best.index.search_params.items())])
        return TuningError(
            f"no index reaches recall@{RECALL_AT} {self.min_recall:g}: the best is {best.recall:.4f} with {what}"
            + (
                f", whose recall for single interests is below {MIN_RECALL:g}"
                if best.recall >= self.min_recall
                else "; lower --min-recall or try other index types"
            )
        )

    def _compared(self, best: Measured, default: Measured) -> tuple[Measured, Measured]:
        """Measure the choice and the default alternately. If the default is not slower, it becomes the choice."""
        try:
            with self._beside(best.index) as name:
                rounds = [(self._once(name, DEFAULT), self._once(self.trial.name, best.index)) for _ in range(_ROUNDS)]
        except StoreUnavailableError:
            raise
        except StoreError as error:
            _log.warning("the choice and the default index could not be measured alternately: %s", error)
            return best, default
        default, best = (
            replace(column[0], users_per_s=median(each.users_per_s for each in column))
            for column in zip(*rounds, strict=True)
        )
        if best.index == DEFAULT:
            return best, best
        usual = any(rung.passes for rung in self.rungs if rung.measured.index == DEFAULT) and "HNSW" in self.types
        if usual and default.recall >= self.min_recall and default.users_per_s >= best.users_per_s:
            return default, default
        return best, default

    def _once(self, name: str, index: Index) -> Measured:
        self.trial.on_progress("compare", 0, 0)
        return measure(self.trial.store, name, self.workload, index, self.seconds)

    @contextmanager
    def _beside(self, index: Index) -> Iterator[str]:
        """Yield a collection with the default index, beside the trial collection with another index."""
        if (index.type, index.build_params) == (DEFAULT.type, DEFAULT.build_params):
            yield self.trial.name
            return
        store, model, on_progress = self.trial.store, self.trial.model, self.trial.on_progress
        with _trial(store, model, _names(model)[1], on_progress) as other:
            other.build(DEFAULT)
            yield other.name


def _names(model: Artifact) -> tuple[str, str]:
    name = f"tune_{model.model_version}"
    return name, f"{name}_default"


@contextmanager
def _trial(store: Store, model: Artifact, name: str, on_progress: Progress) -> Iterator[_Trial]:
    try:
        yield _Trial(store, model, name, on_progress)
    finally:
        try:
            _drop_if_there(store, name)
        except (IndexerError, StoreError) as error:
            _log.warning(
                "%s could not be dropped; the next `choose-index` for the same model drops it: %s", name, error
            )


def _drop_if_there(store: Store, name: str) -> None:
    if name in store.collections():
        store.drop(name)

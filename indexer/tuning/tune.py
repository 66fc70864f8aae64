"""Chooses index, search parameters and interest_cosine for a recall target, by measuring on the user's own Milvus.

All happens in trial collections, `tune_<model_version>` and, for a last comparison with the default index,
`tune_<model_version>_default`. They are gone afterwards; item collections and the alias are never touched.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median

import pyarrow as pa

from indexer.build import Index, fill
from indexer.errors import IndexerError, RefusedError, TuningError
from indexer.items.attributes import Attribute, Attributes
from indexer.progress import Progress
from indexer.tuning.candidates import DEFAULT, TYPES, ladders, plans, rungs_from
from indexer.tuning.measure import (
    BUCKET,
    FILTERS,
    Measured,
    Workload,
    buckets,
    exact_recall,
    limit_of,
    measure,
    prepare,
    recall_of,
)
from indexer.verify import MIN_RECALL, RECALL_AT, check_count, golden_recall
from mind.artifact import Artifact
from mind.encoder import NumpyEncoder, check_golden
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError, StoreUnavailableError
from mind.milvus.store import Params, Store
from mind.sequences import Sequences

COSINES = (1.0, 0.995, 0.99, 0.98, 0.95, 0.9, 0.5)
SECONDS = 0.5
"""Least time of a measurement of speed."""
_ROUNDS = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One thing that was measured."""

    measured: Measured
    passes: bool
    """Whether it reaches the target and what a build demands."""


@dataclass(frozen=True)
class Failed:
    """An index that Milvus refused."""

    type: str
    build_params: Params
    reason: str


@dataclass(frozen=True)
class Tuned:
    """What was measured and chosen."""

    best: Measured
    """The choice; its speed and that of `default` are medians of rounds in turn."""
    default: Measured
    filtered: dict[str, float]
    """Recall by filter."""
    rungs: list[Rung]
    failures: list[Failed]
    users: int
    min_recall: float

    @property
    def ratio(self) -> float:
        """Speed of the choice in multiples of the default's."""
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
    """Find the fastest index that finds enough.

    Args:
        store: a Milvus server; Lite searches exactly.
        model: whose items and encoder are measured.
        histories: of real users, external ids.
        min_recall: least mean share of a user's exact merged best 50.
        users: most histories to search for.
        types: indexes to try, of `TYPES`.
        seconds: least time of each measurement of speed.
        on_progress: told what is under way.

    Raises:
        RefusedError: the store is Milvus Lite, or has no such index.
        TuningError: no index reaches `min_recall`, or too few histories can be used.
    """
    refuse_lite(store.connection)
    if unknown := sorted(set(types) - set(TYPES)):
        raise RefusedError(f"--index-type {unknown[0]}: what can be tuned is {', '.join(TYPES)}")
    check_golden(NumpyEncoder(model.weights, model.hyper_parameters), model)
    workload = prepare(model, histories, users, on_progress)
    for name in _names(model):
        _drop_if_there(store, name)
    with _trial(store, model, _names(model)[0], on_progress) as trial:
        return _Tuning(trial, workload, min_recall, tuple(types), seconds).run()


def worthwhile_cosines(workload: Workload, min_recall: float) -> list[float]:
    """1, and at most two of `COSINES` that save the most searches while an exact index would still find enough."""
    searches = {}
    for cosine in COSINES:
        recall, searches[cosine] = exact_recall(workload, cosine)
        if cosine < 1 and (recall < min_recall or searches[cosine] in list(searches.values())[:-1]):
            del searches[cosine]  # misses too much, or saves no more than a greater one
    return [1.0, *sorted(searches.keys() - {1.0}, key=lambda cosine: searches[cosine])[:2]]


def refuse_lite(connection: Connection) -> None:
    """Refuse a file of Milvus Lite, before it is made. Raises RefusedError."""
    if connection.is_lite:
        raise RefusedError(f"{connection.shown}: Milvus Lite searches exactly; tuning is for a Milvus server")


class _Trial:
    """A collection of all items whose index is replaced again and again."""

    def __init__(self, store: Store, model: Artifact, name: str, on_progress: Progress) -> None:
        self.store, self.model, self.name, self.on_progress = store, model, name, on_progress
        self._items = len(model.weights.item_id)
        self._built: tuple[str, Params] | None = None
        bucket = Attribute(BUCKET, "INT64", pa.array(buckets(self._items)), 0, 0, 8)
        store.create(name, model.hyper_parameters.embedding_dim, {BUCKET: bucket.capacity})
        fill(store, name, model, Attributes((bucket,)), 20_000, on_progress)

    def build(self, index: Index) -> bool:
        """Make this the index, unless it is already; returns whether it was made."""
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
    """The choice as it is made."""

    trial: _Trial
    workload: Workload
    min_recall: float
    types: tuple[str, ...]
    seconds: float
    rungs: list[Rung] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)

    def run(self) -> Tuned:
        """Measure everything, settle on the fastest that still passes when built anew, compare, look at filters."""
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
        filter_params, filtered = self._filters(best.index)
        best = replace(best, index=replace(best.index, filter_search_params=filter_params))
        return Tuned(best, default, filtered, self.rungs, self.failures, len(self.workload.vectors), self.min_recall)

    def _measure(self, index: Index) -> Rung:
        """Measure on the trial collection, whose index it must be."""
        store, name = self.trial.store, self.trial.name
        self.trial.on_progress(f"measure {index.type}", 0, 0)
        measured = measure(store, name, self.workload, index, self.seconds)
        passes = measured.recall >= self.min_recall and (
            golden_recall(store, name, index.search_params, self.trial.model.weights).recall >= MIN_RECALL
        )  # what a build will demand of each interest on its own
        self.rungs.append(Rung(measured, passes))
        return self.rungs[-1]

    def _passing(self) -> list[Measured]:
        """What was measured and is good enough, the fastest first."""
        passing = [rung.measured for rung in self.rungs if rung.passes and rung.measured.index.type in self.types]
        return sorted(passing, key=lambda measured: -measured.users_per_s)

    def _climb(self, index: Index, ladder: list[Params]) -> None:
        """Up to the first rung that passes, or that is already slower than the best that does."""
        for search_params in ladder:
            rung = self._measure(replace(index, search_params=search_params))
            passing = self._passing()
            if rung.passes or (passing and rung.measured.users_per_s < passing[0].users_per_s):
                return

    def _settled(self) -> Measured:
        """The fastest that passes on an index built anew, for no two builds are the same; a rung higher if need be."""
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
            f"no index reaches recall@{RECALL_AT} {self.min_recall:g}: the best is {best.recall:.4f} by {what}"
            + (f", which finds less than {MIN_RECALL:g} for one interest" if best.recall >= self.min_recall else "")
        )

    def _compared(self, best: Measured, default: Measured) -> tuple[Measured, Measured]:
        """The choice and the default, searched in turn; the default becomes the choice if that is no slower."""
        try:
            with self._beside(best.index) as name:
                rounds = [(self._once(name, DEFAULT), self._once(self.trial.name, best.index)) for _ in range(_ROUNDS)]
        except StoreUnavailableError:
            raise
        except StoreError as error:
            _log.warning("the default index was measured before, not in turn with the choice: %s", error)
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
        """A collection with the default index, while the trial collection has another."""
        if (index.type, index.build_params) == (DEFAULT.type, DEFAULT.build_params):
            yield self.trial.name
            return
        store, model, on_progress = self.trial.store, self.trial.model, self.trial.on_progress
        with _trial(store, model, _names(model)[1], on_progress) as other:
            other.build(DEFAULT)
            yield other.name

    def _filters(self, index: Index) -> tuple[Params, dict[str, float]]:
        """Search parameters that find enough under a filter too, empty if they are the usual, and the recalls."""
        self.trial.build(index)
        best: tuple[Params, dict[str, float]] = {}, {}
        for search_params in rungs_from(index, exhaustive=True):
            self.trial.on_progress("filters", 0, 0)
            tried = replace(index, filter_search_params=search_params)
            recalls = {
                filter_: recall_of(self.trial.store, self.trial.name, self.workload, tried, filter_)
                for filter_ in FILTERS
                if filter_ in self.workload.wanted
            }
            if not best[1] or min(recalls.values()) > min(best[1].values()):
                best = {} if search_params == index.search_params else search_params, recalls
            if min(recalls.values()) >= self.min_recall:
                break
        return best


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
            _log.warning("%s stays; tuning the same model again drops it: %s", name, error)


def _drop_if_there(store: Store, name: str) -> None:
    if name in store.collections():
        store.drop(name)

"""Runs a search: gets settings from the study, trains them, and tells the study the results. Imports no Paddle."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from mind.artifact import check_writable
from mind.choice.manifests import Data
from mind.choice.space import as_overrides, check_space, parse_space, unsearched
from mind.choice.study import Outcome, Study
from mind.choice.trials import Blocked, EpochDone, Failed, Message, Pruned, Worker, Written
from mind.config import Config, load_config
from mind.errors import ArtifactError, ConfigError
from mind.evaluation import metrics
from mind.training.inputs import read_inputs

TRIALS = "trials"
"""The directory in runner.model_save_path for the models of a search. A build looks for no models there."""


@dataclass
class Running:
    """A trial that is being trained."""

    worker: Worker
    trial: Trial
    epoch: int = 0


class Search:
    """A search: the trials of a study, `jobs` of them at a time."""

    def __init__(
        self,
        study: Study,
        metric: str,
        configure: Callable[[dict[str, object]], Config],
        prune: bool = True,
        start_worker: Callable[[], Worker] = Worker.start,
    ) -> None:
        """Prepare a search.

        `configure` makes a configuration of searched settings, or raises ConfigError if they do not fit.
        """
        self._study, self._metric, self._configure, self._prune = study, metric, configure, prune
        self._start_worker = start_worker
        self._idle: list[Worker] = []
        self.running: dict[Connection, Running] = {}
        self._waiting: list[Trial] = []  # trials whose settings are in training already

    def run(
        self,
        trials: int,
        jobs: int,
        on_epoch: Callable[[Running], None] = lambda running: None,
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Run until `trials` trials of the study have ended.

        Raises:
            ArtifactError: models cannot be written. The next process repeats the trials that were in training.
        """
        try:
            while True:
                while self._begun < jobs and len(self._study.outcomes()) + self._begun < trials:
                    at_once = self._begin()
                    if at_once:
                        on_end(at_once)
                if not self.running:
                    return
                ready = wait(list(self.running))
                for running in [one for line, one in self.running.items() if line in ready]:
                    outcome = self._heed(running)
                    if outcome is None:
                        on_epoch(running)
                        continue
                    on_end(outcome)
                    for trial in [one for one in self._waiting if one.params == outcome.settings]:
                        self._waiting.remove(trial)
                        on_end(self._repeat(trial, outcome))
        finally:
            self._stop()

    @property
    def _begun(self) -> int:
        """Return the number of trials that have begun and have not ended."""
        return len(self.running) + len(self._waiting)

    def _begin(self) -> Outcome | None:
        """Start a trial. Return its outcome if an earlier trial had the same settings, otherwise None."""
        trial = self._study.ask()
        before = self._study.earlier(trial)
        if before:
            return self._repeat(trial, before)
        if any(one.trial.params == trial.params for one in self.running.values()):
            self._waiting.append(trial)
            return None
        try:
            settings = self._configure(trial.params)
        except ConfigError as error:
            return self._study.end(trial, "failed", None, str(error))
        worker = self._idle.pop() if self._idle else self._start_worker()
        self.running[worker.connection] = Running(worker, trial)
        worker.connection.send(settings)
        return None

    def _repeat(self, trial: Trial, before: Outcome) -> Outcome:
        return self._study.end(trial, before.ended, before.value, before.note, before.number)

    def _heed(self, running: Running) -> Outcome | None:
        """Handle one message from a worker. Return the trial's outcome if it has ended, otherwise None."""
        line, trial = running.worker.connection, running.trial
        try:
            message: Message = line.recv()
            if isinstance(message, EpochDone):
                running.epoch = message.number
                worse = self._study.report(trial, message.number, message.metrics[self._metric])
                line.send(worse and self._prune)
                return None
        except (EOFError, OSError):
            del self.running[line]
            running.worker.stop()
            return self._study.end(trial, "failed", None, "the process that trained it died, perhaps out of memory")
        if isinstance(message, Blocked):
            raise ArtifactError(message.reason)
        self._idle.append(self.running.pop(line).worker)
        match message:
            case Written():
                return self._study.end(trial, "complete", message.metrics[self._metric], message.model_version)
            case Pruned():
                return self._study.end(trial, "pruned", None, f"worse than the median after epoch {running.epoch}")
            case Failed():
                return self._study.end(trial, "failed", None, message.reason)

    def _stop(self) -> None:
        """End all workers. The next process repeats the trials that were in training."""
        for running in self.running.values():
            running.worker.stop()
            self._study.interrupt(running.trial.number)
        for trial in self._waiting:
            self._study.interrupt(trial.number)
        for worker in self._idle:
            worker.stop()
        self._waiting.clear()
        self.running.clear()
        self._idle.clear()


@dataclass(frozen=True)
class Opened:
    """A search that is ready to run, and the paths of its results."""

    search: Search
    study: Study
    file: Path
    """The file of the study."""
    models: Path
    """The directory of the models."""
    keys: list[str]
    """The settings that are searched."""


def open_search(
    config: Path, overrides: list[str], specs: list[str], metric: str, file: Path | None, jobs: int, prune: bool
) -> Opened:
    """Begin a search over a configuration, or open a search that was stopped.

    Args:
        config: the YAML file that all trials have in common.
        overrides: overrides of the configuration, the same in all trials.
        specs: the settings to search, as texts for `parse_space`.
        metric: the validation metric to maximise.
        file: the file of the study; study.jsonl beside the models if None.
        jobs: the number of trials at a time.
        prune: whether trials that are worse than the median are stopped.

    Raises:
        ArtifactError: models cannot be written.
        ConfigError: a setting, the metric or the configuration is wrong, or the file has a study of something else.
        DataError: the data cannot be read, or the file is not a study.
    """
    space = parse_space(specs)
    settings = load_config(config, overrides)
    check_space(space, config, overrides)
    runner, models = settings.runner, settings.runner.model_save_path / TRIALS
    if runner.valid_data_dir is None:
        raise ConfigError("runner.valid_data_dir: a search needs validation data")
    if metric not in (known := metrics.names(metrics.CUTOFFS)):
        raise ConfigError(f"--metric {metric}: expected one of {', '.join(known)}")
    check_writable(models)
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the trials share the cores
    identity = {"metric": metric, "data": _fingerprint(settings), "settings": unsearched(settings, space)}
    file = file or models / "study.jsonl"
    study = Study(file, identity, space, runner.seed)
    saved = as_overrides({"runner.model_save_path": str(models)})
    search = Search(study, metric, partial(_configure, config, overrides + saved), prune)
    return Opened(search, study, file, models, list(space))


def _fingerprint(settings: Config) -> dict[str, Any]:
    """Return what identifies the data of the trials. The digest is the one that `mind.models list` shows."""
    data = Data.model_validate(read_inputs(settings).fingerprint)
    return {"digest": data.digest, "features": [digest[:8] for digest in data.item_features.values()]}


def _configure(config: Path, overrides: list[str], chosen: dict[str, object]) -> Config:
    return load_config(config, [*overrides, *as_overrides(chosen)])

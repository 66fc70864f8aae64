"""The search: asks the study for settings, has them trained, tells the study how it went. Knows no Paddle."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from optuna.trial import Trial

from mind.choice.study import Outcome, Study
from mind.choice.trials import Blocked, EpochDone, Failed, Message, Pruned, Worker, Written
from mind.config import Config
from mind.errors import ArtifactError, ConfigError


@dataclass
class Running:
    """A trial in training."""

    worker: Worker
    trial: Trial
    epoch: int = 0


class Search:
    """Trials of a study, `jobs` at a time."""

    def __init__(
        self,
        study: Study,
        metric: str,
        configure: Callable[[dict[str, object]], Config],
        prune: bool = True,
        start_worker: Callable[[], Worker] = Worker.start,
    ) -> None:
        """`configure` makes a configuration of searched settings, or raises ConfigError if they do not fit together."""
        self._study, self._metric, self._configure, self._prune = study, metric, configure, prune
        self._start_worker = start_worker
        self._idle: list[Worker] = []
        self.running: dict[Connection, Running] = {}
        self._waiting: list[Trial] = []  # their settings are in training, and the outcome will be theirs

    def run(
        self,
        trials: int,
        jobs: int,
        on_epoch: Callable[[Running], None] = lambda running: None,
        on_end: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Go on until `trials` of the study have ended.

        Raises:
            ArtifactError: models cannot be written; the trials in training are for the next process.
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
        """Trials that have not ended."""
        return len(self.running) + len(self._waiting)

    def _begin(self) -> Outcome | None:
        """Start a trial; gives its outcome if that is known without training."""
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
        """Take one message from a worker; gives the trial's outcome if it has ended."""
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
        """End all workers; what they were training is for the next process."""
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

"""A search over settings that can be continued by another process: Optuna's study in one file of JSON lines.

The next settings depend on the seed, the number of the trial and the results of earlier trials. So a search that was
killed continues as if it had not been killed. This module knows settings as plain values, and nothing of training.
"""

import fcntl
import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from mind.choice.space import Choice, Range, Space, scalar
from mind.errors import ConfigError, DataError

NAME = "mind"
STARTUP_TRIALS = 5
"""Minimum number of complete trials before a trial can be pruned."""
FIRST_PRUNED_EPOCH = 2
"""The first epoch after which a trial can be pruned. After epoch 1, small step sizes always look worse."""
ENOUGH_FOR_IMPORTANCE = 10
"""Minimum number of complete trials before the importance of settings is estimated."""
_BEGINNING = b'{"op_code":'
"""The first bytes of every journal that Optuna writes. A file with another beginning is refused."""
Ended = Literal["complete", "pruned", "failed"]
_STATES: dict[TrialState, Ended] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Outcome:
    """A trial that has ended."""

    number: int
    settings: dict[str, Any]
    """The settings that the trial tried, by dotted key."""
    ended: Ended
    value: float | None
    """The validation metric: that of the last epoch if the trial was pruned; None if it failed."""
    note: str
    """The version of the trial's model, or why there is no model."""
    repeats: int | None
    """Number of the trial that had the same settings. Training is deterministic, so its outcome is used."""


class Study:
    """A search and its file, which is locked while this object exists."""

    def __init__(self, file: Path, identity: dict[str, Any], space: Space, seed: int) -> None:
        """Open the study in a file, or create one.

        Args:
            file: the file of the study, JSON lines that Optuna wrote.
            identity: what all trials share, by name: metric, data, settings. It must equal that of an existing study.
            space: the settings to search.
            seed: the seed for choosing settings.

        Raises:
            ConfigError: the file has a study with another identity, or another process uses it.
            DataError: the file is damaged or cannot be written.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._seed = seed
        self._distributions = {key: _distribution(values) for key, values in space.items()}
        self._lock = _open_locked(file)
        comparable = "runner.epochs" not in space  # an epoch of 5 and the same of 20 are not the same
        pruner: BasePruner = MedianPruner(STARTUP_TRIALS, FIRST_PRUNED_EPOCH) if comparable else NopPruner()
        try:
            storage = JournalStorage(JournalFileBackend(str(file)))
            self._study = optuna.create_study(
                storage=storage, study_name=NAME, direction="maximize", pruner=pruner, load_if_exists=True
            )
            _hold_to(self._study, file, identity | {"space": {key: str(values) for key, values in space.items()}})
            self.interrupted = self._queue_interrupted()
        except ConfigError:
            self.close()
            raise
        except (ValueError, KeyError, TypeError, AssertionError) as error:  # a line that Optuna did not write
            self.close()
            raise DataError(f"{file}: not the file of a search: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Close the file, so that another process may open the study."""
        self._lock.close()

    def _queue_interrupted(self) -> int:
        """Close the trials that were running when a process was killed, and queue their settings to be tried first."""
        trials = self._study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self.interrupt(trial.number)
        settled = [outcome.settings for outcome in self.outcomes()]
        settled += [trial.system_attrs["fixed_params"] for trial in trials if trial.state == TrialState.WAITING]
        for number in self._interrupted:
            settings = trials[number].params
            if settings.keys() == self._distributions.keys() and settings not in settled:
                self._study.enqueue_trial(settings)
                settled.append(settings)
        return len(self._study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    @property
    def _interrupted(self) -> list[int]:
        """Return the numbers of the trials whose process was killed or stopped."""
        numbers: list[int] = self._study.user_attrs.get("interrupted", [])
        return numbers

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of all trials that have ended and were not interrupted, in the order of the trials."""
        trials, interrupted = self._study.get_trials(deepcopy=False), set(self._interrupted)
        return [_outcome(trial) for trial in trials if trial.state.is_finished() and trial.number not in interrupted]

    def ask(self) -> Trial:
        """Begin a trial. Its `params` are the settings to try."""
        counted = len(self._study.get_trials(deepcopy=False)) - len(self._interrupted)
        seed = int(np.random.SeedSequence([self._seed, counted]).generate_state(1)[0])
        self._study.sampler = TPESampler(seed=seed)
        return self._study.ask(self._distributions)

    def earlier(self, trial: Trial) -> Outcome | None:
        """Return the outcome of an earlier trial with the same settings, or None if there is none."""
        return next((one for one in self.outcomes() if one.settings == trial.params), None)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Record a trial's metric after an epoch.

        Return whether it is worse than the median, so that the trial should stop.
        """
        trial.report(value, epoch)
        return trial.should_prune()

    def end(self, trial: Trial, ended: Ended, value: float | None, note: str, repeats: int | None = None) -> Outcome:
        """Record how a trial ended, and return its outcome."""
        trial.set_user_attr("note", note)
        if repeats is not None:
            trial.set_user_attr("repeats", repeats)
        state = next(state for state, name in _STATES.items() if name == ended)
        return _outcome(self._study.tell(trial, value if ended == "complete" else None, state=state))

    def interrupt(self, number: int) -> None:
        """Close a trial that was interrupted. The next process begins with its settings."""
        self._study.set_user_attr("interrupted", [*self._interrupted, number])
        self._study.tell(number, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return the share of the metric's variation that each setting explains (PED-ANOVA, arXiv 2304.10255)."""
        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(complete) < ENOUGH_FOR_IMPORTANCE or len(self._distributions) < 2:
            return {}
        return get_param_importances(self._study)


def best_of(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the complete trials, best first, each combination of settings once. The earlier trial wins a tie."""
    complete = [one for one in outcomes if one.ended == "complete" and one.repeats is None]
    return sorted(complete, key=lambda one: -(one.value or 0))


def _distribution(values: Choice | Range) -> BaseDistribution:
    if isinstance(values, Choice):
        return CategoricalDistribution([scalar(value) for value in values.values])
    if values.whole:
        return IntDistribution(int(values.low), int(values.high))
    return FloatDistribution(values.low, values.high, log=values.log)


def _outcome(trial: FrozenTrial) -> Outcome:
    value = trial.value if trial.state == TrialState.COMPLETE else None
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    attributes = trial.user_attrs
    return Outcome(
        trial.number,
        dict(trial.params),
        _STATES[trial.state],
        value,
        attributes.get("note", ""),
        attributes.get("repeats"),
    )


def _open_locked(file: Path) -> BinaryIO:
    """Open and lock the file. Remove what a killed process left: half a line, and Optuna's own lock."""
    with ExitStack() as opened:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = opened.enter_context(file.open("a+b"))
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            handle.seek(0)
            content = handle.read()
            if not content.startswith(_BEGINNING[: len(content)]):
                raise DataError(f"{file}: not the file of a search; it does not begin with {_BEGINNING.decode()}")
            handle.truncate(content.rfind(b"\n") + 1)
            file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
        except BlockingIOError as error:
            raise ConfigError(f"{file}: another search is using this file") from error
        except OSError as error:
            raise DataError(f"{file}: cannot be written: {error.strerror}") from error
        opened.pop_all()
    return handle


def _hold_to(study: optuna.Study, file: Path, identity: dict[str, Any]) -> None:
    """Record the identity of a new study, or raise ConfigError if the study has another identity."""
    identity = json.loads(json.dumps(identity))
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        return
    changes = []
    for name, now in identity.items():
        before = known.get(name)
        if not isinstance(before, dict) or not isinstance(now, dict):
            before, now = {"": before}, {"": now}
        for key in before | now:
            if before.get(key) != now.get(key):
                changes.append(f"{name} {key}".strip() + f" was {_said(before, key)}, is {_said(now, key)}")
    if changes:
        raise ConfigError(
            f"{file}: this search has other settings: {'; '.join(changes)}; another --study starts a new one"
        )


def _said(tree: dict[str, Any], key: str) -> str:
    return str(tree[key]) if key in tree else "absent"

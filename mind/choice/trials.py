"""Trains the trials of a search in separate processes, so that a crash or lack of memory ends only one trial.

A worker gets a configuration, sends the metrics after every epoch, is told whether to go on, and ends with an artifact
or a reason. This module knows nothing of how settings are chosen.
"""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from mind.config import Config
from mind.errors import ArtifactError, MindError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochDone:
    """An epoch was validated. The worker waits for an answer; True stops the trial."""

    number: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Written:
    """The trial is done, and its model is on disk."""

    model_version: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Pruned:
    """The trial was stopped because other trials were better."""


@dataclass(frozen=True)
class Failed:
    """The trial failed: its settings give no model."""

    reason: str


@dataclass(frozen=True)
class Blocked:
    """The search cannot go on, because no settings would give a model. An example is a full disk."""

    reason: str


Message = EpochDone | Written | Pruned | Failed | Blocked


class _Stop(Exception):  # noqa: N818 - not an error
    """The parent process asked the worker to stop, or has ended."""


@dataclass
class Worker:
    """A process that trains trials, and the connection to it."""

    connection: Connection
    stop: Callable[[], None]
    """Ends the process at once."""

    @classmethod
    def start(cls) -> "Worker":
        """Start a worker process. It imports Paddle once, for all its trials."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_main, args=(theirs, os.getpid()), daemon=True)
        process.start()
        theirs.close()

        def stop() -> None:
            process.terminate()
            process.join()
            ours.close()

        return cls(ours, stop)


def _main(connection: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C

    def on_step() -> None:
        if os.getppid() != parent:
            raise _Stop

    serve(connection, on_step)


def serve(connection: Connection, on_step: Callable[[], None] = lambda: None) -> None:
    """Train the configurations that arrive on a connection, until it is closed."""
    inputs: tuple[Any, Any] = (None, None)
    while True:
        try:
            settings: Config = connection.recv()
            inputs = _reading(settings, inputs)
            connection.send(_run(settings, inputs[1], connection, on_step))
        except MindError as error:
            connection.send(Blocked(str(error)))
        except (EOFError, OSError, _Stop):
            return


def _reading(settings: Config, last: tuple[Any, Any]) -> tuple[Any, Any]:
    """Read the inputs of a run.

    Return them with the key that they depend on; `last` is reused if its key is the same.
    """
    from mind.training.inputs import read_inputs

    key = settings.hyper_parameters.item_features
    return last if last[1] is not None and last[0] == key else (key, read_inputs(settings))


def _run(settings: Config, inputs: Any, connection: Connection, on_step: Callable[[], None]) -> Message:
    from mind.training.inputs import checkpoint_of
    from mind.training.loop import Epoch
    from mind.training.parallel import Ranks
    from mind.training.run import train_and_write

    def on_epoch(epoch: Epoch) -> None:
        connection.send(EpochDone(epoch.number, epoch.metrics))
        if connection.recv():
            raise _Prune

    checkpoint = checkpoint_of(settings, inputs)
    try:
        ranks = Ranks.join(settings.runner.use_gpu)
        trained, path = train_and_write(settings, inputs, checkpoint, lambda *_: on_step(), on_epoch, ranks)
        assert path is not None  # noqa: S101 - this process is alone, so it leads
        answer: Message = Written(path.name, trained.metrics)
    except _Prune:
        answer = Pruned()
    except (_Stop, EOFError, OSError):
        raise
    except ArtifactError as error:
        return Blocked(str(error))
    except MindError as error:
        answer = Failed(str(error))
    except Exception as error:  # any error that Paddle raises for unusual settings
        logger.exception("a trial failed")
        answer = Failed(f"{type(error).__name__}: {error}")
    if checkpoint:
        checkpoint.remove()
    return answer


class _Prune(Exception):  # noqa: N818 - not an error
    """The parent answered that this trial should stop."""

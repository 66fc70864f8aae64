"""The inputs of every step of a night: its files, the way to run commands of ours, and what is live."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.catalogue import fingerprint_of, item_collections, live_one
from indexer.nightly.config import Nightly, on
from indexer.nightly.programs import run_program
from indexer.nightly.state import Night, last_released
from mind.artifact import Artifact, load_artifact, newest_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models

if TYPE_CHECKING:
    from indexer.rollout.servers import Servers

DATA, MODELS, FINAL, COMPARISON = "data", "models", "final", "comparison.json"
"""Names in a night's directory: the prepared data, the candidates, the model to release, and the comparison."""


@dataclass(frozen=True)
class Shift:
    """The inputs of every step of a night."""

    config: Nightly
    night: Night
    connection: Connection
    servers: "Servers | None"
    environment: dict[str, str]
    """Environment variables by which commands of ours find the same Milvus."""
    lock: int | None = None

    @property
    def directory(self) -> Path:
        """Return the night's directory."""
        return self.night.directory

    @property
    def models(self) -> Models:
        """Return the place from which servers load models."""
        return Models(self.config.artifacts, self.config.artifact_cache)

    def run(self, step: str, command: list[str]) -> None:
        """Run a command of ours. Its output goes to the log of the step."""
        run_program(command, self.directory / f"{step}.log", self.environment, self.lock)

    def earlier(self) -> Night | None:
        """Return the last night before this one that released a model."""
        return last_released(self.config.work_dir, self.night.state.date)

    def live_version(self) -> str:
        """Return the version of the live model; empty if none is live."""
        with Store(self.connection) as store:
            live = live_one(item_collections(store))
            return fingerprint_of(live).model_version if live else ""


def candidate(shift: Shift) -> Artifact:
    """Return the model that was trained in this night."""
    return load_artifact(newest_artifact(shift.directory / MODELS))


def released(shift: Shift) -> Path:
    """Return the directory of the model to release: the candidate, or the model that was trained on all clicks."""
    return newest_artifact(shift.directory / (FINAL if shift.config.train.final else MODELS))


def prepare_command(shift: Shift) -> list[str]:
    """Return the command of the step prepare."""
    own, night = shift.config.prepare, shift.night.state.date
    options = [on(word, night) for word in own.options]
    return ["mind.prepare", on(own.input, night), "--output", str(shift.directory / DATA), *options]


def train_command(shift: Shift, live: str) -> list[str]:
    """Return the command of the step train.

    `live`: directory of the live model; if empty, training starts from scratch.
    """
    return _train(shift, shift.config.train.overrides, shift.directory / MODELS, live)


def final_command(shift: Shift, live: str) -> list[str]:
    """Return the command of the step final, with the candidate's hyper-parameters. `live`: as for the step train."""
    overrides = [word for word in shift.config.train.overrides if not word.startswith("hyper_parameters.")]
    return [*_train(shift, overrides, shift.directory / FINAL, live), "--final", str(shift.directory / MODELS)]


def build_command(shift: Shift, model: Path) -> list[str]:
    """Return the command of the step build. `model`: the directory of the model."""
    return ["indexer", "build", "--artifact", str(model), *shift.config.build.options]


def _train(shift: Shift, overrides: Sequence[str], directory: Path, live: str) -> list[str]:
    own = shift.config.train
    keys = [word for override in [*overrides, _saved_in(directory)] for word in ("-o", override)]
    warm = ["--warm-start", live, "--warm-epochs", str(own.warm_epochs)] if live and own.warm_start else []
    return ["mind.train", "-m", str(own.config), "--data", str(shift.directory / DATA), *keys, *warm]


def _saved_in(directory: Path) -> str:
    return f"runner.model_save_path={json.dumps(str(directory))}"

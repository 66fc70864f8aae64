"""One training run: from inputs to the artifact of the best epoch. This module knows nothing of the command line."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mind.artifact import Artifact, write_artifact
from mind.config import Config, Effect, Runner, explain, runner_keys
from mind.errors import ConfigError
from mind.training.checkpoint import Checkpoint
from mind.training.finish import Choices
from mind.training.inputs import Inputs
from mind.training.lengths import with_length_weight
from mind.training.loop import Epoch, OnStep, Trained, train
from mind.training.parallel import Ranks


def train_and_write(
    settings: Config,
    inputs: Inputs,
    checkpoint: Checkpoint | None,
    on_step: OnStep,
    on_epoch: Callable[[Epoch], None],
    ranks: Ranks,
    chosen: Artifact | None = None,
    warm: Artifact | None = None,
) -> tuple[Trained, Path | None]:
    """Train, write the model under runner.model_save_path, and remove the checkpoint.

    Args:
        settings: the configuration.
        inputs: what `read_inputs` returns for it.
        checkpoint: stores the progress, and tells where to continue.
        on_step, on_epoch: as `mind.training.loop.train` calls them.
        ranks: this process among those that train together.
        chosen: the model whose settings a final model has. It tells when to end; the manifest repeats its metrics.
        warm: the model whose weights training begins with; None begins with random weights.

    Returns:
        What was learnt, and the directory of the artifact. The leader writes it; for other processes it is None.

    Raises:
        ArtifactError, ConfigError, DataError: as `train` and `write_artifact` raise them.
    """
    settings = with_length_weight(settings, inputs.sequences)
    trained = train(
        settings,
        inputs.sequences,
        inputs.valid,
        on_step,
        on_epoch,
        features=inputs.features,
        ages=inputs.ages,
        checkpoint=checkpoint,
        ranks=ranks,
        last_epoch=chosen.metrics["epoch"] if chosen else None,
        exclude_history=inputs.exclude_history,
        choices=chosen_for(chosen) if chosen else None,
        warm=warm,
    )
    if not ranks.leads:
        return trained, None
    path = _write_model(settings, inputs, trained, chosen)
    if checkpoint:
        checkpoint.remove()  # only now, because a full disk must not cost the training
    return trained, path


def settings_of(chosen: Artifact, settings: Config) -> Config:
    """Return a configuration with the settings of a model, and the paths and speed settings of another one.

    Raises:
        ConfigError: the model does not record how it was trained, or was not trained here.
    """
    recorded = chosen.metrics.get("runner")
    if not recorded or not chosen.metrics.get("epoch"):
        raise ConfigError(f"--final {chosen.model_version}: the model does not record how it was trained")
    try:
        runner = Runner.model_validate(settings.runner.model_dump() | recorded)
    except ValidationError as error:
        raise ConfigError(f"--final {chosen.model_version}: metrics.runner: {explain(error)}") from error
    hyper = chosen.hyper_parameters.model_copy(update={"item_count": None})
    return settings.model_copy(update={"runner": runner, "hyper_parameters": hyper})


def _write_model(settings: Config, inputs: Inputs, trained: Trained, chosen: Artifact | None) -> Path:
    curves = [{"epoch": epoch.number, "loss": epoch.loss, "valid": epoch.metrics} for epoch in trained.epochs]
    best = trained.best
    return write_artifact(
        settings.runner.model_save_path,
        settings.hyper_parameters.model_copy(update={"item_count": len(trained.weights.item_id)}),
        inputs.with_keys(trained.weights),
        data=inputs.fingerprint,
        metrics={
            "epoch": best.number,
            "loss": best.loss,
            "valid": trained.metrics,
            "epochs": curves,
            "choices": asdict(trained.choices),
            "runner": settings.runner.model_dump(mode="json", exclude=runner_keys(Effect.NOTHING)),
        }
        | ({"chosen_by": {"model_version": chosen.model_version, **_measured(chosen)}} if chosen else {}),
    )


def chosen_for(model: Artifact) -> Choices:
    """Return what was chosen after the training of a model. Models of earlier releases have no such choices."""
    recorded = model.metrics.get("choices") or {}
    return Choices(
        smoothing=recorded.get("smoothing", 0.0),
        join_cosine=model.weights.joins_from,
        interests=recorded.get("interests"),
        neighbour_bonus=recorded.get("neighbour_bonus", 0.0),
        neighbour_gain=recorded.get("neighbour_gain", 0.0),
    )


def _measured(chosen: Artifact) -> dict[str, Any]:
    return {name: chosen.metrics.get(name) for name in ("epoch", "loss", "valid")}

"""The command that trains: `python -m mind.train -m mind/config.yaml`."""

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mind.extras import missing

if line := missing("train,cpu", "paddle", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mind.artifact import check_writable, write_artifact
from mind.command import ConfigFile, Overrides, run
from mind.config import Config, Effect, load_config, runner_keys
from mind.data.features import FeatureTable, read_features
from mind.data.paddlerec import digests, read_eval, read_train
from mind.evaluation.metrics import SELECTED_BY, SHOWN
from mind.sequences import EvalCases, Sequences
from mind.training.checkpoint import Checkpoint
from mind.training.loop import Epoch, Trained, train
from mind.training.parallel import Ranks

EPILOG = """Examples:

python -m mind.train -m mind/config.yaml -o runner.epochs=3 -o hyper_parameters.maxlen=50

python -m paddle.distributed.launch --nproc_per_node 2 mind/train.py -m mind/config.yaml"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False, markup=False)


@app.command(epilog=EPILOG)
def main(
    config: ConfigFile,
    override: Overrides = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint that a killed run left behind.")] = True,
) -> None:
    """Train MIND and write the best epoch as an artifact under runner.model_save_path.

    Every key of the configuration is checked; unknown ones are refused by name.
    """
    settings = load_config(config, override)
    ranks = Ranks.join(settings.runner.use_gpu)
    console.quiet = not ranks.leads
    check_writable(settings.runner.model_save_path)
    inputs = read_inputs(settings)
    sequences, valid = inputs.sequences, inputs.valid
    console.print(
        f"{len(sequences):,} users, {len(sequences.item_id):,} interactions to train on; "
        + (f"{len(valid):,} users choose the best epoch by {SELECTED_BY}" if valid else "the last epoch is kept")
    )
    checkpoint = checkpoint_of(settings, inputs, resume)
    if checkpoint and resume and checkpoint.path.exists():
        console.print(f"going on from {checkpoint.path}; --no-resume starts anew", soft_wrap=True)
    console.print(_heading(valid is not None), style="bold")
    started = time.perf_counter()
    trained = _train(settings, inputs, checkpoint, ranks)
    if not ranks.leads:
        return
    path = write_model(settings, inputs, trained)
    if checkpoint:
        checkpoint.remove()  # only now: a full disk must not cost the training
    console.print(
        f"epoch {trained.best.number} kept after {time.perf_counter() - started:.0f} s; "
        f"model {path.name} written to {path}",
        soft_wrap=True,
    )


def _train(settings: Config, inputs: "Inputs", checkpoint: Checkpoint | None, ranks: Ranks) -> Trained:
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not ranks.leads) as progress:
        task = progress.add_task("", total=None, epoch=1, loss="-")

        def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
            progress.update(task, completed=step, total=steps, epoch=epoch, loss=f"{loss:.4f}")

        def on_epoch(epoch: Epoch) -> None:
            console.print(_epoch_line(epoch))

        return train(
            settings,
            inputs.sequences,
            inputs.valid,
            on_step,
            on_epoch,
            features=inputs.features,
            checkpoint=checkpoint,
            ranks=ranks,
        )


def _heading(validated: bool) -> str:
    return "epoch    loss  examples/s" + "".join(f"{name + ' %':>11}" for name in SHOWN.values() if validated)


def _epoch_line(epoch: Epoch) -> str:
    line = f"{epoch.number:>5}  {epoch.loss:.4f}  {epoch.examples_per_s:>10,.0f}"
    return line + "".join(f"{100 * epoch.metrics[name]:>11.2f}" for name in SHOWN if name in epoch.metrics)


@dataclass(frozen=True)
class Inputs:
    """What a run reads before it trains."""

    sequences: Sequences
    """The training users."""
    valid: EvalCases | None
    """The users that choose the best epoch."""
    features: FeatureTable | None
    """Of the items."""
    fingerprint: dict[str, Any]
    """What all of it was read from; becomes `data` in the manifest."""


def read_inputs(settings: Config) -> Inputs:
    """Read the data of a run. Raises DataError."""
    runner, hyper = settings.runner, settings.hyper_parameters
    sequences = read_train(runner.train_data_dir)
    valid = read_eval(runner.valid_data_dir) if runner.valid_data_dir else None
    named = runner.item_features_file if hyper.item_features else None
    features = read_features(named, hyper.item_features) if named else None
    fingerprint: dict[str, Any] = {"files": digests(runner.train_data_dir)}
    if runner.valid_data_dir:
        fingerprint["valid"] = digests(runner.valid_data_dir)
    if named:
        fingerprint["item_features"] = digests(named)
    fingerprint |= {"users": len(sequences), "interactions": len(sequences.item_id)}
    return Inputs(sequences, valid, features, fingerprint)


def checkpoint_of(settings: Config, inputs: Inputs, resume: bool = True) -> Checkpoint | None:
    """The checkpoint of this run, that is of the same settings and data, wherever they lie; None if none is wanted."""
    if not settings.runner.checkpoint_interval_s:
        return None
    same = settings.model_dump(mode="json", exclude={"runner": runner_keys(Effect.NOTHING)})
    digest = hashlib.sha256(json.dumps([same, inputs.fingerprint], sort_keys=True).encode()).hexdigest()
    return Checkpoint(settings.runner.model_save_path, digest[:12], resume)


def write_model(settings: Config, inputs: Inputs, trained: Trained) -> Path:
    """Write a trained model under runner.model_save_path; gives its directory. Raises ArtifactError."""
    curves = [{"epoch": epoch.number, "loss": epoch.loss, "valid": epoch.metrics} for epoch in trained.epochs]
    best = trained.best
    return write_artifact(
        settings.runner.model_save_path,
        settings.hyper_parameters.model_copy(update={"item_count": len(trained.weights.item_id)}),
        trained.weights,
        data=inputs.fingerprint,
        metrics={
            "epoch": best.number,
            "loss": best.loss,
            "valid": best.metrics,
            "epochs": curves,
            "runner": settings.runner.model_dump(mode="json", exclude=runner_keys(Effect.NOTHING)),
        },
    )


if __name__ == "__main__":
    run(app)

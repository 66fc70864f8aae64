"""The command that trains a model: `python -m mind.train -m mind/config.yaml`."""

import sys
import time
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("train,cpu", "paddle", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mind.artifact import Artifact, check_writable, load_artifact, newest_artifact
from mind.command import ConfigFile, DataDir, Overrides, Version, run
from mind.config import Config, data_overrides, load_config
from mind.data.paddlerec import data_files
from mind.data.user_ranges import range_of
from mind.errors import ConfigError
from mind.evaluation.metrics import SELECTED_BY, SHOWN
from mind.evaluation.returns import LEFT_OUT, measure_returns
from mind.sequences import distinct
from mind.training.checkpoint import Checkpoint
from mind.training.inputs import (
    Inputs,
    checkpoint_of,
    may_know_held_out,
    read_everything,
    read_inputs,
    valid_elsewhere,
    warmed,
)
from mind.training.loop import Epoch, Trained, of_all
from mind.training.parallel import Ranks
from mind.training.run import settings_of, train_and_write
from mind.training.warm import known_items, why_not

EPILOG = """Examples:

python -m mind.train -m mind/config.yaml --data data/mine

python -m mind.train -m mind/config.yaml --data data/mine --final "$(python -m mind.models best artifacts)"

python -m mind.train -m mind/config.yaml --data data/tonight --warm-start artifacts/0123456789ab --warm-epochs 3

python -m mind.train -m mind/config.yaml -o runner.epochs=3 -o hyper_parameters.maxlen=50

python -m paddle.distributed.launch --nproc_per_node 2 mind/train.py -m mind/config.yaml"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False, markup=False)


@app.command(epilog=EPILOG)
def main(
    config: ConfigFile,
    data: DataDir = None,
    override: Overrides = None,
    final: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Train on all data, validation and test included, with the settings and the number of epochs of this "
            "model. The manifest repeats the metrics of this model.",
        ),
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Begin with the weights of this model. Items that it does not know begin near the items that users "
            "clicked together with them. If its settings or its type of ids differ, training starts from scratch and "
            "says why.",
        ),
    ] = None,
    warm_epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs of a run with --warm-start, instead of runner.epochs.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint of a killed run.")] = True,
    version: Version = False,
) -> None:
    """Train MIND and write the best epoch as a model under runner.model_save_path.

    Every key of the configuration is checked; unknown ones are refused by name.
    """
    settings = load_config(config, data_overrides(data) + (override or []))
    ranks = Ranks.join(settings.runner.use_gpu)
    console.quiet = not ranks.leads
    check_writable(settings.runner.model_save_path)
    chosen = load_artifact(newest_artifact(final)) if final else None
    if chosen:
        if given := [key for key in override or [] if key.startswith("hyper_parameters.")]:
            raise ConfigError(
                f"-o {given[0]}: --final takes the hyper-parameters of {final}; train another model first"
            )
        settings = settings_of(chosen, settings)
    inputs = _read(settings, chosen, ranks)
    warm = _warm_model(warm_start, settings, inputs, ranks) if warm_start else None
    if warm:
        settings, inputs = warmed(settings, inputs, warm, None if chosen else warm_epochs)
    valid = inputs.valid
    console.print(
        f"{inputs.fingerprint['users']:,} users, {inputs.fingerprint['interactions']:,} interactions to train on; "
        + (f"{len(valid):,} users choose the best epoch by {SELECTED_BY}" if valid else _ends(chosen)),
        soft_wrap=True,
    )
    if inputs.returns and valid:
        console.print(f"{inputs.returns.sentence()}.", soft_wrap=True)
    if doubt := valid_elsewhere(settings):
        console.print(f"warning: {doubt}", soft_wrap=True)
    checkpoint = checkpoint_of(settings, inputs, resume)
    if checkpoint and resume and checkpoint.path.exists():
        console.print(f"continues from {checkpoint.path}; --no-resume starts from scratch", soft_wrap=True)
    if inputs.exclude_history and valid:
        console.print(f"validation, {LEFT_OUT}:")
    console.print(_heading(valid is not None), style="bold")
    started = time.perf_counter()
    try:
        trained, path = _train(settings, inputs, checkpoint, ranks, chosen, warm)
    except KeyboardInterrupt as stop:
        console.print(_stopped(checkpoint), soft_wrap=True)
        raise typer.Exit(130) from stop
    if path is None:
        return
    if valid and trained.valid_users < len(valid):
        console.print(
            f"{len(valid) - trained.valid_users:,} of {len(valid):,} validation users are not counted: "
            "the model knows no item of their history",
            soft_wrap=True,
        )
    for line in _choices_lines(trained):
        console.print(line, soft_wrap=True)
    console.print(
        f"epoch {trained.best.number} kept after {time.perf_counter() - started:.0f} s; "
        f"model {path.name} written to {path}",
        soft_wrap=True,
    )


def _read(settings: Config, chosen: Artifact | None, ranks: Ranks) -> Inputs:
    """Read the data that this process trains on.

    Each of several processes has other users, and all record the same data.
    """
    users = range_of(data_files(settings.runner.train_data_dir), ranks.rank, ranks.world)
    inputs = read_everything(settings, chosen, users) if chosen else read_inputs(settings, users)
    own = np.array([len(inputs.sequences), len(inputs.sequences.item_id)])
    inputs = inputs.counted(*ranks.total(own).tolist())
    if ranks.world == 1 or not inputs.valid or settings.runner.exclude_history is not None:
        return inputs
    every = of_all(inputs.sequences, ranks, settings.runner.seed)  # each process has measured with its own users
    return inputs.with_returns(measure_returns(every, inputs.valid))


def _warm_model(path: Path, settings: Config, inputs: Inputs, ranks: Ranks) -> Artifact | None:
    """Load the model whose weights training begins with. If it cannot be used, print the reason and return None."""
    model = load_artifact(newest_artifact(path))
    item_id = distinct(ranks.gather(distinct(inputs.sequences.item_id)))
    if reason := why_not(model, settings.hyper_parameters, item_id, inputs.keys is not None):
        console.print(
            f"starts from scratch, not with the weights of model {model.model_version}: {reason}", soft_wrap=True
        )
        return None
    known = known_items(model, item_id)
    console.print(
        f"begins with the weights of model {model.model_version}, which knows {known:,} of {len(item_id):,} items",
        soft_wrap=True,
    )
    if doubt := may_know_held_out(model, inputs):
        console.print(f"warning: {doubt}", soft_wrap=True)
    return model


def _train(
    settings: Config,
    inputs: Inputs,
    checkpoint: Checkpoint | None,
    ranks: Ranks,
    chosen: Artifact | None,
    warm: Artifact | None,
) -> tuple[Trained, Path | None]:
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[done]}"),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not ranks.leads) as progress:
        task = progress.add_task("", total=None, epoch=1, done="preparing", loss="-")

        def on_step(epoch: int, step: int, steps: int, loss: float | None) -> None:
            progress.update(task, completed=step, total=steps, epoch=epoch, done=f"{step:,}/{steps:,} steps")
            if loss is not None:
                progress.update(task, loss=f"{loss:.4f}")

        def on_epoch(epoch: Epoch) -> None:
            console.print(_epoch_line(epoch))

        return train_and_write(settings, inputs, checkpoint, on_step, on_epoch, ranks, chosen, warm)


def _choices_lines(trained: Trained) -> list[str]:
    """Return lines about the choices that were made after training, with their effect."""
    choices = trained.choices
    smoothing = f"{choices.smoothing:g} of its neighbours' mean is added to every item" if choices.smoothing else ""
    joining = f"interests with a cosine of {choices.join_cosine:g} or more are joined"
    if choices.join_cosine in (-1, 1):
        joining = "all interests are joined into one" if choices.join_cosine == -1 else ""
    if joining and choices.interests is not None:
        joining += f": {choices.interests:.2f} a user on average"
    lines = ["; ".join(filter(None, (smoothing, joining)))]
    if choices.neighbour_bonus:
        gain = f", which changes {SELECTED_BY} of validation users by {100 * choices.neighbour_gain:+.1f} %"
        lines.append(
            f"neighbours of the newest clicks are candidates with a bonus of {choices.neighbour_bonus:g}"
            f"{gain if choices.neighbour_gain else ''}"
        )
    elif trained.metrics:
        lines.append("neighbours of the newest clicks are no candidates: validation users gain nothing by them")
    if trained.metrics:
        lines.append(
            f"so the model has {', '.join(f'{name} {100 * trained.metrics[key]:.2f} %' for key, name in SHOWN.items())}"
        )
    return [line for line in lines if line]


def _ends(chosen: Artifact | None) -> str:
    """Return a text that says which epoch is kept if no users choose one."""
    if chosen is None:
        return "the last epoch is kept"
    return f"ends after epoch {chosen.metrics['epoch']}, as model {chosen.model_version} was kept"


def _stopped(checkpoint: Checkpoint | None) -> str:
    """Return a text that says what is left of a run that Ctrl-C or SIGTERM ended, and how to continue."""
    if checkpoint is None:
        return "stopped; runner.checkpoint_interval_s is 0, so nothing was saved; the same command starts from scratch"
    if not checkpoint.path.exists():
        return "stopped before the first checkpoint; the same command starts from scratch"
    again = "the same command goes on" if checkpoint.resumes else "the same command without --no-resume goes on"
    return f"stopped; {again} from {checkpoint.path}"


def _heading(validated: bool) -> str:
    return "epoch    loss  examples/s" + "".join(f"{name + ' %':>11}" for name in SHOWN.values() if validated)


def _epoch_line(epoch: Epoch) -> str:
    line = f"{epoch.number:>5}  {epoch.loss:.4f}  {epoch.examples_per_s:>10,.0f}"
    return line + "".join(f"{100 * epoch.metrics[name]:>11.2f}" for name in SHOWN if name in epoch.metrics)


if __name__ == "__main__":
    run(app)

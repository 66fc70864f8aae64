"""The command that trains: `python -m mind.train -m mind/config.yaml`."""

import hashlib
import time
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mind.artifact import check_writable, write_artifact
from mind.command import ConfigFile, Overrides, run
from mind.config import Config, load_config
from mind.paddlerec import data_files, read_eval, read_train
from mind.sequences import EvalCases, Sequences
from mind.training import SELECTED_BY, Epoch, Trained, train

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


@app.command(
    epilog="Example: python -m mind.train -m mind/config.yaml -o runner.epochs=3 -o hyper_parameters.maxlen=50"
)
def main(config: ConfigFile, override: Overrides = None) -> None:
    """Train MIND and write the best epoch as an artifact under runner.model_save_path.

    Every key of the configuration is checked; unknown ones are refused by name.
    """
    settings = load_config(config, override)
    runner = settings.runner
    check_writable(runner.model_save_path)
    sequences = read_train(runner.train_data_dir)
    valid = read_eval(runner.valid_data_dir) if runner.valid_data_dir else None
    console.print(
        f"{len(sequences):,} users, {len(sequences.item_id):,} interactions to train on; "
        + (f"{len(valid):,} users choose the best epoch by {SELECTED_BY}" if valid else "the last epoch is kept")
    )
    console.print(_heading(valid is not None), style="bold")
    started = time.perf_counter()
    trained = _train(settings, sequences, valid)
    hyper = settings.hyper_parameters.model_copy(update={"item_count": len(trained.weights.item_id)})
    path = write_artifact(
        runner.model_save_path,
        hyper,
        trained.weights,
        data=_data_fingerprint(runner.train_data_dir, sequences),
        metrics={"epoch": trained.best.number, "loss": trained.best.loss, "valid": trained.best.metrics},
    )
    console.print(
        f"epoch {trained.best.number} kept after {time.perf_counter() - started:.0f} s; "
        f"model [bold]{path.name}[/] written to {path}",
        soft_wrap=True,
    )


def _train(settings: Config, sequences: Sequences, valid: EvalCases | None) -> Trained:
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, epoch=1, loss="-")

        def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
            progress.update(task, completed=step, total=steps, epoch=epoch, loss=f"{loss:.4f}")

        def on_epoch(epoch: Epoch) -> None:
            progress.print(_epoch_line(epoch))

        return train(settings, sequences, valid, on_step, on_epoch)


SHOWN = {"recall@20": "R@20", "recall@50": "R@50", "ndcg@50": "NDCG@50", "hit_rate@50": "Hit@50"}
"""Validation metrics that are printed after every epoch, in per cent, and their headings."""


def _heading(validated: bool) -> str:
    return "epoch    loss  examples/s" + "".join(f"{name + ' %':>11}" for name in SHOWN.values() if validated)


def _epoch_line(epoch: Epoch) -> str:
    line = f"{epoch.number:>5}  {epoch.loss:.4f}  {epoch.examples_per_s:>10,.0f}"
    return line + "".join(f"{100 * epoch.metrics[name]:>11.2f}" for name in SHOWN if name in epoch.metrics)


def _data_fingerprint(directory: Path, sequences: Sequences) -> dict[str, Any]:
    return {
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in data_files(directory)},
        "users": len(sequences),
        "interactions": len(sequences.item_id),
    }


if __name__ == "__main__":
    run(app)

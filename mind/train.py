"""The command that trains: `python -m mind.train -m mind/config.yaml`."""

import hashlib
import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mind.artifact import check_writable, write_artifact
from mind.checkpoint import Checkpoint
from mind.command import ConfigFile, Overrides, run
from mind.config import Config, load_config
from mind.features import FeatureTable, read_features
from mind.paddlerec import data_files, read_eval, read_train
from mind.parallel import Ranks
from mind.sequences import EvalCases, Sequences
from mind.training import SELECTED_BY, Epoch, Trained, train

EPILOG = """Examples:

python -m mind.train -m mind/config.yaml -o runner.epochs=3 -o hyper_parameters.maxlen=50

python -m paddle.distributed.launch --nproc_per_node 2 mind/train.py -m mind/config.yaml"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False)


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
    runner, hyper = settings.runner, settings.hyper_parameters
    ranks = Ranks.join(runner.use_gpu)
    console.quiet = not ranks.leads
    check_writable(runner.model_save_path)
    sequences = read_train(runner.train_data_dir)
    valid = read_eval(runner.valid_data_dir) if runner.valid_data_dir else None
    features = read_features(runner.item_features_file, hyper.item_features) if runner.item_features_file else None
    console.print(
        f"{len(sequences):,} users, {len(sequences.item_id):,} interactions to train on; "
        + (f"{len(valid):,} users choose the best epoch by {SELECTED_BY}" if valid else "the last epoch is kept")
    )
    data = _data_fingerprint(settings, sequences)
    checkpoint = _checkpoint(settings, data, resume) if runner.checkpoint_interval_s else None
    console.print(_heading(valid is not None), style="bold")
    started = time.perf_counter()
    trained = _train(settings, sequences, valid, features, checkpoint, ranks)
    if not ranks.leads:
        return
    path = write_artifact(
        runner.model_save_path,
        hyper.model_copy(update={"item_count": len(trained.weights.item_id)}),
        trained.weights,
        data=data,
        metrics=_metrics(trained),
    )
    console.print(
        f"epoch {trained.best.number} kept after {time.perf_counter() - started:.0f} s; "
        f"model [bold]{path.name}[/] written to {path}",
        soft_wrap=True,
    )


def _train(
    settings: Config,
    sequences: Sequences,
    valid: EvalCases | None,
    features: FeatureTable | None,
    checkpoint: Checkpoint | None,
    ranks: Ranks,
) -> Trained:
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
            settings, sequences, valid, on_step, on_epoch, features=features, checkpoint=checkpoint, ranks=ranks
        )


RUN_KEYS_THAT_CHANGE_NOTHING = {
    "train_data_dir",
    "valid_data_dir",
    "test_data_dir",
    "item_features_file",
    "model_save_path",
    "print_interval",
    "checkpoint_interval_s",
}
"""Keys of `runner` that may differ between a killed run and the one that goes on from its checkpoint."""
SHOWN = {"recall@20": "R@20", "recall@50": "R@50", "ndcg@50": "NDCG@50", "hit_rate@50": "Hit@50"}
"""Validation metrics that are printed after every epoch, in per cent, and their headings."""


def _heading(validated: bool) -> str:
    return "epoch    loss  examples/s" + "".join(f"{name + ' %':>11}" for name in SHOWN.values() if validated)


def _epoch_line(epoch: Epoch) -> str:
    line = f"{epoch.number:>5}  {epoch.loss:.4f}  {epoch.examples_per_s:>10,.0f}"
    return line + "".join(f"{100 * epoch.metrics[name]:>11.2f}" for name in SHOWN if name in epoch.metrics)


def _data_fingerprint(settings: Config, sequences: Sequences) -> dict[str, Any]:
    """What the model was trained on: files by name with their sha256, users, interactions."""
    files = data_files(settings.runner.train_data_dir)
    if settings.runner.item_features_file:
        files.append(settings.runner.item_features_file)
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"files": digests, "users": len(sequences), "interactions": len(sequences.item_id)}


def _checkpoint(settings: Config, data: dict[str, Any], resume: bool) -> Checkpoint:
    """The checkpoint of this run: of the same settings and data, wherever they lie."""
    same = settings.model_dump(mode="json", exclude={"runner": RUN_KEYS_THAT_CHANGE_NOTHING})
    digest = hashlib.sha256(json.dumps([same, data], sort_keys=True).encode()).hexdigest()
    checkpoint = Checkpoint(settings.runner.model_save_path, digest[:12], resume)
    if resume and checkpoint.path.exists():
        console.print(f"going on from {checkpoint.path}; --no-resume starts anew", soft_wrap=True)
    return checkpoint


def _metrics(trained: Trained) -> dict[str, Any]:
    """What the manifest says about the training: the epoch that was kept, and the curves."""
    curves = [{"epoch": epoch.number, "loss": epoch.loss, "valid": epoch.metrics} for epoch in trained.epochs]
    best = trained.best
    return {"epoch": best.number, "loss": best.loss, "valid": best.metrics, "epochs": curves}


if __name__ == "__main__":
    run(app)

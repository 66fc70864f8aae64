"""The command that shows what each choice of the recipe is worth: `python -m mind.ablation -m mind/config.yaml`."""

import multiprocessing
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from mind.command import ConfigFile, Overrides, run
from mind.config import load_config
from mind.errors import ConfigError
from mind.evaluation import metrics

VARIANTS = {
    "the recipe": [],
    "one interest": ["hyper_parameters.num_interests=1"],
    "two interests": ["hyper_parameters.num_interests=2"],
    "no residual": ["hyper_parameters.residual=false"],
    "one residual for all interests": ["hyper_parameters.focus=false"],
    "label-aware readout": ["hyper_parameters.readout=label_aware"],
    "no dropout": ["hyper_parameters.dropout=0"],
    "no decay of the step size": ["hyper_parameters.optimizer.decay=none"],
    "item embeddings from random": ["hyper_parameters.item_init=random"],
    "bilinear map from N(0, 1)": ["hyper_parameters.bilinear_init=normal"],
    "no frequency correction": ["hyper_parameters.correct_frequency=false"],
    "targets from the fifth click on": ["hyper_parameters.min_history=4"],
    "batches of 128": ["runner.train_batch_size=128"],
    "routing softmax over the history": ["hyper_parameters.routing_softmax=history"],
    "a ReLU projection": ["hyper_parameters.projection=relu"],
}
"""Each choice of the recipe removed alone."""
app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


@app.command(epilog="Example: python -m mind.ablation -m mind/config.yaml --seeds 3 --jobs 2 --output ablation.md")
def main(
    config: ConfigFile,
    override: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every variant, with seeds 1, 2, ...")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one core each.")] = 2,
    output: Annotated[Path | None, typer.Option(help="Write the table here as Markdown.")] = None,
) -> None:
    """Train the recipe and every choice of it removed alone; validation metrics, mean and sample standard deviation.

    The best epoch of each run is chosen by the same validation users, so compare rows, not with test figures.
    """
    if load_config(config, override).runner.valid_data_dir is None:
        raise ConfigError("runner.valid_data_dir: an ablation needs validation data")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the runs share the cores
    runs = [
        (name, config, [*(override or []), *changes, f"runner.seed={seed}"])
        for seed in range(1, seeds + 1)
        for name, changes in VARIANTS.items()
    ]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:  # left early, it ends the runs in progress
        done = pool.imap_unordered(_validate, runs)
        for name, scores in track(done, "training", total=len(runs), console=console, transient=True):
            found[name].append(scores)
    table = _table(found)
    console.print(Markdown(table))
    if output:
        output.write_text(table, encoding="utf-8")


def _validate(run: tuple[str, Path, list[str]]) -> tuple[str, dict[str, float]]:
    """Name of a variant, and the metrics of the best epoch of one run of it; in a process of its own."""
    name, config, override = run
    from mind.train import read_inputs
    from mind.training.loop import train

    settings = load_config(config, override)
    inputs = read_inputs(settings)
    return name, train(settings, inputs.sequences, inputs.valid, features=inputs.features).best.metrics


def _table(found: dict[str, list[dict[str, float]]]) -> str:
    lines = ["| | " + " | ".join(map(metrics.title, metrics.SHOWN)) + " |", "|---" * (len(metrics.SHOWN) + 1) + "|"]
    for name, runs in found.items():
        cells = []
        for metric in metrics.SHOWN:
            values = 100 * np.array([scores[metric] for scores in runs])
            cells.append(f"{values.mean():.2f} ± {values.std(ddof=min(1, len(values) - 1)):.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(app)

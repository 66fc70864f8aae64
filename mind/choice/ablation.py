"""Measures the worth of each choice of the recipe by training without it, with several seeds.

Every run has its own process. This module knows nothing of the command line.
"""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mind.config import load_config
from mind.errors import ConfigError
from mind.evaluation import metrics

VARIANTS = {
    "the recipe": [],
    "one interest": ["hyper_parameters.num_interests=1"],
    "two interests": ["hyper_parameters.num_interests=2"],
    "no residual": ["hyper_parameters.residual=false"],
    "one residual for all interests": ["hyper_parameters.focus=false"],
    "interests that begin at random": ["hyper_parameters.routing_init=random"],
    "no interests joined": ["hyper_parameters.join_cosine=1"],
    "no weight on lengths": ["hyper_parameters.length_weight=0"],
    "a weight of 0.15 on lengths": ["hyper_parameters.length_weight=0.15"],
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
"""The overrides that remove each choice of the recipe, by the name of the variant."""

Scores = dict[str, float]
"""Validation metrics of the best epoch of a run, by name."""


def runs_of(seeds: int) -> int:
    """Return the number of runs that `validate_variants` makes."""
    return seeds * len(VARIANTS)


def validate_variants(config: Path, overrides: list[str], seeds: int, jobs: int) -> Iterator[tuple[str, Scores]]:
    """Train every variant with the seeds 1, 2, ..., and yield its name and scores as soon as a run is done.

    Args:
        config: the YAML file of the recipe.
        overrides: overrides of the configuration, applied to all variants.
        seeds: the number of runs of every variant.
        jobs: the number of runs at a time.

    Raises:
        ConfigError: the configuration is wrong, or names no validation data.
    """
    if load_config(config, overrides).runner.valid_data_dir is None:
        raise ConfigError("runner.valid_data_dir: an ablation needs validation data")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the runs share the cores
    runs = [
        (name, config, [*overrides, *changes, f"runner.seed={seed}"])
        for seed in range(1, seeds + 1)
        for name, changes in VARIANTS.items()
    ]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:  # if it is left early, it ends the runs in progress
        yield from pool.imap_unordered(_validate, runs)


def _validate(run: tuple[str, Path, list[str]]) -> tuple[str, Scores]:
    """Train one run of a variant in its own process. Return the name of the variant and its scores."""
    name, config, override = run
    from mind.training.inputs import read_inputs
    from mind.training.loop import train

    settings = load_config(config, override)
    inputs = read_inputs(settings)
    trained = train(
        settings,
        inputs.sequences,
        inputs.valid,
        features=inputs.features,
        ages=inputs.ages,
        exclude_history=inputs.exclude_history,
    )
    return name, trained.metrics


def table(found: dict[str, list[Scores]]) -> str:
    """Return a Markdown table of variants, with the mean and the sample standard deviation of each shown metric."""
    lines = ["| | " + " | ".join(map(metrics.title, metrics.SHOWN)) + " |", "|---" * (len(metrics.SHOWN) + 1) + "|"]
    for name, runs in found.items():
        cells = []
        for metric in metrics.SHOWN:
            values = 100 * np.array([scores[metric] for scores in runs])
            cells.append(f"{values.mean():.2f} ± {values.std(ddof=min(1, len(values) - 1)):.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"

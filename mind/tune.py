"""The command that searches for settings: `python -m mind.tune -m mind/config.yaml --trials 20 --space ...`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("train,cpu", "optuna", "paddle", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mind.choice.comparison import DEFAULT_METRIC, percent, plain
from mind.choice.search import Running, Search, open_search
from mind.choice.study import Outcome, Study, best_of
from mind.command import ConfigFile, DataDir, Overrides, Version, run
from mind.config import data_overrides
from mind.errors import ConfigError

TOP = 10
"""Maximum number of trials in the table at the end."""
EPILOG = """Example:

python -m mind.tune -m mind/config.yaml --trials 20 --space 'hyper_parameters.embedding_dim=[32, 64, 128]'
--space 'hyper_parameters.optimizer.learning_rate=0.001..0.02'"""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False, markup=False)


@app.command(epilog=EPILOG)
def main(
    config: ConfigFile,
    data: DataDir = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="Values to try: KEY=[a, b, c] or KEY=low..high. A range has whole numbers if both ends are whole, and "
            "is logarithmic if the ends are fractions 10 times apart. hidden_size follows embedding_dim. Repeatable.",
        ),
    ] = None,
    override: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="Total number of trials, including those of earlier runs.")] = 20,
    metric: Annotated[str, typer.Option(metavar="NAME", help="Validation metric to maximise.")] = DEFAULT_METRIC,
    study: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of the search. The default is study.jsonl next to the models."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of trials at a time, one core each if more than one.")] = 1,
    prune: Annotated[bool, typer.Option(help="Stop trials that are worse than the median at the same epoch.")] = True,
    version: Version = False,
) -> None:
    """Search for better settings. Each trial trains a model, and the validation users decide.

    The models are stored in trials/ under runner.model_save_path, where no build looks for the newest model. The test
    users are never read. The same command continues a search that was stopped or killed.
    """
    opened = open_search(config, data_overrides(data) + (override or []), space or [], metric, study, jobs, prune)
    found, file = opened.study, opened.file
    _say_resumed(found, file, trials)
    try:
        _run(opened.search, found, trials, jobs, metric)
    except KeyboardInterrupt as error:
        done = len(found.outcomes())
        console.print(f"stopped; {file} holds {done} of {trials} trials; the same command continues", soft_wrap=True)
        raise typer.Exit(130) from error
    finally:
        found.close()
    _report(found, opened.models, metric, opened.keys)


def _say_resumed(study: Study, file: Path, trials: int) -> None:
    done = study.outcomes()
    if not done and not study.interrupted:
        console.print(f"a new search of {trials} trials in {file}", soft_wrap=True)
        return
    line = f"continuing {file}: {len(done)} of {trials} trials are done"
    if best := best_of(done):
        line += f", the best #{best[0].number} with {percent(best[0].value)} %"
    if study.interrupted:
        line += f"; {study.interrupted} that did not end {'is' if study.interrupted == 1 else 'are'} run again"
    console.print(line, soft_wrap=True)


def _run(search: Search, study: Study, trials: int, jobs: int, metric: str) -> None:
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=trials, completed=len(study.outcomes()), now="starting")

        def on_epoch(_: Running) -> None:
            running = ", ".join(f"#{one.trial.number} epoch {one.epoch}" for one in search.running.values())
            best = best_of(study.outcomes())
            progress.update(task, now=running + (f"; best {percent(best[0].value)} %" if best else ""))

        def on_end(outcome: Outcome) -> None:
            console.print(_line(outcome, metric), soft_wrap=True)
            progress.update(task, completed=len(study.outcomes()))

        search.run(trials, jobs, on_epoch, on_end)


def _line(outcome: Outcome, metric: str) -> Text:
    """Return a line about the outcome of a trial."""
    settings = ", ".join(f"{_short(key)} {plain(value)}" for key, value in outcome.settings.items())
    if outcome.repeats is not None:
        how = Text(f"as #{outcome.repeats}", "dim")
    elif outcome.ended == "complete":
        how = Text.assemble((f"{metric} {percent(outcome.value)} %", "bold"), f", model {outcome.note}")
    else:
        how = Text(f"{outcome.ended}: {outcome.note}", "yellow" if outcome.ended == "failed" else "dim")
    return Text.assemble(f"#{outcome.number:<3} {settings}: ", how)


def _report(study: Study, models: Path, metric: str, keys: list[str]) -> None:
    outcomes = study.outcomes()
    best = best_of(outcomes)
    if not best:
        raise ConfigError(f"none of {len(outcomes)} trials gave a model; the last: {outcomes[-1].note}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("trial", f"{metric} %", *map(_short, keys), "model"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for one in best[:TOP]:
        settings = (plain(one.settings[key]) for key in keys)
        table.add_row(f"#{one.number}", percent(one.value), *settings, one.note)
    console.print()
    console.print(table)
    counts = [f"{len(best)} models"]
    for what in ("pruned", "failed"):
        if count := sum(one.ended == what and one.repeats is None for one in outcomes):
            counts.append(f"{count} {what}")
    if count := sum(one.repeats is not None for one in outcomes):
        counts.append(f"{count} repeated earlier ones")
    console.print(f"{len(outcomes)} trials: {', '.join(counts)}")
    if importance := study.importance():
        shares = ", ".join(f"{_short(key)} {share:.0%}" for key, share in importance.items())
        console.print(f"estimated importance: {shares}")
    console.print(f"best: {models / best[0].note}", soft_wrap=True)
    push = shlex.join([str(models / best[0].note), str(models.parent)])
    console.print(f"to serve it: python -m mind.models push {push}", soft_wrap=True)


def _short(key: str) -> str:
    return key.rsplit(".", 1)[-1]


if __name__ == "__main__":
    run(app)

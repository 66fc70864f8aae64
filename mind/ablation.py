"""The command that measures the worth of each choice of the recipe: `python -m mind.ablation -m mind/config.yaml`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from mind.choice.ablation import VARIANTS, Scores, runs_of, table, validate_variants
from mind.command import ConfigFile, DataDir, Overrides, Version, run
from mind.config import data_overrides

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console(highlight=False)


@app.command(epilog="Example: python -m mind.ablation -m mind/config.yaml --seeds 3 --jobs 2 --output ablation.md")
def main(
    config: ConfigFile,
    data: DataDir = None,
    override: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs per variant. Their seeds are 1, 2, ...")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at a time. Each takes one core.")] = 2,
    output: Annotated[Path | None, typer.Option(help="File to write the table to, as Markdown.")] = None,
    version: Version = False,
) -> None:
    """Train the recipe, and again without each of its choices. The table shows means and standard deviations.

    The metrics are those of the validation users, who also choose the best epoch of each run. Compare rows with each
    other, and not with metrics of test users.
    """
    found: dict[str, list[Scores]] = {name: [] for name in VARIANTS}
    done = validate_variants(config, data_overrides(data) + (override or []), seeds, jobs)
    for name, scores in track(done, "training", total=runs_of(seeds), console=console, transient=True):
        found[name].append(scores)
    text = table(found)
    console.print(Markdown(text))
    if output:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(app)

"""The command that imports a PaddleRec model: `python -m mind.import_paddlerec output_model_mind/5/rec.pdparams`."""

import sys
from pathlib import Path
from typing import Annotated

from mind.extras import missing

if line := missing("train,cpu", "paddle", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import typer
from rich.console import Console
from rich.table import Table

from mind.command import Version, run
from mind.config import HyperParameters
from mind.paddlerec.checkpoint import Checkpoint
from mind.paddlerec.convert import OPTIONS, import_checkpoint

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False, markup=False)

EPILOG = """Examples:

python -m mind.import_paddlerec output_model_mind/5/rec.pdparams --train-data datasets/AmazonBook/train

python -m mind.import_paddlerec rec.pdparams -o routing_softmax=interests -o routing_iterations=2"""


@app.command(epilog=EPILOG)
def main(
    checkpoint: Annotated[Path, typer.Argument(help="The .pdparams file that PaddleRec's trainer wrote.")],
    output: Annotated[Path, typer.Option(help="Directory that receives the artifact.")] = Path("artifacts"),
    override: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--override",
            metavar="KEY=VALUE",
            help=f"Setting that the weights do not show: {', '.join(OPTIONS)}. Repeatable.",
        ),
    ] = None,
    item_ids: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet file with the columns row and item_id (integers or text). You need it if items were "
            "renumbered before training. Without it, row i of the table is item i, as in PaddleRec."
        ),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="File or directory of PaddleRec's training lines. It tells how popular each item is."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="Layer of a changed network to ignore. It must not affect the interest vectors."
        ),
    ] = None,
    version: Version = False,
) -> None:
    """Turn a PaddleRec MIND checkpoint into an artifact that gives the same interest vectors.

    The command reads the checkpoint as arrays and runs nothing in it. It refuses any other content and prints its name.
    """
    made = import_checkpoint(checkpoint, output, override or [], item_ids, train_data, ignore)
    console.print(_summary(made.checkpoint, made.hyper_parameters))
    if not train_data:
        console.print(
            "a checkpoint has no popularity: all items count 0, so the order of the popular fallback has no meaning; "
            "--train-data counts it",
            soft_wrap=True,
        )
    console.print(f"model {made.path.name} written to {made.path}", soft_wrap=True)


def _summary(checkpoint: Checkpoint, hyper: HyperParameters) -> Table:
    table = Table(show_header=False)
    table.add_row("network", "PaddleRec's later one" if checkpoint.projection is None else "PaddleRec's first one")
    table.add_row("items", f"{checkpoint.items:,}")
    for name in ("embedding_dim", "num_interests", "maxlen", "projection", *OPTIONS):
        table.add_row(name, f"{getattr(hyper, name)}")
    if checkpoint.ignored:
        table.add_row("ignored", ", ".join(checkpoint.ignored))
    return table


if __name__ == "__main__":
    run(app)

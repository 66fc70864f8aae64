"""The command that takes over a PaddleRec model: `python -m mind.import_paddlerec output_model_mind/5/rec.pdparams`."""

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
            help=f"What the weights do not show: {', '.join(OPTIONS)}. Repeatable.",
        ),
    ] = None,
    item_ids: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet with the columns row and item_id (integers or text), where items were numbered anew "
            "before training; "
            "otherwise row i of the table is item i, as PaddleRec has it."
        ),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="PaddleRec's training lines, a file or a directory, which tell how popular each item is."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="A layer of a changed network that its interest vectors do not depend on."),
    ] = None,
    version: Version = False,
) -> None:
    """Turn a PaddleRec MIND checkpoint into an artifact that gives the same interest vectors.

    Nothing in the checkpoint is run: it is read as arrays, and refused by name if it holds anything else.
    """
    made = import_checkpoint(checkpoint, output, override or [], item_ids, train_data, ignore)
    console.print(_summary(made.checkpoint, made.hyper_parameters))
    if not train_data:
        console.print(
            "popularity is not in a checkpoint: all items count 0, so the order of the popular fallback means nothing; "
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
        table.add_row("left out", ", ".join(checkpoint.ignored))
    return table


if __name__ == "__main__":
    run(app)

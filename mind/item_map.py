"""The command that draws a model's items on a plane: `python -m mind.item_map --artifact DIR --output map.json`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mind.artifact import load_artifact, newest_artifact
from mind.command import Version, run
from mind.plane import item_map

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(epilog="Example: python -m mind.item_map --artifact artifacts --output map.json")
def main(
    artifact: Annotated[Path, typer.Option(help="Directory of a model, or of models. The newest one is used.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="JSON file to write.")],
    items: Annotated[int, typer.Option(min=2, help="Maximum number of items, the most popular ones.")] = 5_000,
    version: Version = False,
) -> None:
    """Draw a model's items on a plane, for the explorer page of the HTTP gateway."""
    model = load_artifact(newest_artifact(artifact))
    drawn = item_map(model, items)
    output.write_text(json.dumps(drawn, separators=(",", ":")), encoding="utf-8")
    typer.echo(
        f"{len(drawn['item_ids']):,} items of {model.model_version} "
        f"on a plane with {drawn['explained']:.0%} of their variance, written to {output}"
    )


if __name__ == "__main__":
    run(app)

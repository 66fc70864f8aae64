"""`python -m mind.item_map`: the items of a model as points on a plane, for the explorer page.

The map is linear (principal components), so that whoever has an interest vector can put it on the map too.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from mind.artifact import Artifact, Float32, load_artifact, newest_artifact
from mind.command import run

GRID = 4096
"""Coordinates of items are whole numbers below this."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(epilog="Example: python -m mind.item_map --artifact artifacts --output map.json")
def main(
    artifact: Annotated[Path, typer.Option(help="Model directory, or a directory of models: the newest then.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="JSON file to write.")],
    items: Annotated[int, typer.Option(min=2, help="Items on the map, the most popular ones.")] = 5_000,
) -> None:
    """Draw a model's items on a plane, for the explorer page of the HTTP gateway."""
    model = load_artifact(newest_artifact(artifact))
    drawn = item_map(model, items)
    output.write_text(json.dumps(drawn, separators=(",", ":")), encoding="utf-8")
    typer.echo(
        f"{len(drawn['item_ids']):,} items of {model.model_version}, "
        f"{drawn['explained']:.0%} of what tells them apart, written to {output}"
    )


def item_map(artifact: Artifact, items: int) -> dict[str, Any]:
    """The most popular items on the plane that tells them apart best.

    Directions alone count, for items and interests: `xy = (v / |v| - mean) @ axes`, then `(xy - low) * scale` is on
    the grid.

    Returns:
        model_version; grid; item_ids, strings, most popular first; x and y, whole numbers from 0 to grid - 1;
        mean [D], axes [D][2], low [2] and scale, which put further vectors on the map; explained, the share of the
        items' variance that the plane shows.
    """
    weights = artifact.weights
    chosen = np.argsort(-weights.popularity, kind="stable")[:items]
    directions = _unit(weights.item_embedding[chosen + 1])
    mean = directions.mean(axis=0)
    variances, components = np.linalg.eigh(np.cov(directions - mean, rowvar=False))  # ascending
    axes = components[:, [-1, -2]]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # or the same model could give mirrored maps
    points = (directions - mean) @ axes
    low = points.min(axis=0)
    scale = (GRID - 1) / max(float((points - low).max()), 1e-9)
    grid = np.rint((points - low) * scale).astype(int)
    return {
        "model_version": artifact.model_version,
        "grid": GRID,
        "item_ids": [str(item_id) for item_id in weights.item_id[chosen].tolist()],
        "x": grid[:, 0].tolist(),
        "y": grid[:, 1].tolist(),
        "mean": _rounded(mean),
        "axes": _rounded(axes),
        "low": _rounded(low),
        "scale": scale,
        "explained": round(float(variances[-2:].sum() / max(variances.sum(), 1e-9)), 4),
    }


def _unit(vectors: Float32) -> npt.NDArray[np.float64]:
    """[N, D] rows of length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = vectors / np.maximum(lengths, 1e-12).astype(np.float64)
    return unit


def _rounded(values: npt.NDArray[np.float64]) -> Any:
    return np.round(values, 6).tolist()


if __name__ == "__main__":
    run(app)

"""Places the items of a model on a plane, for the explorer page.

The map is linear (principal components), so an interest vector can be placed on the map too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from mind.artifact import Artifact, Float32

GRID = 4096
"""Number of grid points of an axis. The coordinates of items are integers below this number."""


def item_map(artifact: Artifact, items: int) -> dict[str, Any]:
    """Place the most popular items on the plane that shows most of their variance.

    Only directions count, for items and interests: `xy = (v / |v| - mean) @ axes`, and `(xy - low) * scale` is on the
    grid.

    Returns:
        model_version; grid; item_ids, the text ids or else the integers as strings, most popular first; x and y,
        integers from 0 to grid - 1; mean [D], axes [D][2], low [2] and scale, which place further vectors on the map;
        explained, the share of the items' variance that the plane shows.
    """
    weights = artifact.weights
    chosen = np.argsort(-weights.popularity, kind="stable")[:items]
    directions = _unit(weights.item_embedding[chosen + 1])
    mean = directions.mean(axis=0)
    variances, components = np.linalg.eigh(np.cov(directions - mean, rowvar=False))  # ascending
    axes = components[:, [-1, -2]]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # otherwise the same model could give mirrored maps
    points = (directions - mean) @ axes
    low = points.min(axis=0)
    scale = (GRID - 1) / max(float((points - low).max()), 1e-9)
    grid = np.rint((points - low) * scale).astype(int)
    return {
        "model_version": artifact.model_version,
        "grid": GRID,
        "item_ids": weights.keys.at(chosen) if weights.keys else list(map(str, weights.item_id[chosen].tolist())),
        "x": grid[:, 0].tolist(),
        "y": grid[:, 1].tolist(),
        "mean": _rounded(mean),
        "axes": _rounded(axes),
        "low": _rounded(low),
        "scale": scale,
        "explained": round(float(variances[-2:].sum() / max(variances.sum(), 1e-9)), 4),
    }


def _unit(vectors: Float32) -> npt.NDArray[np.float64]:
    """Scale the rows of [N, D] to length 1. Rows of zeros stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = vectors / np.maximum(lengths, 1e-12).astype(np.float64)
    return unit


def _rounded(values: npt.NDArray[np.float64]) -> Any:
    return np.round(values, 6).tolist()

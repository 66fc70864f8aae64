"""Finds the parameters of PaddleRec's MIND networks by name in a checkpoint, and checks them.

This module knows nothing of our hyper-parameters or artifacts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mind.artifact import Float32
from mind.errors import DataError
from mind.paddlerec.pdparams import Array

NAMES = {
    "item_emb": ("item_emb.weight", "item_emb"),
    "embedding_bias": ("embedding_bias",),
    "routing_logits": ("routing_logits",),
    "bilinear_mapping_matrix": ("bilinear_mapping_matrix",),
    "relu_layer.weight": ("relu_layer.weight", "linear_0.w_0"),
    "relu_layer.bias": ("relu_layer.bias", "linear_0.b_0"),
}
"""Parameters of PaddleRec's network: names in checkpoints of its dygraph trainer, then of its static trainer."""
REQUIRED = ("item_emb", "routing_logits", "bilinear_mapping_matrix")
TRAINING_ONLY = ("sampled_softmax",)
"""Layers that interest vectors do not depend on."""


@dataclass(frozen=True)
class Checkpoint:
    """The parameters of a PaddleRec network, checked, in the shapes of our network."""

    item_embedding: Float32
    """[N + 1, D] float32; row 0 is padding and zero."""
    routing_logits: Float32
    """[K, L] float32: the logits at which routing starts."""
    bilinear: Float32
    """[D, D] float32: the map from items to interests."""
    projection: Float32 | None
    """[D + 1, D] float32: the linear layer before the ReLU, its bias last; None for PaddleRec's later network."""
    ignored: tuple[str, ...]
    """Parameters that were left out because interest vectors do not depend on them."""

    @property
    def items(self) -> int:
        """Return the number of items (N)."""
        return len(self.item_embedding) - 1


def read_checkpoint(path: Path, arrays: dict[str, Array], ignore: list[str]) -> Checkpoint:
    """Find and check PaddleRec's parameters among the arrays of a checkpoint.

    Raises:
        DataError: a parameter is missing, has a wrong shape or is not finite; there are other parameters that interest
            vectors may depend on; or the padding row or the embedding bias is not zero, which our network cannot
            represent.
    """
    named, ignored = _match(path, arrays, ignore)
    layer = ("relu_layer.weight", "relu_layer.bias") if any(name.startswith("relu_layer") for name in named) else ()
    if missing := [name for name in (*REQUIRED, *layer) if name not in named]:
        raise DataError(f"{path}: not PaddleRec's MIND: misses {', '.join(missing)}; it has {', '.join(arrays)}")
    values = {name: _float32(path, name, array) for name, array in named.items()}
    _check_shapes(path, values)
    _check_zeros(path, values)
    projection = None
    if "relu_layer.weight" in values:
        projection = np.vstack([values["relu_layer.weight"], values["relu_layer.bias"]])
    return Checkpoint(
        item_embedding=values["item_emb"],
        routing_logits=values["routing_logits"][0],
        bilinear=values["bilinear_mapping_matrix"],
        projection=projection,
        ignored=tuple(ignored),
    )


def _match(path: Path, arrays: dict[str, Array], ignore: list[str]) -> tuple[dict[str, Array], list[str]]:
    """Match arrays to the keys of `NAMES`, with any prefix that ends in a dot. Also return the ignored names."""
    named: dict[str, Array] = {}
    ignored, unknown = [], []
    for name, array in arrays.items():
        dotted = f".{name}"
        key = next((key for key, ends in NAMES.items() if dotted.endswith(tuple(f".{end}" for end in ends))), None)
        if any(f".{layer}." in f"{dotted}." for layer in (*TRAINING_ONLY, *ignore)):
            ignored.append(name)
        elif key is None:
            unknown.append(name)
        elif key in named:
            raise DataError(f"{path}: has {key} more than once, such as {name}; --ignore leaves a layer out")
        else:
            named[key] = array
    if unknown:
        raise DataError(
            f"{path}: has parameters that PaddleRec's MIND has not, so its interest vectors may be others: "
            f"{', '.join(unknown)}; --ignore LAYER for those that they do not depend on"
        )
    return named, ignored


def _float32(path: Path, name: str, array: Array) -> Float32:
    if array.dtype.kind != "f":
        bfloat16 = ", which is how Paddle saves bfloat16" if array.dtype == np.uint16 else ""
        raise DataError(f"{path}: {name} is {array.dtype}{bfloat16}; save it as float32")
    with np.errstate(over="ignore"):  # a float64 that is too large becomes infinite, which is refused
        values: Float32 = array.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: {name} has NaN or infinite values")
    return values


def _check_shapes(path: Path, values: dict[str, Float32]) -> None:
    bilinear, table, logits = (values[name] for name in ("bilinear_mapping_matrix", "item_emb", "routing_logits"))
    dim = bilinear.shape[0] if bilinear.ndim else 0
    if bilinear.ndim == 2 and bilinear.shape[1] != dim:
        raise DataError(
            f"{path}: embedding_dim is {dim} and hidden_size {bilinear.shape[1]}: items and interests are compared by "
            "inner product and need the same length"
        )
    rows = len(table) if table.ndim else 0
    expected = {
        "bilinear_mapping_matrix": (dim, dim),
        "item_emb": (max(rows, 2), dim),
        "routing_logits": (1, *logits.shape[-2:]) if logits.ndim > 1 else (1, "max_k", "maxlen"),
        "embedding_bias": (rows,),
        "relu_layer.weight": (dim, dim),
        "relu_layer.bias": (dim,),
    }
    for name, shape in expected.items():
        if name in values and values[name].shape != shape:
            wanted = ", ".join(map(str, shape))
            raise DataError(f"{path}: {name} has the shape {list(values[name].shape)}, expected [{wanted}]")


def _check_zeros(path: Path, values: dict[str, Float32]) -> None:
    if not values["item_emb"].any():
        raise DataError(f"{path}: item_emb is zero, the network was never trained")
    norm = float(np.linalg.norm(values["item_emb"][0]))
    if norm:
        raise DataError(
            f"{path}: row 0 of item_emb has the length {norm:.3g}; it is padding and must be zero (padding_idx=0), or "
            "padding has a part in every interest vector"
        )
    bias = values.get("embedding_bias")
    if bias is not None and bias.any():
        row = int(np.flatnonzero(bias)[0])
        raise DataError(
            f"{path}: embedding_bias is {bias[row]:.3g} for item {row}; PaddleRec keeps it at zero, search by inner "
            "product has no place for it"
        )

"""The command that takes over a PaddleRec model: `python -m mind.import_paddlerec output_model_mind/5/rec.pdparams`.

PaddleRec's choices are options of our network, so its weights give its interest vectors. Which options are chosen is
read off the weights where they show it; `OPTIONS` are the rest.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from mind.extras import missing

if line := missing("train,cpu", "paddle", "pyarrow", "safetensors", "typer"):
    sys.exit(line)

import numpy as np
import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from mind.artifact import Artifact, Float32, Weights, check_writable, write_artifact
from mind.command import run
from mind.config import HyperParameters, explain
from mind.data.columns import read_columns, strict_ids
from mind.data.paddlerec import read_train
from mind.data.pdparams import Array, read_pdparams
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ConfigError, DataError
from mind.sequences import Int64

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
console = Console(highlight=False, markup=False)

EPILOG = """Examples:

python -m mind.import_paddlerec output_model_mind/5/rec.pdparams --train-data datasets/AmazonBook/train

python -m mind.import_paddlerec rec.pdparams -o routing_softmax=interests -o routing_iterations=2"""

GOLDEN_HISTORIES = 32
OPTIONS = ("routing_softmax", "bounded_update", "routing_iterations", "pow_p")
"""Hyper-parameters that the weights do not show."""
EARLIER = {"projection": "relu", "routing_softmax": "history_then_interests", "bounded_update": False}
"""PaddleRec's first network: a ReLU projection, and the last softmax over the interests."""
LATER = {"projection": "none", "routing_softmax": "history", "bounded_update": True}
"""PaddleRec's later network: every softmax over the history, a bounded update, no projection."""
THEIRS = {"residual": False, "dropout": 0.0, "item_init": "random", "bilinear_init": "normal", "readout": "label_aware"}
"""What both have in common."""

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
    """PaddleRec's parameters in our shapes, checked."""

    item_embedding: Float32
    """[N + 1, D] float32; row 0 is padding and zero."""
    routing_logits: Float32
    """[K, L] float32."""
    bilinear: Float32
    """[D, D] float32."""
    projection: Float32 | None
    """[D + 1, D] float32, the bias last."""
    ignored: tuple[str, ...]
    """Parameters that interest vectors do not depend on."""

    @property
    def items(self) -> int:
        """N."""
        return len(self.item_embedding) - 1


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
            help="CSV or Parquet with the columns row and item_id, where items were numbered anew before training; "
            "otherwise row i of the table is item i, as PaddleRec has it."
        ),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(help="PaddleRec's training lines, a file or directory: counts how popular each item is."),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="A layer of a changed network that its interest vectors do not depend on."),
    ] = None,
) -> None:
    """Turn a PaddleRec MIND checkpoint into an artifact that gives the same interest vectors.

    Nothing in the checkpoint is run: it is read as arrays, and refused by name if it holds anything else.
    """
    check_writable(output)
    arrays, digest = read_pdparams(checkpoint)
    found = read_checkpoint(checkpoint, arrays, ignore or [])
    hyper = hyper_parameters(found, override or [])
    rows, item_id = read_item_ids(item_ids, found.items) if item_ids else (np.arange(1, found.items + 1),) * 2
    popularity = count_popularity(train_data, found.items) if train_data else np.zeros(found.items, np.int64)
    weights = make_weights(found, hyper, rows, item_id, popularity)
    data = {"imported_from": checkpoint.name, "sha256": digest}
    path = write_artifact(output, hyper, weights, data=data, metrics={})
    console.print(_summary(found, hyper))
    if not train_data:
        console.print(
            "popularity is not in a checkpoint: all items count 0, so the order of the popular fallback means nothing; "
            "--train-data counts it",
            soft_wrap=True,
        )
    console.print(f"model {path.name} written to {path}", soft_wrap=True)


def read_checkpoint(path: Path, arrays: dict[str, Array], ignore: list[str]) -> Checkpoint:
    """PaddleRec's parameters among the arrays of a checkpoint.

    Raises:
        DataError: one is missing, has a wrong shape or is not finite; there are others that interest vectors may
            depend on; or the padding row or the embedding bias is not zero, for which our network has no place.
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


def hyper_parameters(checkpoint: Checkpoint, overrides: list[str]) -> HyperParameters:
    """Sizes as the weights have them, PaddleRec's choices, and what the user says about the rest.

    Args:
        checkpoint: the weights.
        overrides: `key=value`, the key being one of `OPTIONS`, with or without `hyper_parameters.` before it.

    Raises:
        ConfigError: a key is another, or a value or size breaks a limit.
    """
    interests, maxlen = checkpoint.routing_logits.shape
    dim = len(checkpoint.bilinear)
    keys: dict[str, Any] = THEIRS | (LATER if checkpoint.projection is None else EARLIER)
    keys |= {"item_count": checkpoint.items, "embedding_dim": dim, "hidden_size": dim}
    keys |= {"num_interests": interests, "maxlen": maxlen}
    for override in overrides:
        key, _, text = override.partition("=")
        key = key.removeprefix("hyper_parameters.")
        if key not in OPTIONS or not text:
            raise ConfigError(f"override {override!r}: expected KEY=VALUE with a key of {', '.join(OPTIONS)}")
        try:
            keys[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from error
    try:
        return HyperParameters.model_validate(keys)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def read_item_ids(path: Path, items: int) -> tuple[Int64, Int64]:
    """External ids of the rows 1 to N, in ascending order of the ids.

    Returns:
        rows: [N] int64, each of 1 to N once.
        item_id: [N] int64, strictly ascending.

    Raises:
        DataError: a value is no integer, a row is outside 1 to N, or rows and ids are not one to one.
    """
    found = read_columns(path, ("row", "item_id"))
    rows, item_id = (strict_ids(path, found, name, unique=True) for name in ("row", "item_id"))
    outside = rows[(rows < 1) | (rows > items)]
    if len(outside):
        raise DataError(f"{path}: row {outside[0]} is outside 1 to {items}, the rows of the checkpoint; 0 is padding")
    if len(rows) < items:
        lacking = np.setdiff1d(np.arange(1, items + 1), rows)
        raise DataError(f"{path}: {len(lacking)} of {items} rows have no item_id, row {lacking[0]} for one")
    order = np.argsort(item_id)
    return rows[order], item_id[order]


def count_popularity(path: Path, items: int) -> Int64:
    """How often each row occurs in training lines, whose ids are rows: [N] int64.

    Raises:
        DataError: an id is outside the rows 1 to N, so the checkpoint was trained on other data.
    """
    rows = read_train(path).item_id
    outside = rows[(rows < 1) | (rows > items)]
    if len(outside):
        raise DataError(f"{path}: item {outside[0]} is outside 1 to {items}, the rows of the checkpoint: other data")
    return np.bincount(rows - 1, minlength=items)


def make_weights(
    checkpoint: Checkpoint, hyper: HyperParameters, rows: Int64, item_id: Int64, popularity: Int64
) -> Weights:
    """Weights, with golden histories on which both encoders agree.

    Args:
        checkpoint: PaddleRec's parameters.
        hyper: fitting them.
        rows, item_id: as `read_item_ids` gives them.
        popularity: [N] int64 of the rows 1 to N.

    Raises:
        ArtifactError: the NumPy encoder gives other vectors than Paddle.
    """
    from mind.paddle_encoder import PaddleEncoder  # takes seconds, which a refused checkpoint need not wait for

    table = checkpoint.item_embedding[np.append(0, rows)]
    hist_index, seq_len = _histories(table, hyper.maxlen)
    weights = Weights(
        item_id=item_id,
        item_embedding=table,
        popularity=popularity[rows - 1],
        bilinear=checkpoint.bilinear,
        routing_logits=checkpoint.routing_logits,
        recency_logits=np.zeros(hyper.maxlen, np.float32),
        focus=np.zeros(1, np.float32),
        golden_hist_index=hist_index,
        golden_seq_len=seq_len,
        golden_interest_vectors=np.zeros((0, hyper.num_interests, hyper.embedding_dim), np.float32),
        projection=checkpoint.projection,
    )
    vectors = PaddleEncoder.from_artifact(Artifact("", hyper, weights)).encode(hist_index, seq_len)
    weights = replace(weights, golden_interest_vectors=vectors)
    check_golden(NumpyEncoder(weights, hyper), Artifact("just imported", hyper, weights))
    return weights


def _match(path: Path, arrays: dict[str, Array], ignore: list[str]) -> tuple[dict[str, Array], list[str]]:
    """Arrays by our key of `NAMES`, and the names of those left out; whatever wraps the network stands before a dot."""
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
            raise DataError(f"{path}: has {key} more than once, {name} for one; --ignore leaves a layer out")
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


def _histories(table: Float32, maxlen: int) -> tuple[Int64, Int64]:
    """Seeded histories of rows that are not zero, of all lengths: [G, L] and [G] int64."""
    rng = np.random.default_rng(0)
    seq_len = np.linspace(1, maxlen, GOLDEN_HISTORIES).round().astype(np.int64)
    hist_index = rng.choice(np.flatnonzero(table.any(axis=1)), (len(seq_len), maxlen))
    return hist_index * (np.arange(maxlen) < seq_len[:, None]), seq_len


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

"""Converts PaddleRec's parameters to an artifact that gives the same interest vectors.

PaddleRec's choices are options of our network. Most choices of a checkpoint can be read from its weights. `OPTIONS` are
the others.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from mind.artifact import Artifact, Float32, check_writable, write_artifact
from mind.config import HyperParameters, explain
from mind.data.ids import IdKind, strict_ids
from mind.data.paddlerec import read_train
from mind.data.tables import read_columns
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ConfigError, DataError
from mind.keys import Keys
from mind.paddlerec.checkpoint import Checkpoint, read_checkpoint
from mind.paddlerec.pdparams import read_pdparams
from mind.sequences import Int64
from mind.weights import Weights

GOLDEN_HISTORIES = 32
OPTIONS = ("routing_softmax", "bounded_update", "routing_iterations", "pow_p")
"""Hyper-parameters that cannot be read from the weights."""
EARLIER = {"projection": "relu", "routing_softmax": "history_then_interests", "bounded_update": False}
"""The options of PaddleRec's first network: a ReLU projection, and the last softmax over the interests."""
LATER = {"projection": "none", "routing_softmax": "history", "bounded_update": True}
"""The options of PaddleRec's later network: every softmax over the history, a bounded update, no projection."""
THEIRS = {
    "residual": False,
    "dropout": 0.0,
    "item_init": "random",
    "bilinear_init": "normal",
    "routing_init": "random",
    "readout": "label_aware",
}
"""The options that both networks have in common."""


@dataclass(frozen=True)
class Imported:
    """An artifact that was made from a checkpoint."""

    path: Path
    """Directory of the artifact."""
    checkpoint: Checkpoint
    """The parameters that the artifact was made from."""
    hyper_parameters: HyperParameters
    """The hyper-parameters with which our network equals PaddleRec's."""


def import_checkpoint(
    file: Path,
    output: Path,
    overrides: list[str],
    item_ids: Path | None = None,
    train_data: Path | None = None,
    ignore: list[str] | None = None,
) -> Imported:
    """Write an artifact that gives the interest vectors of a PaddleRec checkpoint.

    Args:
        file: the .pdparams file.
        output: directory that receives the artifact.
        overrides: overrides as for `hyper_parameters`.
        item_ids: the file of external ids, as for `read_item_ids`; None if row i of the item table is item i.
        train_data: training lines that give the popularity of each item; None counts 0 for every item.
        ignore: layers of a changed network that its interest vectors do not depend on.

    Raises:
        ArtifactError: the artifact cannot be written, or our encoders disagree about it.
        ConfigError: an override is not a hyper-parameter or breaks a limit.
        DataError: a file cannot be used, or the checkpoint is not PaddleRec's MIND.
    """
    check_writable(output)
    arrays, digest = read_pdparams(file)
    found = read_checkpoint(file, arrays, ignore or [])
    hyper = hyper_parameters(found, overrides)
    row = np.arange(1, found.items + 1)
    rows, item_id, keys = read_item_ids(item_ids, found.items) if item_ids else (row, row, None)
    popularity = count_popularity(train_data, found.items) if train_data else np.zeros(found.items, np.int64)
    weights = make_weights(found, hyper, rows, item_id, popularity)
    if keys:
        weights = replace(weights, item_key_offsets=keys.offsets, item_key_text=keys.text)
    data = {"imported_from": file.name, "sha256": digest}
    return Imported(write_artifact(output, hyper, weights, data=data, metrics={}), found, hyper)


def hyper_parameters(checkpoint: Checkpoint, overrides: list[str]) -> HyperParameters:
    """Find the hyper-parameters: sizes from the weights, PaddleRec's choices, and overrides for the rest.

    Args:
        checkpoint: the weights.
        overrides: texts `key=value`. The key is one of `OPTIONS`, with or without `hyper_parameters.` before it.

    Raises:
        ConfigError: a key is not in `OPTIONS`, or a value or size breaks a limit.
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


def read_item_ids(path: Path, items: int) -> tuple[Int64, Int64, Keys | None]:
    """Read the external ids of the rows 1 to N, in ascending order of the ids. They are integers or text.

    Returns:
        rows: [N] int64, each of 1 to N once.
        item_id: [N] int64, strictly ascending.
        keys: the text ids of the items; None if ids are integers.

    Raises:
        DataError: a value is not an id, a row is outside 1 to N, or rows and ids do not correspond one to one.
    """
    found = read_columns(path, ("row", "item_id"))
    rows = strict_ids(path, found, "row", unique=True).values
    ids = strict_ids(path, found, "item_id", unique=True, kind=IdKind.AUTO)
    outside = rows[(rows < 1) | (rows > items)]
    if len(outside):
        raise DataError(f"{path}: row {outside[0]} is outside 1 to {items}, the rows of the checkpoint; 0 is padding")
    if len(rows) < items:
        lacking = np.setdiff1d(np.arange(1, items + 1), rows)
        raise DataError(f"{path}: {len(lacking)} of {items} rows have no item_id, such as row {lacking[0]}")
    order = np.argsort(ids.values)
    item_id = ids.values[order]
    return rows[order], item_id, ids.keys.of(item_id) if ids.keys else None


def count_popularity(path: Path, items: int) -> Int64:
    """Count how often each row occurs in training lines whose ids are rows: [N] int64.

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
    """Make the weights of an artifact, with golden histories on which both encoders agree.

    Args:
        checkpoint: PaddleRec's parameters.
        hyper: the hyper-parameters for these parameters.
        rows, item_id: as from `read_item_ids`.
        popularity: [N] int64, the popularity of the rows 1 to N.

    Raises:
        ArtifactError: the NumPy encoder and Paddle give different vectors.
    """
    from mind.paddle_encoder import PaddleEncoder  # the import takes seconds, and a refused checkpoint does not need it

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


def _histories(table: Float32, maxlen: int) -> tuple[Int64, Int64]:
    """Draw golden histories of all lengths, with items whose rows are not zero: [G, L] and [G] int64."""
    rng = np.random.default_rng(0)
    seq_len = np.linspace(1, maxlen, GOLDEN_HISTORIES).round().astype(np.int64)
    hist_index = rng.choice(np.flatnonzero(table.any(axis=1)), (len(seq_len), maxlen))
    return hist_index * (np.arange(maxlen) < seq_len[:, None]), seq_len

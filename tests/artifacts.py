"""Small seeded models for tests that need an artifact and not its training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mind.artifact import write_artifact
from mind.config import HyperParameters
from mind.encoder import NumpyEncoder
from mind.keys import Keys, key_ids
from mind.weights import Weights


def make_weights(items: int = 200, dim: int = 16, interests: int = 4, maxlen: int = 8, seed: int = 0) -> Weights:
    """Random weights over the item ids 1000, 1007, 1014, ...; earlier ids are more popular."""
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(items + 1, dim)).astype(np.float32)
    embedding[0] = 0
    seq_len = np.arange(1, 9).clip(max=maxlen)
    hist_index = rng.integers(1, items + 1, (8, maxlen)) * (np.arange(maxlen) < seq_len[:, None])
    weights = Weights(
        item_id=np.arange(items) * 7 + 1000,
        item_embedding=embedding,
        popularity=np.arange(items, 0, -1),
        bilinear=(np.eye(dim) + rng.normal(size=(dim, dim)) * 0.1).astype(np.float32),
        routing_logits=rng.normal(size=(interests, maxlen)).astype(np.float32),
        recency_logits=-0.3 * np.arange(maxlen, dtype=np.float32),
        focus=np.array([0.7], np.float32),
        golden_hist_index=hist_index,
        golden_seq_len=seq_len,
        golden_interest_vectors=np.zeros((8, interests, dim), np.float32),
    )
    vectors = NumpyEncoder(weights, hyper_parameters_of(weights)).encode(hist_index, seq_len)
    weights.golden_interest_vectors[:] = vectors
    return weights


def hyper_parameters_of(weights: Weights, **changes: Any) -> HyperParameters:
    """Hyper-parameters that fit the weights."""
    interests, maxlen = weights.routing_logits.shape
    dim = len(weights.bilinear)
    sizes = {"embedding_dim": dim, "hidden_size": dim, "num_interests": interests, "maxlen": maxlen}
    return HyperParameters(item_count=len(weights.item_id), **sizes, **changes)


def with_keys(weights: Weights, names: Sequence[str] = ()) -> Weights:
    """The same weights over items that have text ids: these names, or else KIT-0, KIT-1, KIT-2, ..."""
    names = names or [f"KIT-{item}" for item in range(len(weights.item_id))]
    item_id = key_ids(names)
    order = np.argsort(item_id)
    keys = Keys.of([names[item] for item in order.tolist()])
    return replace(weights, item_id=item_id[order], item_key_offsets=keys.offsets, item_key_text=keys.text)


def with_neighbours(weights: Weights, bonus: float = 1, each: int = 12, seed: int = 0) -> Weights:
    """The same weights with so many random neighbours of each item; later items of the table have none."""
    rng = np.random.default_rng(seed)
    items = len(weights.item_id)
    row = np.stack([rng.permutation(items)[:each] + 1 for _ in range(items)])
    row = np.where(np.arange(1, items + 1)[:, None] < 0.9 * items, row, 0).astype(np.int32)
    lengths = np.count_nonzero(row, axis=1)
    weight = -np.sort(-rng.uniform(0.01, 1, row.shape), axis=1).astype(np.float16)
    return replace(
        weights,
        neighbour_offsets=np.concatenate([[0, 0], np.cumsum(lengths)]),
        neighbour_row=row[row > 0],
        neighbour_weight=weight[row > 0],
        neighbour_bonus=np.array([bonus], np.float32),
    )


def write_keyed(directory: Path, names: Sequence[str]) -> Path:
    """Write a random model over items with these text ids; as `make_artifact`."""
    weights = with_keys(make_weights(items=len(names)), names)
    return write_artifact(directory, hyper_parameters_of(weights), weights, {}, {})


def make_artifact(directory: Path, data: dict[str, Any] | None = None, keyed: bool = False, **shape: int) -> Path:
    """Write a random model under `directory`; returns the directory of the artifact itself.

    `keyed`: whether its items have text ids.
    """
    weights = make_weights(**shape)
    weights = with_keys(weights) if keyed else weights
    return write_artifact(directory, hyper_parameters_of(weights), weights, data or {}, {})

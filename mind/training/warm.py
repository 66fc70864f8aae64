"""A warm start: training begins with the weights of an earlier model instead of random ones.

Items that the earlier model does not know begin near the items that users clicked with them, in its space. This module
knows nothing of Paddle or of the command line.
"""

from dataclasses import dataclass

import numpy as np

from mind.artifact import Artifact, Float32
from mind.config import HyperParameters, flatten
from mind.fresh_items import count_neighbours, from_neighbours
from mind.sequences import Int64, Sequences
from mind.vocabulary import Vocabulary
from mind.weights import Weights

_FREE = (
    "optimizer.",
    "item_count",
    "neg_samples",
    "correct_frequency",
    "min_history",
    "dropout",
    "item_init",
    "join_cosine",
    "length_weight",
    "bilin",
    "half_life_days",
    "trending_days",
)
"""Prefixes of the hyper-parameters that may differ. They say how weights are learnt, not what they mean."""


@dataclass(frozen=True)
class Start:
    """The weights that a network begins with."""

    weights: Weights
    """The weights of the earlier model."""
    item_embedding: Float32
    """[N + 1, D] float32, for the items of the new model; zero for items about which nothing is known."""


def why_not(model: Artifact, hyper: HyperParameters, item_id: Int64, text_ids: bool) -> str:
    """Return why training cannot begin with the weights of a model, as part of a sentence; empty if it can.

    Args:
        model: the earlier model.
        hyper: the settings of the new model.
        item_id: the items that the new model learns from.
        text_ids: whether these items have text ids.
    """
    if (model.weights.keys is not None) != text_ids:
        own, other = ("text ids", "integers") if text_ids else ("integers", "text ids")
        return f"items are named by {own} in the data, by {other} in the model"
    if hyper.item_features or model.hyper_parameters.item_features:
        return "item_features is set, and a model does not keep the vectors of single features"
    mine, theirs = (flatten(one.model_dump(mode="json", by_alias=True)) for one in (hyper, model.hyper_parameters))
    for name, value in mine.items():
        if not name.startswith(_FREE) and theirs.get(name) != value:
            return f"hyper_parameters.{name} is {value}, the model has {theirs.get(name)}"
    if not known_items(model, item_id):
        return "the model knows none of the items in the data"
    return ""


def known_items(model: Artifact, item_id: Int64) -> int:
    """Count the items in the data that a model knows."""
    return int((model.vocabulary.item_index(item_id) > 0).sum())


def start_from(model: Artifact, vocabulary: Vocabulary, sequences: Sequences) -> Start:
    """Return the weights to begin with.

    Args:
        model: the earlier model; `why_not` found nothing against it.
        vocabulary: the items of the new model.
        sequences: the training users, which tell the neighbours of new items.
    """
    table = np.zeros((len(vocabulary) + 1, model.hyper_parameters.embedding_dim), np.float32)
    rows = model.vocabulary.item_index(vocabulary.item_id)
    table[1:] = model.weights.item_embedding[rows]
    for item, neighbours in count_neighbours(sequences, model.vocabulary):
        vector = from_neighbours(neighbours, model.vocabulary, model.weights.item_embedding)
        if vector is not None:
            table[vocabulary.item_index(np.array([item]))] = vector
    return Start(model.weights, table)

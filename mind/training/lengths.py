"""Chooses how much the lengths of embeddings weigh in the loss, if no setting tells it.

With few clicks per user, training is over after one or two epochs, and then overfits the training users. Shorter
embeddings prevent that. With long histories the same weight costs accuracy. This module knows nothing of Paddle.
"""

import numpy as np

from mind.config import Config
from mind.sequences import Sequences

SHORT_HISTORIES = 12
"""If the median training user has fewer clicks than this, lengths get a weight."""
LENGTH_WEIGHT = 0.15
"""The weight that they get."""


def with_length_weight(settings: Config, sequences: Sequences) -> Config:
    """Return the settings with a number for hyper_parameters.length_weight: the given one, or one for the data."""
    if settings.hyper_parameters.length_weight is not None:
        return settings
    weight = LENGTH_WEIGHT if np.median(sequences.lengths) < SHORT_HISTORIES else 0.0
    hyper = settings.hyper_parameters.model_copy(update={"length_weight": weight})
    return settings.model_copy(update={"hyper_parameters": hyper})

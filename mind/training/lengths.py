"""How much the lengths of embeddings weigh in the loss, where no setting says so.

With few clicks a user, training is over after one or two epochs and then learns the training users by heart; shorter
embeddings keep it from that. With long histories the same weight costs accuracy. Knows nothing of Paddle.
"""

import numpy as np

from mind.config import Config
from mind.sequences import Sequences

SHORT_HISTORIES = 12
"""Clicks of the median training user below which lengths weigh something."""
LENGTH_WEIGHT = 0.15
"""What they weigh then."""


def with_length_weight(settings: Config, sequences: Sequences) -> Config:
    """The settings with a number for hyper_parameters.length_weight: the one given, or what the data suggest."""
    if settings.hyper_parameters.length_weight is not None:
        return settings
    weight = LENGTH_WEIGHT if np.median(sequences.lengths) < SHORT_HISTORIES else 0.0
    hyper = settings.hyper_parameters.model_copy(update={"length_weight": weight})
    return settings.model_copy(update={"hyper_parameters": hyper})

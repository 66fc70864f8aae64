"""Turns histories into interest vectors without Paddle, for CPU servers.

`NumpyEncoder` computes the same as `mind.network.MIND.interest_vectors`. Both are checked against the golden vectors of
the artifact. The other implementations of `Encoder` are `mind.cupy_encoder`, which computes the same on a GPU, and
`mind.paddle_encoder`, the network itself.
"""

from typing import Protocol

import numpy as np

from mind.artifact import Artifact, Float32
from mind.config import HyperParameters
from mind.errors import ArtifactError
from mind.joining import joined, joined_by
from mind.routing import Routing
from mind.sequences import Int64
from mind.weights import Weights

GOLDEN_TOLERANCE = 1e-4
"""Largest error of an interest vector against the golden one, relative to the longest of the same history."""


class Encoder(Protocol):
    """Turns histories into interest vectors. Only implementations that encode `inline` must be thread-safe."""

    name: str
    """The name that the server shows for the encoder."""
    inline: bool
    """Whether small batches are encoded so fast that handing them to a thread would cost more."""

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Encode a batch of histories.

        Args:
            hist_index: [B, L] int64 rows of the item table, oldest first, 0-padded on the right; L <= maxlen.
            seq_len: [B] int64; rows at and after it are padding.

        Returns:
            [B, K, D] float32: the interests that differ, then zeros. A history without items has only zeros.
        """
        ...


class NumpyEncoder:
    """Routing in NumPy; every matrix product releases the GIL."""

    name = "numpy"
    inline = True

    def __init__(self, weights: Weights, hyper_parameters: HyperParameters) -> None:
        """Keep the weights as they are. A projected item table would take as much memory again in each process."""
        self._item_embedding, self._bilinear = weights.item_embedding, weights.bilinear
        self._routing = Routing(np, weights, hyper_parameters)
        self._joins_from = weights.joins_from

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Encode as `Encoder.encode` describes."""
        behaviour = self._item_embedding[hist_index] @ self._bilinear  # [B, L, D]
        return joined(self._routing.interest_vectors(behaviour, seq_len), self._joins_from)

    def click_weights(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Return how much each item of a history makes each interest: shares of 1, [B, K, L] float32; 0 for padding.

        The arguments are those of `Encoder.encode`.
        """
        behaviour = self._item_embedding[hist_index] @ self._bilinear
        vectors = self._routing.interest_vectors(behaviour, seq_len)
        weights = joined_by(vectors, self._joins_from, self._routing.click_weights(behaviour, seq_len))
        shares: Float32 = weights / np.maximum(weights.sum(axis=2, keepdims=True), 1e-30)
        return shares


def check_golden(encoder: Encoder, artifact: Artifact) -> None:
    """Refuse an encoder that does not reproduce the vectors that the trained network gave.

    Raises:
        ArtifactError: the relative error of some vector is `GOLDEN_TOLERANCE` or more.
    """
    weights = artifact.weights
    found = encoder.encode(weights.golden_hist_index, weights.golden_seq_len)
    expected = weights.golden_interest_vectors
    length = np.linalg.norm(expected, axis=-1).max(axis=1, keepdims=True)  # [G, 1]; a ReLU may make one very short
    error = float(np.max(np.linalg.norm(found - expected, axis=-1) / np.maximum(length, 1e-12)))
    if not error < GOLDEN_TOLERANCE:
        raise ArtifactError(
            f"model {artifact.model_version}: the {encoder.name} encoder is off by a relative {error:.1e} on the "
            f"golden histories, the limit is {GOLDEN_TOLERANCE:.0e}"
        )

"""Histories to interest vectors without Paddle: what a CPU server runs.

`NumpyEncoder` computes what `mind.network.MIND.interest_vectors` computes; both are held to the golden vectors of the
artifact. `mind.paddle_encoder` is the other implementation of `Encoder`, the network itself.
"""

from typing import Protocol

import numpy as np

from mind.artifact import Artifact, Float32, Weights
from mind.config import HyperParameters
from mind.errors import ArtifactError
from mind.sequences import Int64

GOLDEN_TOLERANCE = 1e-4
"""Largest error of an interest vector against the golden one, relative to the longest of the same history."""


class Encoder(Protocol):
    """Turns histories into interest vectors. Only implementations that encode `inline` must be thread-safe."""

    name: str
    """The name that the server shows for the encoder."""
    inline: bool
    """Whether small batches are encoded so fast that handing them to a thread would cost more."""

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Encode a batch.

        Args:
            hist_index: [B, L] int64 rows of the item table, oldest first, 0-padded on the right; L <= maxlen.
            seq_len: [B] int64; rows at and after it are padding.

        Returns:
            [B, K, D] float32. A history without items gives zeros.
        """
        ...


class NumpyEncoder:
    """Dynamic routing (arXiv 1904.08030, algorithm 1) in NumPy; releases the GIL in every matrix product."""

    name = "numpy"
    inline = True

    def __init__(self, weights: Weights, hyper_parameters: HyperParameters) -> None:
        """Keep the weights as they are: a projected item table would be as large again, and every process's own."""
        self._item_embedding = weights.item_embedding
        self._bilinear = weights.bilinear
        self._routing_logits = weights.routing_logits
        self._recency_logits = weights.recency_logits if hyper_parameters.residual else None
        self._focus = weights.focus
        self._projection = weights.projection
        self._bounded = hyper_parameters.bounded_update
        rounds = hyper_parameters.routing_iterations
        over = hyper_parameters.routing_softmax
        first = "interests" if over == "interests" else "history"
        last = "history" if over == "history" else "interests"
        self._couplings = [_COUPLINGS[first]] * (rounds - 1) + [_COUPLINGS[last]]

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """See `Encoder.encode`. A softmax over the interests needs no mask: the row of padding is zero."""
        length = hist_index.shape[1]
        behaviour = self._item_embedding[hist_index] @ self._bilinear  # [B, L, D]
        transposed = behaviour.transpose(0, 2, 1)
        logits: Float32 = self._routing_logits[None, :, :length]  # [1, K, L]
        capsule = squash(self._couplings[0](logits, seq_len) @ behaviour)  # [B, K, D]
        for coupling in self._couplings[1:]:
            agreement = capsule @ transposed  # [B, K, L]
            if self._bounded:
                agreement = agreement / np.maximum(np.linalg.norm(agreement, axis=2, keepdims=True), 1)
            logits = logits + agreement
            capsule = squash(coupling(logits, seq_len) @ behaviour)
        if self._recency_logits is not None:
            age = np.maximum(seq_len[:, None] - 1 - np.arange(length), 0)  # [B, L], 0 is the newest
            own = self._focus * _log_softmax_over_interests(logits)  # [B, K, L]
            weight = _softmax_over_history(self._recency_logits[age][:, None] + own, seq_len)
            capsule = capsule + weight @ behaviour
        if self._projection is not None:
            capsule = np.maximum(capsule @ self._projection[:-1] + self._projection[-1], 0)
        return capsule


def squash(capsule: Float32) -> Float32:
    """Shrink vectors to a length below 1, keeping their direction (arXiv 1904.08030, equation 4).

    |s|^2 / (1 + |s|^2) * s / |s|, written as s * |s| / (1 + |s|^2), which needs no guard against zero.
    """
    square = np.einsum("...d,...d->...", capsule, capsule)[..., None]
    short: Float32 = capsule * (np.sqrt(square) / (1 + square))
    return short


def check_golden(encoder: Encoder, artifact: Artifact) -> None:
    """Refuse an encoder that does not reproduce the vectors the trained network gave.

    Raises:
        ArtifactError: the relative error of some vector is `GOLDEN_TOLERANCE` or more.
    """
    weights = artifact.weights
    found = encoder.encode(weights.golden_hist_index, weights.golden_seq_len)
    expected = weights.golden_interest_vectors
    length = np.linalg.norm(expected, axis=-1).max(axis=1, keepdims=True)  # [G, 1]; a ReLU may leave one very short
    error = float(np.max(np.linalg.norm(found - expected, axis=-1) / np.maximum(length, 1e-12)))
    if not error < GOLDEN_TOLERANCE:
        raise ArtifactError(
            f"model {artifact.model_version}: the {encoder.name} encoder is off by a relative {error:.1e} on the "
            f"golden histories, the limit is {GOLDEN_TOLERANCE:.0e}"
        )


def _softmax_over_interests(logits: Float32, seq_len: Int64) -> Float32:
    weight: Float32 = np.exp(logits - logits.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    return weight


def _log_softmax_over_interests(logits: Float32) -> Float32:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_weight: Float32 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_weight


def _softmax_over_history(logits: Float32, seq_len: Int64) -> Float32:
    valid = np.arange(logits.shape[2]) < seq_len[:, None, None]
    logits = np.where(valid, logits, np.float32(-1e30))
    weight: Float32 = np.exp(logits - logits.max(axis=2, keepdims=True)) * valid
    weight /= np.maximum(weight.sum(axis=2, keepdims=True), 1e-30)
    return weight


_COUPLINGS = {"interests": _softmax_over_interests, "history": _softmax_over_history}

"""Histories to interest vectors with the Paddle network itself, on CPU or GPU."""

import numpy as np

from mind.artifact import Artifact, Float32
from mind.network import MIND
from mind.paddle_runtime import paddle
from mind.sequences import Int64


class PaddleEncoder:
    """`mind.encoder.Encoder` around a `MIND` network. Not thread-safe: give it one thread of its own."""

    name = "paddle"
    inline = False

    def __init__(self, network: MIND) -> None:
        """Encode with a network that may still be training: weights are read at every call."""
        self._network = network

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> "PaddleEncoder":
        """The network with an artifact's weights, on Paddle's current device."""
        weights = artifact.weights
        network = MIND(len(weights.item_id), artifact.hyper_parameters, weights.routing_logits)
        network.items.embedding.weight.set_value(weights.item_embedding)
        network.bilinear.set_value(weights.bilinear)
        network.recency_logits.set_value(weights.recency_logits)
        network.focus.set_value(weights.focus)
        if network.projection is not None and weights.projection is not None:
            network.projection.weight.set_value(weights.projection[:-1])
            network.projection.bias.set_value(weights.projection[-1])
        network.eval()
        return cls(network)

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """See `mind.encoder.Encoder.encode`.

        Raises:
            ValueError: a row is outside the item table; on a GPU that would kill the process instead.
        """
        rows = self._network.items.embedding.weight.shape[0]
        if hist_index.size and not (hist_index.min() >= 0 and hist_index.max() < rows):
            raise ValueError(
                f"hist_index has rows {hist_index.min()} to {hist_index.max()}, the table has 0 to {rows - 1}"
            )
        with paddle.no_grad():
            vectors = self._network.interest_vectors(paddle.to_tensor(hist_index), paddle.to_tensor(seq_len))
        return np.asarray(vectors.numpy(), dtype=np.float32)

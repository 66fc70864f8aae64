"""Histories to interest vectors with the Paddle network itself, on CPU or GPU."""

import numpy as np

from mind.artifact import Artifact, Float32
from mind.errors import ConfigError
from mind.network import MIND
from mind.paddle_runtime import has_gpu, paddle
from mind.sequences import Int64

GPU_BATCH_SIZES = (1, 8, 64, 256)
"""The batch sizes for which a GPU is warmed up."""


class PaddleEncoder:
    """`mind.encoder.Encoder` around a `MIND` network. Not thread-safe: give it one thread of its own."""

    name = "paddle"
    inline = False

    def __init__(self, network: MIND, batch_sizes: tuple[int, ...] = ()) -> None:
        """Take a network that may still be training: its weights are read at every call.

        `batch_sizes`: ascending; batches are padded to one of them, or cut into the largest. A GPU sets itself up for
        every new shape, which takes longer than the work. Empty leaves batches as they are.
        """
        self._network = network
        self._batch_sizes = batch_sizes

    @classmethod
    def from_artifact(cls, artifact: Artifact, device: str = "cpu") -> "PaddleEncoder":
        """Make an encoder of an artifact's weights on a device, warmed up.

        Args:
            artifact: the model.
            device: cpu, gpu, or auto for a GPU where there is one.

        Raises:
            ConfigError: a GPU is asked for and there is none.
        """
        check_device(device)
        on_gpu = device != "cpu" and has_gpu()
        paddle.set_device("gpu" if on_gpu else "cpu")
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
        encoder = cls(network, GPU_BATCH_SIZES if on_gpu else ())
        for size in encoder._batch_sizes:
            encoder.encode(np.ones((size, artifact.hyper_parameters.maxlen), np.int64), np.ones(size, np.int64))
        return encoder

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
        if not self._batch_sizes or not len(hist_index):
            return self._encode(hist_index, seq_len)
        largest = self._batch_sizes[-1]
        parts = [slice(start, start + largest) for start in range(0, len(hist_index), largest)]
        return np.concatenate([self._encode_padded(hist_index[part], seq_len[part]) for part in parts])

    def _encode_padded(self, hist_index: Int64, seq_len: Int64) -> Float32:
        users = len(hist_index)
        size = next(size for size in self._batch_sizes if size >= users)
        padding = size - users
        return self._encode(np.pad(hist_index, ((0, padding), (0, 0))), np.pad(seq_len, (0, padding)))[:users]

    def _encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        with paddle.no_grad():
            vectors = self._network.interest_vectors(paddle.to_tensor(hist_index), paddle.to_tensor(seq_len))
        return np.asarray(vectors.numpy(), dtype=np.float32)


def check_device(device: str) -> None:
    """Refuse to go on if a GPU is asked for and there is none. Raises ConfigError."""
    if device == "gpu" and not has_gpu():
        raise ConfigError("device is gpu, but this Paddle has no GPU: install paddlepaddle-gpu, or say cpu or auto")

"""Encodes histories with the Paddle network itself, on CPU or GPU."""

import numpy as np

from mind.artifact import Artifact, Float32
from mind.errors import ConfigError
from mind.gpu_batches import GPU_BATCH_SIZES, check_rows, encode_padded, warm_up
from mind.joining import joined
from mind.network import MIND
from mind.paddle_runtime import has_gpu, paddle
from mind.sequences import Int64


class PaddleEncoder:
    """An `mind.encoder.Encoder` with a `MIND` network. It is not thread-safe: all calls must come from one thread."""

    name = "paddle"
    inline = False

    def __init__(self, network: MIND, batch_sizes: tuple[int, ...] = (), joins_from: float = 1.0) -> None:
        """Use a network that may still be training, because its weights are read at every call.

        `batch_sizes`: sizes in ascending order. Batches are padded to one of them, or cut into pieces of the largest. A
        GPU prepares for every new shape, which takes longer than the encoding. Empty leaves batches as they are.
        `joins_from`: the cosine from which interests of a user are joined.
        """
        self._network = network
        self._joins_from = joins_from
        self.batch_sizes = batch_sizes

    @classmethod
    def from_artifact(
        cls, artifact: Artifact, device: str = "cpu", batch_sizes: tuple[int, ...] = GPU_BATCH_SIZES
    ) -> "PaddleEncoder":
        """Make an encoder with the weights of an artifact on a device, and warm it up.

        Args:
            artifact: the model.
            device: cpu, gpu, or auto, which uses a GPU if there is one.
            batch_sizes: the batch sizes for a GPU. A CPU takes batches as they are.

        Raises:
            ConfigError: `device` is gpu, and there is no GPU.
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
        encoder = cls(network, batch_sizes if on_gpu else (), weights.joins_from)
        warm_up(encoder.encode, encoder.batch_sizes, artifact.hyper_parameters.maxlen)
        return encoder

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Encode histories as `mind.encoder.Encoder.encode` does.

        Raises:
            ValueError: a row is outside the item table. A GPU would end the process instead.
        """
        check_rows(hist_index, self._network.items.embedding.weight.shape[0])
        if not self.batch_sizes or not len(hist_index):
            return self._encode(hist_index, seq_len)
        return encode_padded(self._encode, self.batch_sizes, hist_index, seq_len)

    def _encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        with paddle.no_grad():
            vectors = self._network.interest_vectors(paddle.to_tensor(hist_index), paddle.to_tensor(seq_len))
        return joined(np.asarray(vectors.numpy(), dtype=np.float32), self._joins_from)


def check_device(device: str) -> None:
    """Raise ConfigError if the device is gpu and there is no GPU."""
    if device == "gpu" and not has_gpu():
        raise ConfigError("device is gpu, but this Paddle has no GPU: install paddlepaddle-gpu, or say cpu or auto")

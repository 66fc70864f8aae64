"""Encodes histories on an NVIDIA GPU with CuPy. The routing is that of the NumPy encoder."""

import cupy
import numpy as np

from mind.artifact import Float32
from mind.config import HyperParameters
from mind.errors import ConfigError
from mind.gpu_batches import GPU_BATCH_SIZES, check_rows, encode_padded, warm_up
from mind.joining import joined
from mind.routing import Array, Routing
from mind.sequences import Int64
from mind.weights import Weights

_PROJECTED_ROWS = 1_000_000
"""Number of rows of the item table that are copied and projected at once: 256 MB at 64 numbers, beside the table."""


class CupyEncoder:
    """Routing in CuPy, with the item table on the GPU. All calls must come from one thread."""

    name = "cupy"
    inline = False

    def __init__(
        self, weights: Weights, hyper_parameters: HyperParameters, batch_sizes: tuple[int, ...] = GPU_BATCH_SIZES
    ) -> None:
        """Copy the projected item table to the GPU, and warm the GPU up.

        Args:
            weights: the weights of the model.
            hyper_parameters: the hyper-parameters of the model.
            batch_sizes: sizes in ascending order. Batches are padded to one of them, or cut into pieces of the largest.

        Raises:
            ConfigError: there is no GPU.
        """
        check_gpu()
        self._rows, self._maxlen, self._batch_sizes = len(weights.item_embedding), hyper_parameters.maxlen, batch_sizes
        self._nothing = np.zeros((0, hyper_parameters.num_interests, hyper_parameters.embedding_dim), np.float32)
        self._behaviour = _projected(weights)
        self._routing = Routing(cupy, weights, hyper_parameters)
        self._joins_from = weights.joins_from
        warm_up(self.encode, batch_sizes, hyper_parameters.maxlen)

    def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        """Encode histories as `mind.encoder.Encoder.encode` does.

        All are padded to `maxlen`, so that one shape is enough.

        Raises:
            ValueError: a row is outside the item table. A GPU would silently read another row.
        """
        check_rows(hist_index, self._rows)
        if not len(hist_index):
            return self._nothing
        hist_index = np.pad(hist_index, ((0, 0), (0, self._maxlen - hist_index.shape[1])))
        return encode_padded(self._encode, self._batch_sizes, hist_index, seq_len)

    def _encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
        behaviour = self._behaviour[cupy.asarray(hist_index)]
        vectors = self._routing.interest_vectors(behaviour, cupy.asarray(seq_len))
        return joined(np.asarray(cupy.asnumpy(vectors), np.float32), self._joins_from)


def check_gpu() -> None:
    """Raise ConfigError with the message of CUDA if there is no GPU."""
    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ConfigError(f"encoder is cupy, but CuPy finds no GPU: {error}; take the encoder numpy") from error
    if not found:
        raise ConfigError("encoder is cupy, but CuPy finds no GPU; take the encoder numpy")


def _projected(weights: Weights) -> Array:
    """Return the item table times the bilinear map, [N + 1, D] float32 on the GPU.

    It is computed in parts to save memory.
    """
    table = cupy.empty(weights.item_embedding.shape, cupy.float32)
    bilinear = cupy.asarray(weights.bilinear)
    for start in range(0, len(table), _PROJECTED_ROWS):
        part = slice(start, start + _PROJECTED_ROWS)
        table[part] = cupy.asarray(weights.item_embedding[part]) @ bilinear
    return table

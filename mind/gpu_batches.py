"""What a GPU may be given: rows of the item table alone, and batches of a few sizes. Knows no GPU library."""

from collections.abc import Callable

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64

GPU_BATCH_SIZES = (1, 8, 64, 256)
"""The batch sizes for which a GPU is warmed up."""

_Encode = Callable[[Int64, Int64], Float32]


def check_rows(hist_index: Int64, rows: int) -> None:
    """Refuse rows outside an item table of that many rows: a GPU would die of them, or read other rows.

    Raises:
        ValueError: the rows that were found, and those that there are.
    """
    if hist_index.size and not (hist_index.min() >= 0 and hist_index.max() < rows):
        raise ValueError(f"hist_index has rows {hist_index.min()} to {hist_index.max()}, the table has 0 to {rows - 1}")


def encode_padded(encode: _Encode, sizes: tuple[int, ...], hist_index: Int64, seq_len: Int64) -> Float32:
    """Encode a batch as batches of the given sizes, because a GPU sets itself up for every new shape.

    Args:
        encode: what encodes a batch of one of the sizes.
        sizes: ascending; what is larger than the last is cut into several.
        hist_index: [B, L] int64 as for `mind.encoder.Encoder.encode`, B > 0.
        seq_len: [B] int64.

    Returns:
        [B, K, D] float32.
    """
    starts = range(0, len(hist_index), sizes[-1])
    parts = [slice(start, start + sizes[-1]) for start in starts]
    return np.concatenate([_padded(encode, sizes, hist_index[part], seq_len[part]) for part in parts])


def warm_up(encode: _Encode, sizes: tuple[int, ...], maxlen: int) -> None:
    """Encode one batch of each size, so that no request waits for a GPU to set itself up."""
    for size in sizes:
        encode(np.ones((size, maxlen), np.int64), np.ones(size, np.int64))


def _padded(encode: _Encode, sizes: tuple[int, ...], hist_index: Int64, seq_len: Int64) -> Float32:
    users = len(hist_index)
    padding = next(size for size in sizes if size >= users) - users
    return encode(np.pad(hist_index, ((0, padding), (0, 0))), np.pad(seq_len, (0, padding)))[:users]

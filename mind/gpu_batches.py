"""Prepares batches for a GPU: checks the rows of the item table, and pads batches to a few sizes.

Imports no GPU library.
"""

from collections.abc import Callable

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64

GPU_BATCH_SIZES = (1, 8, 64, 256)
"""The batch sizes for which a GPU is warmed up."""

_Encode = Callable[[Int64, Int64], Float32]


def check_rows(hist_index: Int64, rows: int) -> None:
    """Raise ValueError for rows outside an item table, because a GPU would fail or read other rows.

    Raises:
        ValueError: a row is outside the table. The message has the rows that were found and the limits.
    """
    if hist_index.size and not (hist_index.min() >= 0 and hist_index.max() < rows):
        raise ValueError(f"hist_index has rows {hist_index.min()} to {hist_index.max()}, the table has 0 to {rows - 1}")


def encode_padded(encode: _Encode, sizes: tuple[int, ...], hist_index: Int64, seq_len: Int64) -> Float32:
    """Encode a batch as batches of the given sizes, because a GPU needs time to prepare for every new shape.

    Args:
        encode: a function that encodes a batch of one of the sizes.
        sizes: the sizes, ascending. A batch larger than the last is cut into several.
        hist_index: [B, L] int64, as in `mind.encoder.Encoder.encode`, B > 0.
        seq_len: [B] int64.

    Returns:
        [B, K, D] float32.
    """
    starts = range(0, len(hist_index), sizes[-1])
    parts = [slice(start, start + sizes[-1]) for start in starts]
    return np.concatenate([_padded(encode, sizes, hist_index[part], seq_len[part]) for part in parts])


def warm_up(encode: _Encode, sizes: tuple[int, ...], maxlen: int) -> None:
    """Encode one batch of each size, so that no request waits while a GPU prepares for a shape."""
    for size in sizes:
        encode(np.ones((size, maxlen), np.int64), np.ones(size, np.int64))


def _padded(encode: _Encode, sizes: tuple[int, ...], hist_index: Int64, seq_len: Int64) -> Float32:
    users = len(hist_index)
    padding = next(size for size in sizes if size >= users) - users
    return encode(np.pad(hist_index, ((0, padding), (0, 0))), np.pad(seq_len, (0, padding)))[:users]

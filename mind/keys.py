"""Text ids of items and users ("keys"), and the integers for them.

Inside, everything works with 64-bit integers. The id of a key is made from its SHA-256, so it is the same in every
model, in every file and on every machine. An artifact whose items have text ids contains the keys. Text ids in requests
become integers, and integers in answers become text ids.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mind.errors import ArtifactError
from mind.sequences import Int64

MAX_KEY_BYTES = 256
"""Maximum length of a key in bytes of UTF-8."""
_HASH_BYTES = 8
_SAMPLED = 1_000
_BLOCK_BYTES = 1 << 24


def key_ids(keys: Iterable[str]) -> Int64:
    """Return the ids of keys: [n] int64, 0 to 2^63 - 1.

    An id is the first 8 bytes of the SHA-256 of the key in UTF-8, big-endian, without the highest bit. Among n keys,
    two have the same id with a probability of about n^2 / 2^64: 1 in 1,800 for 100 million keys.
    """
    digests = [hashlib.sha256(key.encode()).digest()[:_HASH_BYTES] for key in keys]
    return (np.frombuffer(b"".join(digests), ">u8") & np.uint64(2**63 - 1)).astype(np.int64)


@dataclass(frozen=True)
class Keys:
    """The keys of N items. There is no Python object for each key, and the arrays may be mapped from a file."""

    offsets: Int64
    """[N + 1] int64: the position at which each key starts in `text`."""
    text: npt.NDArray[np.uint8]
    """The keys in UTF-8, one after the other."""

    @classmethod
    def of(cls, keys: Sequence[str]) -> "Keys":
        """Make the keys object of a list of keys, in the same order."""
        encoded = [key.encode() for key in keys]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(offsets, np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        """Return the number of keys (N)."""
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Return the length of the longest key in bytes."""
        starts = range(0, len(self), _BLOCK_BYTES)  # in blocks, because they may be mapped from a file
        return max(int(np.diff(self.offsets[start : start + _BLOCK_BYTES + 1]).max()) for start in starts)

    def at(self, positions: Int64) -> list[str]:
        """Return the keys at some positions, 0 to N - 1."""
        starts, ends = self.offsets[positions], self.offsets[positions + 1]
        self.text.take(ends - 1)  # reads them from memory together; the loop would wait for each
        text = self.text.data
        return [str(text[start:end], "utf-8") for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def check(self, item_id: Int64) -> None:
        """Check that these are the keys of the items with these ids. Hashes are compared for a sample.

        Raises:
            ArtifactError: the keys do not fit the ids.
        """
        offsets, text = self.offsets, self.text
        if len(self) != len(item_id) or offsets[0] != 0 or offsets[-1] != len(text):
            raise ArtifactError(f"item_key_offsets has {len(offsets)} values that do not fit {len(item_id)} items")
        lengths = np.diff(offsets)
        if lengths.min() < 1 or lengths.max() > MAX_KEY_BYTES:
            raise ArtifactError(f"item keys have 1 to {MAX_KEY_BYTES} bytes, found {lengths.min()} to {lengths.max()}")
        starts = offsets[:-1]
        for begin in range(0, len(starts), _BLOCK_BYTES // MAX_KEY_BYTES):
            end = min(begin + _BLOCK_BYTES // MAX_KEY_BYTES, len(starts))
            if (text[starts[begin:end]] & 0xC0 == 0x80).any() or not _is_utf8(text[offsets[begin] : offsets[end]]):
                raise ArtifactError("item_key_text is not UTF-8")
        sample = np.linspace(0, len(item_id) - 1, min(_SAMPLED, len(item_id))).astype(np.int64)
        wrong = np.flatnonzero(key_ids(self.at(sample)) != item_id[sample])
        if len(wrong):
            found = self.at(sample[wrong[:1]])[0]
            raise ArtifactError(f"item id {item_id[sample[wrong[0]]]} is not that of its key {found!r}")


def _is_utf8(text: npt.NDArray[np.uint8]) -> bool:
    try:
        str(np.ascontiguousarray(text).data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True

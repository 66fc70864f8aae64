"""Text ids and the integers that stand for them."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from mind.errors import ArtifactError
from mind.keys import MAX_KEY_BYTES, Keys, key_ids

KEYS = ["KIT-1424", "0042", "42", "B00005N7P0", "ключ", "a b,c\n", "x" * MAX_KEY_BYTES]


def test_the_id_of_a_key_is_what_every_language_can_compute() -> None:
    """Pinned, because ids of one night must be those of the next, on every machine."""
    assert key_ids(["KIT-1424", ""]).tolist() == [
        int.from_bytes(hashlib.sha256(b"KIT-1424").digest()[:8]) % 2**63,
        0xE3B0C44298FC1C14 % 2**63,
    ]
    assert key_ids(KEYS).dtype == np.int64
    assert (key_ids(KEYS) >= 0).all()
    assert len(set(key_ids(KEYS).tolist())) == len(KEYS)
    assert key_ids([]).shape == (0,)


def test_keys_are_found_by_position() -> None:
    keys = Keys.of(KEYS)
    assert len(keys) == len(KEYS)
    assert keys.at(np.array([2, 0, 6, 2])) == [KEYS[2], KEYS[0], KEYS[6], KEYS[2]]
    assert keys.at(np.array([], np.int64)) == []
    keys.check(key_ids(KEYS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": Keys.of(KEYS[1:]).offsets}, "do not fit"),
        ({"offsets": np.array([0, 8, 8, 14, 24, 32, 38, 294])}, "1 to 256 bytes"),
        ({"text": np.full(294, 0xFF, np.uint8)}, "UTF-8"),
        ({"offsets": Keys.of(KEYS).offsets + np.array([0, 0, 0, 0, 0, -1, 0, 0])}, "UTF-8"),
        ({"text": Keys.of(["KIT-1425", *KEYS[1:]]).text}, "not that of its key 'KIT-1425'"),
    ],
)
def test_keys_that_do_not_belong_to_the_items_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        replace(Keys.of(KEYS), **change).check(key_ids(KEYS))

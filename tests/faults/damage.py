"""Seeded damage to bytes, as a broken caller, a bad disk or an attacker does it."""

import random

_SPLICED = 64


def damaged(rng: random.Random, content: bytes, other: bytes = b"") -> bytes:
    """The content with one to eight wounds: flipped bits, bytes lost, repeated, replaced, or parts of another one."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        start = rng.randint(0, len(found))
        end = min(len(found), start + rng.randint(0, _SPLICED))
        match rng.randrange(7):
            case 0 if found:
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = rng.randbytes(rng.randint(1, 16))
            case 3:
                found[start:start] = found[start:end]
            case 4:
                found[start:end] = rng.randbytes(end - start)
            case 5:
                del found[start:]
            case 6:
                found[start:start] = other[: rng.randint(0, _SPLICED)]
    return bytes(found)

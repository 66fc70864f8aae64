"""Bearer tokens: read from a file, compared in constant time, read anew when the file changes."""

import hashlib
import hmac
import time
from collections.abc import Iterable
from pathlib import Path

from mind.errors import ConfigError
from server.edge.reloaded import Reloaded
from server.errors import UnauthenticatedError

SHORTEST = 16
"""Characters of a token."""
LOOK_EVERY_S = 1.0
"""How soon a changed file is noticed; a look costs as much as the rest of a check."""
_HEADER = "authorization"


class Tokens:
    """The tokens that callers of some methods must send one of, as `authorization: Bearer <token>`."""

    def __init__(self, file: Path, option: str, reason: str) -> None:
        """Raises ConfigError if the file cannot be used.

        Args:
            file: one token a line; several are all valid, so that one can follow another without a gap.
            option: what names the file, for messages.
            reason: stable word of a refusal.
        """
        self._digests = Reloaded([file], lambda: read_tokens(file, option))
        self._option = option
        self._reason = reason
        self._looked = time.monotonic()

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raise UnauthenticatedError unless the metadata of a call carry a valid token."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._digests.look()
        sent = next((str(value) for key, value in metadata if key == _HEADER), "")
        if not sent:
            raise UnauthenticatedError(
                f"metadata {_HEADER}: missing; send `{_HEADER}: Bearer <token>`", reason=self._reason
            )
        scheme, _, token = sent.partition(" ")
        digest = _digest(token.strip())
        valid = [hmac.compare_digest(digest, known) for known in self._digests.value]  # all of them, whatever the first
        if scheme.lower() != "bearer" or not any(valid):
            raise UnauthenticatedError(f"metadata {_HEADER}: no token of the server's {self._option}", self._reason)


def read_tokens(file: Path, option: str) -> list[bytes]:
    """Digests of the tokens in a file, one a line. Raises ConfigError, which shows none of them."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{option} {file}: cannot be read: {reason}") from None
    tokens = []
    for number, line in enumerate(lines, 1):
        token = line.strip()
        if not token:
            continue
        if len(token) < SHORTEST:
            raise ConfigError(
                f"{option} {file}: the token in line {number} has {len(token)} characters, the least is {SHORTEST}"
            )
        if not (token.isascii() and token.isprintable()):
            raise ConfigError(f"{option} {file}: the token in line {number} is not made of printable ASCII alone")
        tokens.append(token)
    if not tokens:
        raise ConfigError(f"{option} {file}: has no token")
    return [_digest(token) for token in tokens]


def _digest(token: str) -> bytes:
    """Equally long for all tokens: comparing lengths would tell them."""
    return hashlib.sha256(token.encode()).digest()

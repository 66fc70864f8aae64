"""Checks bearer tokens, which are read from a file, compared in constant time, and read again when the file changes."""

import hashlib
import hmac
import time
from collections.abc import Iterable
from pathlib import Path

from mind.errors import ConfigError
from server.edge.reloaded import OnRead, Reloaded
from server.errors import UnauthenticatedError

SHORTEST = 16
"""Minimum number of characters of a token."""
LOOK_EVERY_S = 1.0
"""Time in seconds between two checks of the file, because such a check costs as much as the rest."""
_HEADER = "authorization"


class Tokens:
    """The valid tokens. Callers must send one of them as `authorization: Bearer <token>`."""

    def __init__(self, file: Path, option: str, reason: str, on_read: OnRead = lambda _: None) -> None:
        """Read the tokens. Raises ConfigError if the file cannot be used.

        Args:
            file: the file, with one token per line. All are valid, so a new token can replace an old one without a gap.
            option: the option that names the file, for messages.
            reason: the stable reason of a refusal (`ServerError.reason`).
            on_read: called with whether the file could be used.
        """
        self._digests = Reloaded([file], lambda: read_tokens(file, option), on_read)
        self._option = option
        self._reason = reason
        self._looked = time.monotonic()

    def check(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raise UnauthenticatedError unless the metadata of a call has a valid token."""
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
        # All tokens are compared, because stopping at the first match would tell which one it was.
        valid = [hmac.compare_digest(digest, known) for known in self._digests.value]
        if scheme.lower() != "bearer" or not any(valid):
            raise UnauthenticatedError(f"metadata {_HEADER}: no token of the server's {self._option}", self._reason)


def read_tokens(file: Path, option: str) -> list[bytes]:
    """Return the digests of the tokens in a file, one per line. Raises ConfigError, whose message shows no token."""
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
    """Return a digest of a token.

    All digests have the same length, so comparing them does not tell a token's length.
    """
    return hashlib.sha256(token.encode()).digest()

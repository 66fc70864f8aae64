"""Reads a text in blocks of whole lines, and checks that it is UTF-8. Knows nothing of the meaning of lines."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mind.data.line_count import count_line_breaks
from mind.errors import DataError

BLOCK_BYTES = 1 << 24
"""Number of bytes of a text that are in memory at a time. No line may have twice as many."""


@dataclass(frozen=True)
class Block:
    """Some whole lines of a text."""

    content: bytes
    line: int
    """The number of the first line, from 1."""
    is_last: bool
    """Whether the text ends after these lines."""


def read_blocks(name: str, stream: Any) -> Iterator[Block]:
    """Read a text without its byte order mark. There is at least one block, and only the last block may be empty.

    Args:
        name: the name of the text in messages.
        stream: the bytes of the text.

    Raises:
        DataError: the text is empty, is not UTF-8, or has a line that is too long.
    """
    line, rest, begun = 1, b"", False
    while True:
        piece = _read(stream, BLOCK_BYTES)
        is_last = len(piece) < BLOCK_BYTES
        content = rest + piece
        if line == 1 and not rest:
            content = content.removeprefix(codecs.BOM_UTF8)
        begun = begun or not content.isspace()
        end = len(content) if is_last else _last_break(content) if begun else 0
        if len(content) - end > 2 * BLOCK_BYTES:
            raise DataError(f"{name}: line {line}: has more than {2 * BLOCK_BYTES >> 20} MiB, the limit")
        content, rest = content[:end], content[end:]
        _check_utf8(name, content, line)
        if is_last and line == 1 and not content.strip():
            raise DataError(f"{name}: the file is empty")
        if content or is_last:
            yield Block(content, line, is_last)
        line += count_line_breaks(content, 0, len(content))
        if is_last:
            return


def _read(stream: Any, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end. A stream may give less at a time."""
    pieces: list[bytes] = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def shorten(text: str) -> str:
    """Quote text from a file for a message, at most 60 characters of it."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _last_break(content: bytes) -> int:
    r"""Return the start of the last line if it has no end. A \r at the end may be the first half of \r\n."""
    return max(content.rfind(b"\n"), content.rfind(b"\r", 0, -1)) + 1


def _check_utf8(name: str, content: bytes, first_line: int) -> None:
    try:
        content.isascii() or codecs.utf_8_decode(content, "strict", True)
    except UnicodeDecodeError as error:
        line = first_line + count_line_breaks(content, 0, error.start)
        raise DataError(f"{name}: line {line}: byte {content[error.start]:#04x} is not UTF-8; convert it") from error

"""A text in blocks of whole lines, checked to be UTF-8. Knows nothing of what the lines are."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mind.data.line_count import count_line_breaks
from mind.errors import DataError

BLOCK_BYTES = 1 << 24
"""Bytes of a text that are in memory at a time; no line may have twice as many."""


@dataclass(frozen=True)
class Block:
    """Some lines of a text."""

    content: bytes
    line: int
    """The number of the first of them, from 1."""
    is_last: bool
    """Whether the text ends with them."""


def read_blocks(name: str, stream: Any) -> Iterator[Block]:
    """Read a text, without a byte order mark. There is at least one block, and none but the last is empty.

    Args:
        name: what messages call the text.
        stream: its bytes.

    Raises:
        DataError: it is empty, not UTF-8, or a line is too long.
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
    """So many bytes, fewer only at the end; a stream may give less at a time."""
    pieces: list[bytes] = []
    while size and (piece := stream.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def shorten(text: str) -> str:
    """Quote text from a file in a message, at most 60 characters of it."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _last_break(content: bytes) -> int:
    r"""Where the last line begins that does not end in the content. A \r at its end may be the first half of \r\n."""
    return max(content.rfind(b"\n"), content.rfind(b"\r", 0, -1)) + 1


def _check_utf8(name: str, content: bytes, first_line: int) -> None:
    try:
        content.isascii() or codecs.utf_8_decode(content, "strict", True)
    except UnicodeDecodeError as error:
        line = first_line + count_line_breaks(content, 0, error.start)
        raise DataError(f"{name}: line {line}: byte {content[error.start]:#04x} is not UTF-8; convert it") from error

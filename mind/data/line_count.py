"""Counts the lines of a file: every line is a header, a row, blank, or inside a quoted value."""

from dataclasses import dataclass

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class LineCount:
    """The lines of a CSV file by what they are, or the number of rows of a Parquet file."""

    rows: int
    """Number of rows, including malformed rows. Each line of a malformed row counts."""
    header: int = 0
    """Number of header lines."""
    blank: int = 0
    """Number of lines with nothing but white space."""
    continued: int = 0
    """Number of lines that begin inside a quoted value."""
    unit: str = "line"
    """"line", or "row" in Parquet."""

    def __add__(self, other: "LineCount") -> "LineCount":
        """Return the sum of two counts."""
        return LineCount(
            self.rows + other.rows,
            self.header + other.header,
            self.blank + other.blank,
            self.continued + other.continued,
            self.unit,
        )

    @property
    def lines(self) -> int:
        """Return the number of all lines of the file."""
        return self.header + self.rows + self.blank + self.continued

    def __str__(self) -> str:
        """Return the sum as a text in one line."""
        if self.unit == "row":
            return f"{self.rows:,} rows"
        text = f"{self.lines:,} lines: {self.header} header, {self.rows:,} rows, {self.blank:,} blank"
        return text + (f", {self.continued:,} inside quoted values" if self.continued else "")


def count_line_breaks(content: bytes, start: int, end: int) -> int:
    r"""Return how many of \n, \r and \r\n a part of a text has. Neither end may be inside of \r\n."""
    count = 0
    while start < end:
        block = content[start : min(end, start + _BLOCK_BYTES)]
        while block.endswith(b"\r") and start + len(block) < end:
            block += content[start + len(block) : start + len(block) + 1]
        count += block.count(b"\n")
        if b"\r" in block:
            count += block.count(b"\r") - block.count(b"\r\n")
        start += len(block)
    return count


def count_lines(content: bytes) -> int:
    """Return the number of lines of a text. The last line need not end in a line break."""
    size = len(content)
    return count_line_breaks(content, 0, size) + (size > 0 and content[size - 1 : size] not in (b"\n", b"\r"))

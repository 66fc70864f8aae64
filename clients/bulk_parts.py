"""The output of a bulk run, and the parts that a stopped run leaves.

This module knows nothing of the service. It has one part in memory, however large the output is.
"""

import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from clients.user_files import FileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Parts:
    """The directory `<output>.parts`: 00000.parquet, 00001.parquet, ... and run.json, which says what was asked.

    A part gets its name when it is completely on the disk, and parts are written one after the other. So a killed run
    leaves the beginning of the output. `open_parts` makes it.
    """

    def __init__(self, output: Path) -> None:
        """Read which parts are there."""
        self.output = output
        self.directory = output.with_name(f"{output.name}.parts")
        self.run_file = self.directory / "run.json"
        found = [path for path in self.directory.glob("*.parquet") if path.stem.isdecimal()]
        # Without run.json they are the rest of a run that ended while it removed them.
        self.paths = sorted(found, key=lambda path: int(path.stem)) if self.run_file.exists() else []
        self.rows = 0

    def begin(self, run: Mapping[str, Any]) -> None:
        """Continue after the parts that are there, if they answer the same question.

        Raises:
            FileError: they do not, or one is missing.
        """
        if not self.paths:
            self.clear()
            with _whole_file(self.run_file, self.directory / "run.tmp") as file:
                file.write(json.dumps(run, indent=2).encode())
            return
        before = json.loads(self.run_file.read_bytes())
        differences = [
            f"{name} is {run.get(name)!r}, was {before.get(name)!r}"
            for name in run | before
            if run.get(name) != before.get(name)
        ]
        for number, path in enumerate(self.paths):
            if int(path.stem) != number:
                differences = [f"part {number} is missing"]
        if differences:
            raise FileError(
                f"{self.directory} belongs to another run: {'; '.join(differences)}; --restart starts again"
            )
        self.rows = sum(pq.read_metadata(path).num_rows for path in self.paths)

    def check(self, schema: Any) -> None:
        """Compare what follows with the parts that are there. Raises FileError if a column has another type."""
        before = pq.read_schema(self.paths[0]) if self.paths else schema
        for name in schema.names:
            was, now = (one.field(name).type if name in one.names else None for one in (before, schema))
            if was != now:
                # Parquet calls the values of a list by another name, which is no difference.
                was, now = (getattr(one, "value_type", one) for one in (was, now))
                raise FileError(
                    f"{self.directory} belongs to another run: {name} is {now}, was {was}; --restart starts again"
                )

    def write(self, table: Any) -> None:
        """Adds a part, a table with the columns of the output."""
        path = self.directory / f"{len(self.paths):05}.parquet"
        with _whole_file(path, self.directory / "part.tmp") as file:
            one_chunk = table.unify_dictionaries().combine_chunks()
            pq.write_table(one_chunk, file, compression="zstd", row_group_size=len(one_chunk))
        self.paths.append(path)
        self.rows += len(table)

    def join(self) -> Generator[Any]:
        """Make the output from the parts, one row group each, and yield their tables on the way."""
        schema = pq.read_schema(self.paths[0])
        with (
            _whole_file(self.output, self.directory / "output.tmp") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for path in self.paths:
                with pq.ParquetFile(path) as part:
                    table = part.read()
                writer.write_table(table, row_group_size=len(table))
                yield table
        self.paths = []

    def clear(self) -> None:
        """Remove the parts. run.json goes first, so that the rest never looks like the beginning of a run."""
        self.run_file.unlink(missing_ok=True)
        for path in (*self.directory.glob("[0-9]*.parquet"), *self.directory.glob("*.tmp")):
            path.unlink()
        self.paths = []

    def remove(self) -> None:
        """Remove parts and directory."""
        self.clear()
        (self.directory / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # somebody put a file of theirs there
            self.directory.rmdir()


@contextmanager
def open_parts(output: Path, run: Mapping[str, Any], *, restart: bool, overwrite: bool) -> Iterator[Parts]:
    """Open the parts of one run for this process alone. If there are no parts at the end, the directory is removed.

    Args:
        output: the file that they become.
        run: everything that decides the content, as plain data; it must equal that of the parts that are there.
        restart: remove the parts that are there.
        overwrite: the output may exist.

    Raises:
        FileError: the output exists, the parts are of another run, or another process writes them now.
    """
    parts = Parts(output)
    if output.exists() and not overwrite and (restart or not parts.paths):
        raise FileError(f"{output} exists; --overwrite replaces it")
    parts.directory.mkdir(exist_ok=True)
    with _locked(parts.directory / "lock"):
        parts = Parts(output)  # as it is now that nobody else writes
        if restart:
            parts.clear()
        parts.begin(run)
        try:
            yield parts
        finally:
            if not parts.paths:
                parts.remove()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a directory until the process ends, however it ends. Windows has no such lock."""
    if fcntl is None:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(f"{path.parent} is being written by another process") from error
        yield


@contextmanager
def _whole_file(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is completely on the disk. An OSError names the file."""
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error

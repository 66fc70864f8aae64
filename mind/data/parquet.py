"""Parquet: one file, or a directory of files whose folders may be named after values (`day=2024-01-31`, as Hive does).

Knows nothing of what the columns mean. Says in plain words why a file cannot be read.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from mind.errors import DataError

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_parquet(path: Path) -> bool:
    """Whether a path is a directory, ends in .parquet, or begins as a Parquet file does. Raises OSError."""
    if path.is_dir() or path.suffix == ".parquet":
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def parquet_names(path: Path) -> list[str]:
    """The columns, those of the folders' names included. Raises DataError."""
    with _reading(path):
        return list((_directory(path).schema if path.is_dir() else pq.read_schema(path)).names)


def read_parquet(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    """Read some columns, or all of them. Raises DataError."""
    with _reading(path):
        if path.is_dir():
            table = _directory(path).to_table(columns=None if names is None else list(names))
        else:
            table = pq.ParquetFile(path).read(None if names is None else list(names))
        table.validate(full=True)  # texts that are not UTF-8
        return table


def read_parquet_batches(path: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Read all columns, at most `batch_rows` rows at a time. Raises DataError."""
    with _reading(path):
        if path.is_dir():
            for batch in _directory(path).to_batches(batch_size=batch_rows):
                batch.validate(full=True)
                if len(batch):
                    yield batch
            return
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_rows):
                batch.validate(full=True)
                yield batch


def _directory(path: Path) -> ds.Dataset:
    """All files below a directory, ordered by their paths; folders such as `day=2024-01-31` are a column `day`."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(path))]
    if not files:
        raise DataError(f"{path}: the directory has no Parquet files")
    for file in files:
        if reason := _wrong_ends(file):
            raise DataError(f"{file}: cannot be read as Parquet: {reason}")
    options = ds.FileSystemFactoryOptions(partition_base_dir=str(path), partitioning=_partitioning(path, files))
    names = [str(file) for file in files]
    factory = ds.FileSystemDatasetFactory(pa.fs.LocalFileSystem(), names, ds.ParquetFileFormat(), options)
    try:
        return factory.finish(factory.inspect(promote_options="permissive"))
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        if "merge" not in str(error):
            raise
        raise DataError(f"{path}: its files have a column of the same name and different types") from error


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def _partitioning(path: Path, files: Sequence[Path]) -> ds.Partitioning:
    """Columns from the names of folders: integers, or text if a value has leading zeros or is none."""
    values: dict[str, set[str]] = {}
    for file in files:
        for part in file.relative_to(path).parts[:-1]:
            name, equals, value = part.partition("=")
            if equals:
                values.setdefault(unquote(name), set()).add(unquote(value))
    kinds = {
        name: pa.int64() if all(_INTEGER.fullmatch(value) for value in found - {_NULL}) else pa.string()
        for name, found in values.items()
    }
    return ds.partitioning(pa.schema(list(kinds.items())), flavor="hive")


def count_parquet_rows(path: Path) -> int:
    """The number of rows. Raises DataError."""
    with _reading(path):
        return int(_directory(path).count_rows() if path.is_dir() else pq.read_metadata(path).num_rows)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise DataError where a file cannot be read."""
    try:
        yield
    except OSError as error:  # also what Arrow raises for damaged content
        if error.errno is not None and error.strerror:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        raise DataError(f"{path}: cannot be read as Parquet: {_reason(path, str(error))}") from error
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet: {_reason(path, str(error))}") from error


def _reason(path: Path, message: str) -> str:
    if path.is_file() and (reason := _wrong_ends(path)):
        return reason
    if "UTF8" in message:
        return "a text in it is not UTF-8; write it again with texts in UTF-8"
    if "codec" in message.lower() and "support" in message.lower():
        return "it is compressed in a way that is not supported here; write it with zstd, snappy or gzip"
    return "its content is damaged; copy or export it again"


def _wrong_ends(path: Path) -> str:
    """Why a file is no Parquet, by its first and last four bytes; "" if they are right. Raises OSError."""
    with path.open("rb") as file:
        first = file.read(4)
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - 4))
        last = file.read(4)
    if not size:
        return "the file is empty"
    if _ENCRYPTED in (first, last):
        return "it is encrypted; write it again without encryption"
    if first != _MAGIC:
        return "it does not begin with PAR1 as Parquet does; a CSV file ends in .csv"
    if last != _MAGIC or size < 12:
        return "its end is missing; copy or export it again"
    return ""

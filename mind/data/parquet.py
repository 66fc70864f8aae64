"""Reads Parquet in batches. Folders may be named after values (`day=2024-01-31`, as in Hive).

This module knows nothing of the meaning of columns. Its errors say in plain words why a file cannot be read.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs

from mind.data.sources import MAGIC, File, Files, OnBytes
from mind.errors import DataError

BATCH_ROWS = 1 << 18
"""Number of rows that are in memory at a time."""
_ENCRYPTED = b"PARE"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def parquet_schema(files: Files) -> pa.Schema:
    """Return the columns and their types, including the columns of the folders' names. Raises DataError."""
    with _reading(files):
        return _dataset(files).schema


def parquet_batches(
    files: Files,
    names: Sequence[str] | None,
    on_bytes: OnBytes,
    batch_rows: int = BATCH_ROWS,
    schema: pa.Schema | None = None,
) -> Iterator[tuple[File, pa.RecordBatch]]:
    """Read some columns, or all columns if None, file by file.

    Args:
        files: the files.
        names: the names of the columns.
        on_bytes: called with the number of bytes that were read.
        batch_rows: maximum number of rows of a batch.
        schema: the columns of an input that these are only some of the files of; None for the columns of these files.

    Raises:
        DataError: a file cannot be read.
    """
    with _reading(files):
        dataset = _dataset(files, schema)
    columns = list(dataset.schema.names if names is None else names)
    for file, fragment in zip(files.files, dataset.get_fragments(), strict=True):  # both in the order of `files`
        one = Files(files.name, (file,))
        with _reading(one):
            rows = max(fragment.count_rows(), 1)
            reader = fragment.scanner(
                dataset.schema,
                columns=columns,
                batch_size=batch_rows,
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=False,
                # Arrow would keep all that it has read of a file until the end of the file.
                fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            ).to_batches()
            told = done = 0
            for batch in reader:
                batch.validate(full=True)  # finds texts that are not UTF-8
                done += len(batch)
                on_bytes(file.size * done // rows - told)
                told = file.size * done // rows
                if len(batch):
                    yield file, batch.select(columns)


def _dataset(files: Files, schema: pa.Schema | None = None) -> ds.Dataset:
    """Return a data set of all files. Folders such as `day=2024-01-31` become a column `day`."""
    for file in files.files:
        if reason := _wrong_ends(file):
            raise DataError(f"{file.name}: cannot be read as Parquet: {reason}")
    remote = files.files[0].remote
    system = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(remote)) if remote else pa.fs.LocalFileSystem()
    options = ds.FileSystemFactoryOptions()
    if files.root is not None:
        options = ds.FileSystemFactoryOptions(partition_base_dir=files.root, partitioning=_partitioning(files, schema))
    paths = [file.path for file in files.files]
    factory = ds.FileSystemDatasetFactory(system, paths, ds.ParquetFileFormat(), options)
    try:
        return factory.finish(schema or factory.inspect(promote_options="permissive"))
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        if "Unable to merge" not in str(error):
            raise
        raise DataError(f"{files.name}: its files have a column of the same name and different types") from error


def _partitioning(files: Files, schema: pa.Schema | None) -> ds.Partitioning:
    """Return the columns of the folders' names: integers, or text if a value has leading zeros or is not an integer."""
    values: dict[str, set[str]] = {}
    for file in files.files:
        for part in file.path.removeprefix(files.root or "").split("/")[:-1]:
            name, equals, value = part.partition("=")
            if equals:
                values.setdefault(unquote(name), set()).add(unquote(value))
    kinds = {
        name: pa.int64() if all(_INTEGER.fullmatch(value) for value in found - {_NULL}) else pa.string()
        for name, found in values.items()
    }
    if schema is not None:
        kinds = {name: schema.field(name).type for name in kinds}
    return ds.partitioning(pa.schema(list(kinds.items())), flavor="hive")


@contextmanager
def _reading(files: Files) -> Iterator[None]:
    """Raise DataError if a file cannot be read."""
    name = files.name if files.are_several else files.files[0].name
    try:
        yield
    except OSError as error:  # Arrow also raises this for damaged content
        if error.errno is not None and error.strerror:
            raise DataError(f"{name}: cannot be read: {error.strerror}") from error
        raise DataError(f"{name}: cannot be read as Parquet: {_reason(files, str(error))}") from error
    except pa.ArrowException as error:
        raise DataError(f"{name}: cannot be read as Parquet: {_reason(files, str(error))}") from error


def _reason(files: Files, message: str) -> str:
    for file in files.files:
        if reason := _wrong_ends(file):
            return reason
    if "UTF8" in message:
        return "a text in it is not UTF-8; write it again with texts in UTF-8"
    if "codec" in message.lower() and "support" in message.lower():
        return "it is compressed in a way that is not supported here; write it with zstd, snappy or gzip"
    return "its content is damaged; copy or export it again"


def _wrong_ends(file: File) -> str:
    """Return why a file is not Parquet, by its first and last four bytes; "" if they are right. Raises OSError."""
    with file.open() as content:
        first = content.read(4)
        content.seek(0, 2)
        size = content.tell()
        content.seek(max(0, size - 4))
        last = content.read(4)
    if not size:
        return "the file is empty"
    if _ENCRYPTED in (first, last):
        return "it is encrypted; write it again without encryption"
    if first != MAGIC:
        return "it does not begin with PAR1 as Parquet does; a CSV file ends in .csv"
    if last != MAGIC or size < 12:
        return "its end is missing; copy or export it again"
    return ""

"""Maps the tensors of a safetensors file from the disk: read-only, and shared by all processes that map the file.

Mapped tensors take no memory of a process. Their pages are the kernel's cache of the file, which the kernel drops when
memory is short and reads again when needed. So a mapped file must not change: a newer version is renamed into place,
and never written into the old file.
"""

import hashlib
import json
import logging
import math
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mind.errors import ArtifactError

Tensor = npt.NDArray[Any]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 4 * 2**20
"""Size of the part of a tensor that is processed in one step, in bytes, which limits the memory of a step."""
MAX_HEADER_BYTES = 100_000_000
"""Maximum size of a header in bytes, according to the format."""
_HASH_ASIDE = """
import hashlib, os, sys
if hasattr(os, "nice"):
    os.nice(10)
print(hashlib.file_digest(sys.stdin.buffer, "sha256").hexdigest())
"""
_MAX_DIMENSIONS = 32
_LONGEST_REASON = 300
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """The place of a tensor in its file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    """The position of the first byte, counted from the beginning of the file."""

    @property
    def end(self) -> int:
        """Return the position after the last byte."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def map_tensors(file: Path, sha256: str, aside: bool = False) -> dict[str, Tensor]:
    """Check a safetensors file against its hash, and map its tensors.

    Args:
        file: the file, or a link to it.
        sha256: the hash in hex that the manifest gives for the file.
        aside: whether a process of lower priority computes the hash, so that requests do not wait for a processor.

    Raises:
        ArtifactError: the file cannot be read, has another hash or is not safetensors.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise ArtifactError(f"{file}: is not a regular file, nor a link to one")
        with file.open("rb") as content:
            found = _hash_aside(content) if aside else _hash(content)
            if found != sha256:
                raise ArtifactError(f"{file}: damaged or incomplete: sha256 is {found}, manifest.json says {sha256}")
            places = read_places(content, file)
            mapped = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
        return {name: np.ndarray(place.shape, place.dtype, mapped, place.start) for name, place in places.items()}
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # for an empty tensor whose other sizes are too large for NumPy
        raise ArtifactError(f"{file}: not safetensors: {error}") from error


def _hash(content: BufferedReader) -> str:
    return hashlib.file_digest(content, "sha256").hexdigest()


def _hash_aside(content: BufferedReader) -> str:
    """Compute the hash in a process of lower priority, or here if the process fails.

    A thread of lower priority would keep the interpreter's lock while it waits for a processor.
    """
    command = [sys.executable, "-I", "-S", "-c", _HASH_ASIDE]
    try:
        return subprocess.run(command, stdin=content, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s: is hashed in this process: %s", content.name, error)
        content.seek(0)
        return _hash(content)


def read_places(content: BinaryIO, file: Path) -> dict[str, Place]:
    """Read the places of the tensors in a safetensors file: eight bytes of length, a header in JSON, then the tensors.

    Args:
        content: the open file.
        file: the path of the file, for messages.

    Raises:
        ArtifactError: the header breaks the format, or the file is shorter or longer than its header says.
        OSError: the file cannot be read.
    """
    size = os.fstat(content.fileno()).st_size
    content.seek(0)
    length = int.from_bytes(content.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise ArtifactError(f"{file}: not safetensors: {size:,} bytes are too few for a header of {length:,}")
    try:
        header = json.loads(content.read(length))
        header.pop("__metadata__", None)
        places = {name: _place(name, entry, 8 + length) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{file}: not safetensors: {str(error)[:_LONGEST_REASON]}") from error
    first = end = 8 + length
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start != end:
            where = f"{name} starts at offset {place.start - first:,}, expected {end - first:,}"
            raise ArtifactError(f"{file}: not safetensors: {where}")
        end = place.end
    if size != end:
        raise ArtifactError(f"{file}: {size:,} bytes, its header says {end:,}: damaged or incomplete")
    return places


def _place(name: str, entry: Any, first: int) -> Place:
    """Read the place of a tensor from the header.

    `first` is the byte after the header. Raises ValueError, TypeError, KeyError.
    """
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"{name} has dtype {dtype}, expected one of {', '.join(_DTYPES)}")
    sizes = (*shape, start, end)
    if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise ValueError(
            f"{name} has shape {shape} and data_offsets {[start, end]}, expected at most {_MAX_DIMENSIONS} sizes and "
            "two offsets, whole numbers from 0 to 2^63 - 1"
        )
    place = Place(np.dtype(_DTYPES[dtype]), tuple(shape), first + start)
    if place.end != first + end:
        raise ValueError(f"{name} takes {place.end - place.start:,} bytes, its data_offsets say {end - start:,}")
    return place


def blocks(tensor: Tensor, overlap: int = 0) -> Iterator[Tensor]:
    """Yield the rows of a tensor in blocks of about `BLOCK_BYTES`.

    Each begins with the last `overlap` rows of the previous one.
    """
    step = max(1, BLOCK_BYTES * len(tensor) // max(1, tensor.nbytes))
    for start in range(0, len(tensor), step):
        yield tensor[max(0, start - overlap) : start + step]

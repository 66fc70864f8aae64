"""Reads PaddlePaddle's .pdparams files without running any code in them.

`paddle.save` writes a pickle, which is a program that may call whatever it names. Here `pickletools` parses its
operations and runs none of them, and a small machine follows those that make dictionaries of arrays. It imports nothing
and calls nothing that a file names, and NumPy's own unpickling is not used. Anything else is refused by name. This
module knows nothing of MIND.
"""

import hashlib
import math
import os
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from mind.data.text_blocks import shorten
from mind.errors import DataError

Array = npt.NDArray[Any]

MAX_OPERATIONS = 1_000_000
"""Maximum number of operations of a file, about 25 per array, so that a small file cannot take much memory or time."""
MAX_DEPTH = 4
"""Maximum depth of nested dictionaries."""
MAX_ENTRIES = 100_000
"""Maximum number of entries of all dictionaries together."""

_ADMITTED = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("_codecs", "encode"): "encode",
    ("builtins", "tuple"): "tuple",
    ("__builtin__", "tuple"): "tuple",
    ("collections", "OrderedDict"): "OrderedDict",
}
"""Functions and classes that a file may name, by module and name, with what the machine does instead of importing them.
"""
_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_SPLIT = "UnpackBigParamInfor@@"
"""The key under which paddle.save (protocols 2 and 3) lists the arrays above 1 GiB that it cut into slices."""

_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"} | {
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("BINSTRING", "SHORT_BINSTRING"),  # Python 2; parsed as Latin-1
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME", "STOP"}
_MARK = object()


def read_pdparams(path: Path) -> tuple[dict[str, Array], str]:
    """Read the arrays of a .pdparams file, a pickle of protocol 2 to 5.

    Numbers and texts beside the arrays are left out. Dictionaries within the dictionary give names with dots.

    Returns:
        The arrays by name, in the order of the file, and the sha256 of the file.

    Raises:
        DataError: the file is missing, cut off or not a .pdparams file, or has an operation that arrays do not need.
    """
    try:
        with path.open("rb") as file:
            arrays = _read(_Bounded(file))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except _RefusedError as error:
        raise DataError(f"{path}: refused, and nothing in it was run: {error}") from error
    except (ValueError, DeprecationWarning) as error:  # pickletools warns about unusual escapes
        raise DataError(f"{path}: damaged, cut off or not a .pdparams file: {error}") from error
    return arrays, digest


class _RefusedError(Exception):
    """The file has an operation that a checkpoint of arrays does not need."""


@dataclass(frozen=True)
class _Named:
    """A function or class that the file names, as a value of `_ADMITTED`."""

    name: str


@dataclass
class _Dtype:
    code: str
    order: str = "="


@dataclass
class _Array:
    value: Array | None = None


class _Machine:
    """A pickle machine for the operations that arrays need."""

    def __init__(self, size: int) -> None:
        """Start with an empty stack.

        `size` is the size of the file in bytes, the limit for all texts that become bytes.
        """
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encodable = size

    def run(self, file: IO[bytes]) -> Any:
        """Follow the operations of a file, and return the object that they build."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count == MAX_OPERATIONS:
                raise _RefusedError(f"it has more than {MAX_OPERATIONS:,} operations")
            self._step(operation.name, argument)
        return self._pop()

    def _step(self, operation: str, argument: Any) -> None:
        if operation in _LITERALS:
            self._stack.append(argument)
        elif operation in _CONSTANTS:
            self._stack.append(_CONSTANTS[operation])
        elif operation in _TUPLES:
            self._stack.append(tuple([self._pop() for _ in range(_TUPLES[operation])][::-1]))
        elif operation not in _NOTHING:
            self._compute(operation, argument)

    def _compute(self, operation: str, argument: Any) -> None:
        stack = self._stack
        match operation:
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "SETITEM":
                self._set_items([self._pop(), self._pop()][::-1])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._top()
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._top()
            case "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise ValueError(f"an operation recalls object {argument}, which was never stored")
                stack.append(self._memo[argument])
            case "GLOBAL" | "INST":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                stack.append(_named(module, name))
            case "REDUCE":
                arguments, called = self._pop(), self._pop()
                stack.append(self._call(called, arguments))
            case "BUILD":
                state = self._pop()
                _build(self._top(), state)
            case _:
                raise _RefusedError(f"it has the operation {operation}, which arrays do not need")

    def _call(self, called: Any, arguments: Any) -> Any:
        """Return the result of an admitted function for arguments of pickled arrays. Refuse any other arguments."""
        match called, arguments:
            case _Named("reconstruct"), [_Named("ndarray"), [0], b"b" | "b"]:
                return _Array()
            case _Named("frombuffer"), [data, _Dtype() as dtype, shape, "C" | "F" as order]:
                return _Array(_array(data, dtype, shape, order))
            case _Named("scalar"), [_Dtype() as dtype, data]:
                return _array(data, dtype, (), "C").item()
            case _Named("dtype"), [str() as code, 0, 1]:
                if code not in _DTYPES:
                    raise _RefusedError(f"an array has the dtype {shorten(code)}, only numbers and bools are admitted")
                return _Dtype(code)
            case _Named("encode"), [str() as text, "latin1"]:
                self._encodable -= len(text)
                if self._encodable < 0:
                    raise _RefusedError("it makes more bytes than it has itself")
                return text.encode("latin1")
            case _Named("tuple"), [[*values]]:
                return tuple(values)
            case _Named("OrderedDict"), []:
                return {}
        raise _RefusedError(f"it calls {_kind(called)} with arguments that arrays do not need")

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("an operation lacks its operand")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while self._stack and (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(pairs) % 2:
            raise ValueError("entries without a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str:  # hashing a nested tuple may never end
                raise _RefusedError(f"a dictionary has {_kind(key)} for a key, only texts are admitted")
            target[key] = value

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise ValueError("elements without a list")
        target.extend(values)


class _Bounded:
    """A file for `pickletools` that allocates memory only for the bytes that exist."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self.tell, self.readline = file.tell, file.readline
        self._file = file

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self.size))


def _read(file: _Bounded) -> dict[str, Array]:
    made = _Machine(file.size).run(cast("IO[bytes]", file))
    if file.tell() != file.size:
        raise ValueError(f"{file.size - file.tell():,} bytes follow its end")
    if type(made) is not dict:
        raise ValueError(f"it holds {_kind(made)}, not a dictionary of arrays")
    return dict(_arrays(_joined(made), "", MAX_DEPTH, iter(range(MAX_ENTRIES))))


def _named(module: Any, name: Any) -> _Named:
    if type(module) is not str or type(name) is not str:
        raise ValueError("a name that is no text")
    if (module, name) in _ADMITTED:
        return _Named(_ADMITTED[module, name])
    dotted = f"{module}.{name}"
    if not dotted.replace(".", "_").isidentifier():
        raise ValueError(f"a name reads {shorten(dotted)}")
    admitted = ", ".join(dict.fromkeys(name for _, name in _ADMITTED))
    raise _RefusedError(f"it names {shorten(dotted)}; all that arrays need is {admitted}")


def _build(target: Any, state: Any) -> None:
    """Set the byte order of a dtype, or the content of an array."""
    match target, state:
        case _Dtype(), [3 | 4, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0]:
            target.order = order
        case _Array(value=None), [1, shape, _Dtype() as dtype, bool() as fortran, data]:
            target.value = _array(data, dtype, shape, "F" if fortran else "C")
        case _:
            raise _RefusedError(f"it gives {_kind(target)} a state that arrays do not have")


def _array(data: Any, dtype: _Dtype, shape: Any, order: Any) -> Array:
    """Return a read-only array over bytes (text in Latin-1 from Python 2).

    Raise ValueError if their number does not fit.
    """
    if type(data) is str:
        data = data.encode("latin1")
    shape = _shape(shape)
    kind = np.dtype(dtype.order + dtype.code)
    size = math.prod(shape) * kind.itemsize
    if not isinstance(data, (bytes, bytearray)) or len(data) != size:
        found = f"{len(data):,} bytes" if isinstance(data, (bytes, bytearray)) else _kind(data)
        raise ValueError(f"an array of {kind} {list(shape)} has {found}, expected {size:,} bytes")
    array: Array = np.ndarray(shape, kind, data, order=order)
    array.setflags(write=False)
    return array


def _shape(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or not all(type(n) is int and 0 <= n < 2**48 for n in value) or len(value) > 8:
        raise ValueError("an array has a shape that is none")
    return value


def _arrays(entries: dict[str, Any], prefix: str, depth: int, budget: Iterator[int]) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of a dictionary and of the dictionaries in it, by name."""
    if depth == 0:
        raise _RefusedError(f"it has dictionaries within dictionaries, more than {MAX_DEPTH} deep")
    for key, value in entries.items():
        if next(budget, None) is None:
            raise _RefusedError(f"it has more than {MAX_ENTRIES:,} entries")
        match value:
            case _Array(value=np.ndarray() as array) | (str(), _Array(value=np.ndarray() as array)):  # or named tensor
                yield prefix + key, array
            case dict():
                yield from _arrays(value, f"{prefix}{key}.", depth - 1, budget)
            case _Array() | _Named() | _Dtype():
                raise ValueError(f"{shorten(prefix + key)} is {_kind(value)}, not an array")


def _joined(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary with the arrays that paddle.save cut into slices joined again. See `_SPLIT`."""
    cut = entries.pop(_SPLIT, {})
    for name, info in cut.items() if isinstance(cut, dict) else [(_SPLIT, cut)]:
        match info:
            case {"OriginShape": tuple() as shape, "slices": [*slices]}:
                parts = [entries.pop(part, None) for part in slices if type(part) is str]
                arrays = [part.value for part in parts if isinstance(part, _Array) and part.value is not None]
                if not arrays or len(arrays) != len(slices):
                    raise ValueError(f"{shorten(name)} lacks slices: {len(arrays)} of {len(slices)}")
                entries[name] = _Array(np.concatenate(arrays).reshape(_shape(shape)))
            case _:
                raise ValueError(f"{shorten(name)} lacks slices")
    return entries


def _kind(value: Any) -> str:
    if isinstance(value, _Named):
        return value.name
    return {_Array: "an array", _Dtype: "a dtype"}.get(type(value), f"a {type(value).__name__}")

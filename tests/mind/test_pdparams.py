"""Checkpoints as Paddle writes them are read; whatever else a pickle can do is refused, and is not done."""

import collections
import gzip
import os
import pickle
import pickletools
import random
import struct
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind.errors import DataError
from mind.paddle_runtime import paddle
from mind.paddlerec import pdparams
from mind.paddlerec.pdparams import read_pdparams

STOP = b"."
ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, -2], np.int64)}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def stack_named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def entry(value: bytes) -> bytes:
    """A pickle of a dictionary with one entry."""
    return b"\x80\x04}" + text("x") + value + b"s" + STOP


DTYPE = call(named("numpy", "dtype"), text("f4"), b"\x89", b"\x88")
BLANK = call(named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
LITTLE = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def write(directory: Path, content: bytes) -> Path:
    path = directory / "rec.pdparams"
    path.write_bytes(content)
    return path


def read(directory: Path, content: bytes) -> dict[str, np.ndarray]:
    return read_pdparams(write(directory, content))[0]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_saves(tmp_path: Path, protocol: int) -> None:
    layer = paddle.nn.Sequential(paddle.nn.Embedding(7, 3), paddle.nn.Linear(3, 2))
    state = layer.state_dict()
    expected = {name: tensor.numpy() for name, tensor in state.items()}
    for name, saved, prefix in (
        ("state", state, ""),
        ("nested", {"model": state, "epoch": 3, "rate": 0.1, "loss": np.float32(2), "names": ["a"]}, "model."),
    ):
        path = tmp_path / f"{name}.pdparams"
        paddle.save(saved, str(path), protocol=protocol)
        assert_same(read_pdparams(path)[0], {prefix + key: array for key, array in expected.items()})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_arrays_of_every_protocol_and_layout(tmp_path: Path, protocol: int) -> None:
    arrays = ARRAYS | {
        "fortran": np.asfortranarray(ARRAYS["a.weight"]),
        "big_endian": np.arange(3, dtype=">f8"),
        "bool": np.array([True, False]),
        "half": np.array([[0.5]], np.float16),
    }
    assert_same(read(tmp_path, pickle.dumps(arrays, protocol)), arrays)
    assert_same(read(tmp_path, pickle.dumps(collections.OrderedDict(arrays), protocol)), arrays)


def test_reads_what_numpy_1_and_python_2_wrote(tmp_path: Path) -> None:
    content = pickle.dumps(ARRAYS, 2)
    assert b"numpy._core.multiarray" in content
    assert_same(read(tmp_path, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")), ARRAYS)
    python_2 = (
        b"\x80\x02}q\x00U\x01xq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbs."
    )
    assert_same(read(tmp_path, python_2), {"x": np.array([1, -2], np.float32)})


def test_joins_arrays_that_paddle_cut(tmp_path: Path) -> None:
    flat = np.arange(10, dtype=np.float32)
    slices = {"item_emb@@.0": flat[:4], "item_emb@@.1": flat[4:8], "item_emb@@.2": flat[8:]}
    info = {"UnpackBigParamInfor@@": {"item_emb": {"OriginShape": (5, 2), "slices": list(slices)}}}
    found = read(tmp_path, pickle.dumps(slices | ARRAYS | info, 2))
    assert_same(found, ARRAYS | {"item_emb": flat.reshape(5, 2)})
    del slices["item_emb@@.1"]
    with pytest.raises(DataError, match="'item_emb' lacks slices: 2 of 3"):
        read(tmp_path, pickle.dumps(slices | info, 2))
    for broken in ({"OriginShape": ("x",), "slices": ["b"]}, {"slices": ["b"]}, {"OriginShape": (1,), "slices": ["c"]}):
        with pytest.raises(DataError, match=r"shape that is none|lacks slices"):
            read(tmp_path, pickle.dumps(ARRAYS | {"UnpackBigParamInfor@@": {"item_emb": broken}}, 2))


class Command:
    """Pickled, it is a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden", ["alone", "value", "in a list", "in an object array"])
def test_code_is_named_and_not_run(tmp_path: Path, protocol: int, hidden: str) -> None:
    ran = tmp_path / "ran"
    command = Command(f"touch {ran}")
    made = {
        "alone": command,
        "value": ARRAYS | {"c": command},
        "in a list": ARRAYS | {"c": [command]},
        "in an object array": ARRAYS | {"c": np.array([command])},
    }[hidden]
    with pytest.raises(DataError, match=r"rec\.pdparams: ") as caught:
        read(tmp_path, pickle.dumps(made, protocol))
    assert not ran.exists()
    if protocol >= 2 and hidden != "in an object array":
        assert f"names '{os.name}.system'; all that arrays need is ndarray, dtype, _recon" in str(caught.value)


NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("subprocess", "Popen"),
    ("antigravity", "fly"),
    ("numpy", "load"),
    ("numpy", "memmap"),
    ("numpy", "core.multiarray._reconstruct"),
    ("numpy", "ndarray.tofile"),
    ("numpy.core", "multiarray._reconstruct"),
    ("numpy._core.multiarray", "fromfile"),
    ("numpy.testing._private.utils", "runstring"),
    ("Numpy", "ndarray"),
    ("numpy", "dtype_"),
    ("_codecs", "decode"),
    ("_codecs", "lookup"),
    ("codecs", "encode"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "add_extension"),
    ("collections", "OrderedDict.fromkeys"),
    ("collections", "namedtuple"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("pickle", "loads"),
    ("paddle", "load"),
    ("builtins", "tuple.__class__"),
]


@pytest.mark.parametrize("write_name", [named, stack_named])
@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_other_name_is_refused(tmp_path: Path, module: str, name: str, write_name: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, entry(write_name(module, name)))
    assert f"nothing in it was run: it names '{module}.{name}'" in str(caught.value)
    assert "antigravity" not in sys.modules


OPERATIONS = {
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pid\n",
    "BINPERSID": text("id") + b"Q",
    "OBJ": b"(" + named("numpy", "dtype") + text("O8") + b"o",
    "NEWOBJ": named("numpy", "ndarray") + b"K\x01\x85\x81",
    "NEWOBJ_EX": named("numpy", "ndarray") + b"K\x01\x85}\x92",
    "NEXT_BUFFER": b"\x97",
    "EMPTY_SET": b"\x8f",
    "FROZENSET": b"(\x91",
    "DUP": b"K\x002",
    "STRING": b"S'\\z'\n",
    "INT": b"I1\n",
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_other_operation_is_refused(tmp_path: Path, operation: str) -> None:
    content = entry(OPERATIONS[operation])
    with pytest.raises(DataError, match=f"it has the operation {operation}, which arrays do not need|invalid escape"):
        read(tmp_path, content)


def test_inst_is_refused_by_the_name_it_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it names 'os\.system'"):
        read(tmp_path, entry(b"(" + text("true") + b"ios\nsystem\n"))


ABUSES = {
    "codec": (call(named("_codecs", "encode"), text("x"), text("rot13")), "calls encode with arguments"),
    "codec of bytes": (call(named("_codecs", "encode"), b"C\x01x", text("zip")), "calls encode with arguments"),
    "object dtype": (call(named("numpy", "dtype"), text("O8"), b"\x89", b"\x88"), "an array has the dtype 'O8'"),
    "void dtype": (call(named("numpy", "dtype"), text("V8"), b"\x89", b"\x88"), "an array has the dtype 'V8'"),
    "dtype by expression": (call(named("numpy", "dtype"), text("f4,O"), b"\x89", b"\x88"), "an array has the dtype"),
    "dtype of a class": (call(named("numpy", "dtype"), named("numpy", "ndarray"), b"\x89", b"\x88"), "calls dtype"),
    "dtype with fields": (DTYPE + b"(K\x03" + text("|") + b"N" + text("a") + b"\x85}K\x08K\x01K\x1btb", "a dtype a st"),
    "subclass": (
        call(named("numpy._core.multiarray", "_reconstruct"), named("builtins", "tuple")),
        "_?reconstruct with",
    ),
    "negative shape": (
        BLANK + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + LITTLE + b"\x89C\x00tb",
        "a shape that is none",
    ),
    "vast shape": (BLANK + b"(K\x01J\xff\xff\xff\x7f\x85" + DTYPE + LITTLE + b"\x89C\x00tb", "has 0 bytes, expected"),
    "list for data": (BLANK + b"(K\x01K\x01\x85" + DTYPE + LITTLE + b"\x89]tb", "has a list, expected 4 bytes"),
    "no content": (BLANK, "'x' is an array, not"),
    "function for a value": (named("numpy", "dtype"), "'x' is dtype, not an array"),
    "attributes of an array": (BLANK + b"}" + text("__class__") + text("x") + b"sb", "gives an array a state"),
    "attributes of a function": (named("_codecs", "encode") + b"}" + text("__code__") + b"Nsb", "gives encode a state"),
    "attributes of a dict": (b"}}b", "gives a dict a state"),
    "slots": (BLANK + b"N}" + text("value") + b"Ns\x86b", "gives an array a state"),
    "call of a text": (call(text("os.system"), text("true")), "it calls a str with"),
    "call of a result": (call(call(named("collections", "OrderedDict")), text("true")), "it calls a dict with"),
    "tuple of a text": (call(named("builtins", "tuple"), text("abc")), "it calls tuple with"),
    "name that is no text": (b"K\x01K\x02\x93", "a name that is no text"),
    "unhashable key": (b"}}K\x01s", "has a dict for a key"),
    "missing memo": (b"h\x07", "recalls object 7"),
    "missing operand": (b"00" * 9, "operation POP"),
    "append to a tuple": (b")K\x01a", "elements without a list"),
    "items of a list": (b"]" + text("a") + b"K\x01s", "entries without a dict"),
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_abuse_of_what_is_admitted_is_refused(tmp_path: Path, abuse: str) -> None:
    value, message = ABUSES[abuse]
    with pytest.raises(DataError, match=message):
        read(tmp_path, entry(value))


def test_bombs_are_refused_before_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = b")" + b"".join(b"\x94h" + bytes([level]) + b"\x86" for level in range(100))  # 2^100 when it is hashed
    latin = text("\u00ff" * 1000) + b"\x94"
    bombs = {
        "a dictionary has a tuple for a key": b"\x80\x04}" + nested + b"K\x01s.",
        "damaged|8 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
        "damaged|bytearray8": b"\x80\x05\x96" + struct.pack("<Q", (1 << 63) - 1) + b"x.",
        "more bytes than it has": b"\x80\x04" + latin + call(named("_codecs", "encode"), b"h\x00", text("latin1")) * 3,
        "more than 4 deep": b"\x80\x04}\x94" + text("x") + b"h\x00s.",
        "holds a NoneType": b"\x80\x04Nr\xff\xff\xff\xff.",
    }
    started = time.process_time()
    for message, content in bombs.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path, content)
    assert time.process_time() - started < 5
    monkeypatch.setattr(pdparams, "MAX_OPERATIONS", 100)
    with pytest.raises(DataError, match="it has more than 100 operations"):
        read(tmp_path, b"\x80\x04" + b"]" * 200 + STOP)


def test_shared_dictionaries_do_not_multiply(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    for _ in range(3):
        made = {str(number): made for number in range(200)}
    started = time.process_time()
    with pytest.raises(DataError, match="more than 100,000 entries"):
        read(tmp_path, pickle.dumps(made, 4))
    assert time.process_time() - started < 5


def test_other_files_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", pickle.dumps(ARRAYS, 2))
    safetensors = tmp_path / "a.safetensors"
    paddle.save({"a": paddle.ones([2])}, str(safetensors), safetensors=True)
    for content, message in (
        (gzip.compress(pickle.dumps(ARRAYS)), "not a .pdparams file: at position 0, opcode"),
        (archive.read_bytes(), "not a .pdparams file|the operation PERSID"),
        (safetensors.read_bytes(), "not a .pdparams file"),
        (b"", "not a .pdparams file"),
        (b"import sys\n# weights\n", "not a .pdparams file"),
        (pickle.dumps([1, 2], 4), "holds a list, not a dictionary"),
        (pickle.dumps(ARRAYS["b"], 4), "holds an array, not a dictionary"),
        (pickle.dumps(ARRAYS, 4) + b"more", "4 bytes follow its end"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path, content)
    for path in (tmp_path, tmp_path / "missing.pdparams"):
        with pytest.raises(DataError, match=r"cannot be read: (Is a directory|No such file)"):
            read_pdparams(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_file_that_is_cut_off_is_refused_wherever_the_cut_is(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(ARRAYS, protocol)
    for length in range(len(content)):
        with pytest.raises(DataError):
            read(tmp_path, content[:length])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_damage_gives_other_arrays_or_our_error_and_nothing_else(tmp_path: Path, protocol: int) -> None:
    random.seed(protocol)
    content = pickle.dumps(ARRAYS | {"n": np.float32(1)}, protocol)
    codes = [code.encode("latin-1") for code in pickletools.code2op]
    read_whole = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 4)):
            place = random.randrange(len(damaged))
            damaged[place : place + 1] = random.choice(
                (bytes([random.randrange(256)]), b"", *random.choices(codes, k=2))
            )
        try:
            for array in read(tmp_path, bytes(damaged)).values():
                assert array.dtype.kind in "biuf"
            read_whole += 1
        except DataError:
            pass
    assert protocol == 0 or read_whole > 15

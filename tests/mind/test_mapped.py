"""Mapped tensors are what was saved, take no memory of the process, and a header cannot point outside its file."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from mind.errors import ArtifactError
from mind.mapped import blocks, map_tensors


def written(path: Path, content: bytes) -> tuple[Path, str]:
    """A file of this content, and its hash."""
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """The format written by hand, so that headers can lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "I64", shape: Any = (2,), data_offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}


def test_tensors_of_every_type_are_as_they_were_saved(tmp_path: Path) -> None:
    types = ("?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8")
    saved: dict[str, Any] = {name: np.arange(6).reshape(2, 3).astype(name) for name in types}
    saved |= {"scalar": np.array(7.5), "empty": np.zeros((0, 4), np.float32)}
    found = map_tensors(*written(tmp_path / "some.safetensors", save(saved, {"about": "metadata is no tensor"})))
    assert set(found) == set(saved)
    for name, tensor in saved.items():
        np.testing.assert_array_equal(found[name], tensor, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        found["i8"][0] = 1


def test_mapped_tensors_outlive_their_file(tmp_path: Path) -> None:
    file, sha256 = written(tmp_path / "a", save({"a": np.arange(10)}))
    found = map_tensors(file, sha256)
    file.unlink()
    assert found["a"].sum() == 45


@pytest.mark.parametrize("executable", [sys.executable, "/bin/false", "/no/such/file"])
def test_a_process_of_its_own_computes_the_same_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    works = executable not in ("/bin/false", "/no/such/file")
    file, sha256 = written(tmp_path / "a", save({"a": np.arange(10)}))
    assert map_tensors(file, sha256, aside=True)["a"].sum() == 45
    with pytest.raises(ArtifactError, match=f"sha256 is {sha256}, manifest.json says 00"):
        map_tensors(file, "00", aside=True)
    assert ("is hashed in this process" in caplog.text) is not works


def test_mapping_takes_no_memory_of_the_process(tmp_path: Path) -> None:
    file, sha256 = written(tmp_path / "a", save({"a": np.ones(2**24, np.float32)}))
    process = psutil.Process()
    before = process.memory_info()
    found = map_tensors(file, sha256)
    assert all(np.isfinite(block).all() for block in blocks(found["a"]))
    after = process.memory_info()
    private = (after.rss - after.shared) - (before.rss - before.shared)
    assert private < found["a"].nbytes / 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not safetensors: 0 bytes are too few for a header of 0"),
        (safetensors({}, length=3), "not safetensors: 10 bytes are too few for a header of 3"),
        (safetensors({}, length=2**63), "too few for a header of 9,223,372,036,854,775,808"),
        (safetensors(b"{"), "not safetensors: Expecting property name"),
        (safetensors(b"[" * 100_000), "not safetensors: maximum recursion depth"),
        (safetensors([]), "not safetensors"),
        (safetensors({"a": {}}), "not safetensors: 'dtype'"),
        (safetensors(entry("BF16"), bytes(16)), "a has dtype BF16, expected one of BOOL, U8, "),
        (safetensors(entry(["I64"]), bytes(16)), "not safetensors"),
        (safetensors(entry(shape=[-2]), bytes(16)), r"a has shape \[-2\] and data_offsets \[0, 16\], expected at most"),
        (safetensors(entry(shape=[2.0]), bytes(16)), r"a has shape \[2.0\]"),
        (safetensors(entry(shape=[True, 2]), bytes(16)), r"a has shape \[True, 2\]"),
        (safetensors(entry(shape=[2] + [1] * 32), bytes(16)), "expected at most 32 sizes"),
        (safetensors(entry(shape=[2**40, 2**40]), bytes(16)), "takes 9,671,.* bytes, its data_offsets say 16"),
        (safetensors(entry(shape=[0, 2**62, 4], data_offsets=[0, 0])), "not safetensors: .*too big"),
        (safetensors(entry(data_offsets=[0, 8]), bytes(16)), "a takes 16 bytes, its data_offsets say 8"),
        (safetensors(entry(data_offsets=[8, 24]), bytes(24)), "a starts at offset 8, expected 0"),
        (safetensors(entry() | {"b": entry()["a"]}, bytes(16)), "b starts at offset 0, expected 16"),
        (safetensors(entry(), bytes(15)), "85 bytes, its header says 86: damaged or incomplete"),
        (safetensors(entry(), bytes(17)), "87 bytes, its header says 86: damaged or incomplete"),
    ],
)
def test_what_breaks_the_format_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ArtifactError, match=says) as refused:
        map_tensors(*written(tmp_path / "odd", content))
    assert "odd: " in str(refused.value) and len(str(refused.value)) < 1_000


def test_blocks_are_all_of_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mind.mapped.BLOCK_BYTES", 32)
    assert [block.tolist() for block in blocks(np.arange(9))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    overlapping = [block.tolist() for block in blocks(np.arange(9), overlap=1)]
    assert overlapping == [[0, 1, 2, 3], [3, 4, 5, 6, 7], [7, 8]]
    assert [len(block) for block in blocks(np.zeros((3, 100)))] == [1, 1, 1]
    assert list(blocks(np.zeros((0, 4)))) == []

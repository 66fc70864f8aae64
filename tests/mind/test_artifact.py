"""The artifact survives the disk, names itself by its content, and shows every kind of damage."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save

from mind import artifact as artifact_module
from mind.artifact import MANIFEST, TENSORS, load_artifact, newest_artifact, read_manifest, write_artifact
from mind.cells import EXACT_ROWS, cells_of
from mind.config import HyperParameters
from mind.encoder import NumpyEncoder, check_golden
from mind.errors import ArtifactError
from tests.artifacts import make_artifact, make_weights


def test_round_trip(tmp_path: Path) -> None:
    weights = make_weights()
    hyper = HyperParameters(embedding_dim=16, hidden_size=16, maxlen=8)
    path = write_artifact(tmp_path, hyper, weights, {"users": 3}, {"recall@50": 0.2})
    loaded = load_artifact(path)
    assert path.name == loaded.model_version
    assert loaded.hyper_parameters == hyper
    assert (loaded.data, loaded.metrics) == ({"users": 3}, {"recall@50": 0.2})
    for name, array in vars(weights).items():
        np.testing.assert_array_equal(getattr(loaded.weights, name), array)
    with pytest.raises(ValueError, match="read-only"):
        loaded.weights.item_embedding[0] = 1


def test_a_model_and_its_encoder_take_no_memory_of_the_process(tmp_path: Path) -> None:
    path = make_artifact(tmp_path, items=200_000, dim=64)
    process = psutil.Process()
    before = process.memory_info()
    model = load_artifact(path)
    encoder = NumpyEncoder(model.weights, model.hyper_parameters)
    check_golden(encoder, model)
    cells = model.weights.cells()
    assert cells and len(cells.cell) == 200_001
    after = process.memory_info()
    private = (after.rss - after.shared) - (before.rss - before.shared)
    assert private < model.weights.item_embedding.nbytes / 4


def test_the_cells_of_a_large_table_are_in_the_model(tmp_path: Path) -> None:
    weights = load_artifact(make_artifact(tmp_path, items=EXACT_ROWS + 1)).weights
    stored, computed = weights.stored_cells, cells_of(weights.item_embedding, weights.golden_queries)
    assert stored and computed
    for name, array in vars(computed).items():
        np.testing.assert_array_equal(getattr(stored, name), array, strict=True)
    assert load_artifact(make_artifact(tmp_path, items=EXACT_ROWS)).weights.cells() is None


def test_a_model_of_the_format_before_has_its_cells_computed(tmp_path: Path) -> None:
    path = make_artifact(tmp_path, items=EXACT_ROWS + 1)
    now = load_artifact(path).weights
    _replace(path, save(make_weights(items=EXACT_ROWS + 1).tensors()), format_version=2)
    before = load_artifact(path).weights
    cells, stored = before.cells(), now.stored_cells
    assert before.stored_cells is None and cells and stored
    np.testing.assert_array_equal(cells.cell, stored.cell)


def test_damaged_cells_are_named(tmp_path: Path) -> None:
    path = make_artifact(tmp_path, items=EXACT_ROWS + 1)
    tensors = load_artifact(path).weights.tensors()
    count, item_cell = len(tensors["cell_spread"]), np.array(tensors["item_cell"])
    item_cell[7] = count
    _replace(path, save(tensors | {"item_cell": item_cell}))
    with pytest.raises(ArtifactError, match=f"item_cell has cells outside 0 to {count - 1}"):
        load_artifact(path)
    del tensors["item_cell"]
    _replace(path, save(tensors))
    with pytest.raises(ArtifactError, match=r"the hyper-parameters say .*'item_cell'"):
        load_artifact(path)


def test_the_version_is_the_content(tmp_path: Path) -> None:
    first = make_artifact(tmp_path / "a")
    assert make_artifact(tmp_path / "b").name == first.name
    assert make_artifact(tmp_path / "b", seed=1).name != first.name
    before = (first / "manifest.json").stat().st_mtime_ns
    assert make_artifact(tmp_path / "a") == first  # already there: left alone
    assert (first / "manifest.json").stat().st_mtime_ns == before


def test_only_plain_data_is_written(tmp_path: Path) -> None:
    path = make_artifact(tmp_path)
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "model.safetensors"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match=r"holds no model; `python -m mind\.train` writes one"):
        newest_artifact(tmp_path)
    old = make_artifact(tmp_path)
    manifest = json.loads((old / "manifest.json").read_text()) | {"created_at": "2020-01-01T00:00:00+00:00"}
    (old / "manifest.json").write_text(json.dumps(manifest))
    new = make_artifact(tmp_path, seed=1)
    assert newest_artifact(tmp_path) == new
    assert newest_artifact(old) == old


def _flip_byte(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (path / "model.safetensors").write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path / "model.safetensors", 1_000)


def _edit(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    (path / "manifest.json").write_text(json.dumps(manifest))


def _other_dimension(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["hyper_parameters"] |= {"embedding_dim": 32, "hidden_size": 32}
    manifest["model_version"] = artifact_module.content_version(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def _swap_tensors(path: Path) -> None:
    _replace(path, save({"item_id": np.arange(3)}))


def _safetensors(dtype: str, shape: str) -> bytes:
    """One tensor of two bytes whose type or shape we do not read."""
    header = f'{{"item_id": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, 2]}}}}'.encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0"


def _change(name: str, row: int, value: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        tensors = {key: tensor.copy() for key, tensor in load_artifact(path).weights.tensors().items()}
        tensors[name][row] = value
        _replace(path, save(tensors))

    return damage


def _replace(path: Path, content: bytes, **changes: object) -> None:
    """Other tensors, hashes that fit, and other changes of the manifest."""
    (path / "model.safetensors").unlink()  # what is mapped must stay as it is
    (path / "model.safetensors").write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    manifest["files"]["model.safetensors"] = artifact_module.hashlib.sha256(content).hexdigest()
    manifest["model_version"] = artifact_module.content_version(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_flip_byte, r"model\.safetensors: damaged or incomplete: sha256 is \w+, manifest\.json says \w+"),
        (_truncate, "damaged or incomplete"),
        (lambda path: (path / "model.safetensors").unlink(), r"model\.safetensors: cannot be read: No such file"),
        (lambda path: (path / "manifest.json").unlink(), r"manifest\.json: cannot be read: No such file"),
        (lambda path: (path / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
        (lambda path: (path / "manifest.json").write_text("[]"), "expected a JSON object, found list"),
        (lambda path: _edit(path, format_version=1), "format_version is 1, this release reads 2 to 4; upgrade"),
        (lambda path: _edit(path, hyper_parameters={"maxlen": 9}), "changed since it was written"),
        (lambda path: _edit(path, model_version="0" * 12), "calls itself model_version '000000000000'"),
        (_other_dimension, r"item_embedding is float32\[201, 16\], the hyper-parameters say float32\[201, 32\]"),
        (lambda path: (path / "manifest.json").write_text("[" * 100_000), r"manifest\.json: not JSON"),
        (lambda path: _replace(path, _safetensors("BF16", "[1]")), "not safetensors: item_id has dtype BF16"),
        (lambda path: _replace(path, _safetensors("U8", str([2] + [1] * 70))), "not safetensors: item_id has shape"),
        (_change("golden_seq_len", 2, 10**9), "golden_seq_len has lengths outside 0 to 8"),
        (_change("item_embedding", 0, 0.5), "row 0 of item_embedding must be zero"),
        (_change("popularity", 3, -1), "popularity 0 or more"),
        (_swap_tensors, r"tensors are \['item_id'\], expected \['bilinear', "),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    path = make_artifact(tmp_path)
    damage(path)
    with pytest.raises(ArtifactError, match=says):
        load_artifact(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_what_never_ends_is_refused_and_a_link_to_a_file_is_read(tmp_path: Path, name: str) -> None:
    path = make_artifact(tmp_path / "models")
    (path / name).rename(tmp_path / name)
    (path / name).symlink_to(tmp_path / name)
    assert load_artifact(path).model_version == path.name
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        (path / name).unlink()
        (path / name).symlink_to(endless)
        with pytest.raises(ArtifactError, match=f"{name}: is not a regular file, nor a link to one"):
            load_artifact(path)


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors"])
def test_a_link_out_of_a_model_shows_nothing_of_another_file(tmp_path: Path, name: str) -> None:
    path = make_artifact(tmp_path / "models")
    secret = tmp_path / "secret"
    (path / name).unlink()
    (path / name).symlink_to(secret)
    for content in ("password of the database\n", '"password of the database"', '{"password": "of the database"}'):
        secret.write_text(content)
        with pytest.raises(ArtifactError, match=str(path)) as caught:
            load_artifact(path)
        assert "password" not in str(caught.value) and "database" not in str(caught.value)


def test_a_model_that_is_replaced_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is that of one model, the tensors are those of the other."""
    path, other = (make_artifact(tmp_path / "models", seed=seed) for seed in (0, 1))
    whole = {name: (path / name).read_bytes() for name in (MANIFEST, TENSORS)}

    def replaced(directory: Path) -> dict[str, Any]:
        manifest = read_manifest(directory)
        for name in (TENSORS, MANIFEST):
            put(path / name, (other / name).read_bytes())
        return manifest

    def put(file: Path, content: bytes) -> None:
        file.with_name("new").write_bytes(content)
        file.with_name("new").replace(file)

    with monkeypatch.context() as patch:
        patch.setattr(artifact_module, "read_manifest", replaced)
        with pytest.raises(ArtifactError, match="damaged or incomplete"):
            load_artifact(path)
    assert load_artifact(path).model_version == other.name  # whoever wanted the first one compares the versions
    for name, content in whole.items():
        put(path / name, content)
    assert load_artifact(path).model_version == path.name


def test_nan_is_refused(tmp_path: Path) -> None:
    weights = make_weights()
    weights.item_embedding[5, 3] = np.nan
    hyper = HyperParameters(embedding_dim=16, hidden_size=16, maxlen=8)
    with pytest.raises(ArtifactError, match="item_embedding has NaN"):
        write_artifact(tmp_path, hyper, weights, {}, {})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_artifact(tmp_path)

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(artifact_module, "_write_synced", full)
    with pytest.raises(ArtifactError, match=r"cannot be written: No space left on device; it needs 0\.0 MB"):
        make_artifact(tmp_path, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    load_artifact(old)

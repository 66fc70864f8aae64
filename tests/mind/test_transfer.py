"""Models from a URL: half a model is never seen, neither there nor in the cache."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from mind.artifact import FORMAT_VERSION, MANIFEST, TENSORS, content_version, load_artifact
from mind.errors import ArtifactError
from mind.models import app
from mind.transfer import CACHED, FETCHED, Models
from tests.artifacts import make_artifact

URL = "memory://bucket/models"


@pytest.fixture
def models(tmp_path: Path) -> Models:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return Models(URL, tmp_path / "cache")


def test_a_model_goes_up_and_comes_down_the_same(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    assert models.push(path)
    assert not models.push(path)  # it is there
    fetched = models.version(path.name)
    assert fetched == tmp_path / "cache" / path.name
    assert (fetched / TENSORS).read_bytes() == (path / TENSORS).read_bytes()
    assert load_artifact(fetched).model_version == path.name


def test_what_is_in_the_cache_needs_no_network(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    models.push(path)
    models.version(path.name)
    fsspec.filesystem("memory").store.clear()
    assert load_artifact(models.version(path.name)).model_version == path.name


def test_the_newest_is_the_one_written_last(models: Models, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for seed, created in ((0, "2026-01-02"), (1, "2026-01-03"), (2, "2026-01-01")):
        path = make_artifact(tmp_path / "here", seed=seed)
        manifest = json.loads((path / MANIFEST).read_text())
        (path / MANIFEST).write_text(json.dumps(manifest | {"created_at": created}))
        models.push(path)
        if seed == 1:
            newest = path.name
    memory.pipe_file("/bucket/models/unfinished/model.safetensors", b"no manifest yet")
    assert models.newest().name == newest


def test_half_an_upload_is_never_loaded(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    memory = fsspec.filesystem("memory")
    target = f"/bucket/models/{path.name}"
    memory.pipe_file(f"{target}/{TENSORS}", (path / TENSORS).read_bytes())
    with pytest.raises(ArtifactError, match=f"misses .*{MANIFEST}"):
        models.version(path.name)
    memory.pipe_file(f"{target}/{MANIFEST}", (path / MANIFEST).read_bytes())
    memory.pipe_file(f"{target}/{TENSORS}", (path / TENSORS).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=f"{TENSORS}: incomplete, or changed since it was written"):
        models.version(path.name)
    memory.pipe_file(f"{target}/{TENSORS}", (path / TENSORS).read_bytes())
    assert load_artifact(models.version(path.name)).model_version == path.name  # no trace of the failures
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [path.name]


def test_a_model_under_another_name_is_refused(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    renamed = path.with_name("0" * 12)
    shutil.copytree(path, renamed)
    for name in (MANIFEST, TENSORS):
        fsspec.filesystem("memory").pipe_file(f"/bucket/models/{renamed.name}/{name}", (renamed / name).read_bytes())
    with pytest.raises(ArtifactError, match=f"is that of model {path.name}"):
        models.version(renamed.name)


def test_the_cache_keeps_the_models_used_last(models: Models, tmp_path: Path) -> None:
    versions = [make_artifact(tmp_path / "here", seed=seed).name for seed in range(CACHED + 2)]
    for version in versions:
        models.push(tmp_path / "here" / version)
        models.version(version)
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == set(versions[-CACHED:])


def test_a_damaged_model_in_the_cache_is_fetched_again(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    models.push(path)
    fetched = models.version(path.name)
    whole = (fetched / TENSORS).read_bytes()
    (fetched / TENSORS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert (models.version(path.name) / TENSORS).read_bytes() == whole
    (fetched / TENSORS).unlink()
    assert (models.version(path.name) / TENSORS).read_bytes() == whole
    (fetched / MANIFEST).unlink()
    assert load_artifact(models.version(path.name)).model_version == path.name
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [path.name]


def test_the_cache_deletes_nothing_that_it_did_not_fetch(models: Models, tmp_path: Path) -> None:
    """The cache is by mistake a directory of models."""
    mine = [make_artifact(tmp_path / "cache", seed=seed).name for seed in range(CACHED + 2)]
    other = make_artifact(tmp_path / "here", seed=CACHED + 2)
    models.push(other)
    models.version(other.name)
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == {*mine, other.name}
    models.push(tmp_path / "cache" / mine[0])
    (tmp_path / "cache" / mine[0] / TENSORS).write_bytes(b"half a model")
    with pytest.raises(ArtifactError, match="not put there by this cache, so it stays; remove it"):
        models.version(mine[0])
    assert (tmp_path / "cache" / mine[0] / TENSORS).read_bytes() == b"half a model"


def test_the_cache_deletes_nothing_that_a_link_leads_to(models: Models, tmp_path: Path) -> None:
    outside = make_artifact(tmp_path / "elsewhere")
    models.push(outside)
    (outside / FETCHED).touch()  # another cache fetched it
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / outside.name).symlink_to(outside)
    (outside / TENSORS).write_bytes(b"half a model")
    with pytest.raises(ArtifactError, match=f"{outside.name}: damaged, and a link, so it stays; remove it yourself"):
        models.version(outside.name)
    for seed in range(1, CACHED + 2):
        other = make_artifact(tmp_path / "here", seed=seed)
        models.push(other)
        models.version(other.name)
    assert (outside / TENSORS).read_bytes() == b"half a model"


def test_a_cache_that_may_only_be_read_is_used(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_artifact(tmp_path / "here")
    models.push(path)
    models.version(path.name)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.utime", refused)
    assert load_artifact(models.version(path.name)).model_version == path.name


def test_one_damaged_model_does_not_hide_the_others(models: Models, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    models.push(path)
    memory = fsspec.filesystem("memory")
    for number, content in enumerate((b"{}", b'{"created_at": 7}', b"[]", b"{")):
        memory.pipe_file(f"/bucket/models/{number}/{MANIFEST}", content)
        (tmp_path / "here" / str(number)).mkdir()
        (tmp_path / "here" / str(number) / MANIFEST).write_bytes(content)
    assert models.newest().name == path.name
    assert Models(tmp_path / "here").newest() == path
    memory.rm(f"/bucket/models/{path.name}", recursive=True)
    for number in (0, 1, 2):
        memory.rm(f"/bucket/models/{number}", recursive=True)
    with pytest.raises(ArtifactError, match=r"3/manifest\.json: not a JSON object"):
        models.newest()


@pytest.mark.parametrize("files", [[], None, {}, {TENSORS: 7}])
def test_a_manifest_without_hashes_is_refused(models: Models, tmp_path: Path, files: object) -> None:
    manifest = {"format_version": FORMAT_VERSION, "hyper_parameters": {}, "files": files}
    version = content_version(manifest)
    content = json.dumps(manifest | {"model_version": version}).encode()
    for name in (MANIFEST, TENSORS):
        fsspec.filesystem("memory").pipe_file(f"/bucket/models/{version}/{name}", content)
    with pytest.raises(ArtifactError, match=f"misses files.{TENSORS}, the sha256"):
        models.version(version)


def test_errors_name_the_place_without_credentials(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere://bucket/models: cannot be used: Protocol not known: nowhere"):
        Models("nowhere://key:secret@bucket/models", tmp_path).newest()


def test_a_directory_needs_no_cache(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    models = Models(tmp_path / "here", tmp_path / "cache")
    assert models.version(path.name) == models.newest() == path
    assert not (tmp_path / "cache").exists()


def test_push_from_the_command_line(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "here")
    for words in ("pushed to", "is already in"):
        result = CliRunner().invoke(app, ["push", str(path), f"file://{tmp_path}/there"])
        assert result.exit_code == 0, result.output
        assert f"{path.name} {words} file://{tmp_path}/there" in result.stderr
    assert load_artifact(tmp_path / "there" / path.name).model_version == path.name

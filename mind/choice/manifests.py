"""What the manifests in a directory of models say, read without loading a single tensor.

A model that cannot be used is listed with the reason and never hides the others. Knows nothing of comparing them.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mind.artifact import (
    MANIFEST,
    TENSORS,
    check_format,
    content_version,
    read_manifest,
    stated_hyper_parameters,
)
from mind.config import HyperParameters, explain
from mind.errors import ArtifactError
from mind.mapped import read_places

DIGEST_LENGTH = 8


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EpochLine(_Part):
    """One epoch of `metrics.epochs`."""

    epoch: int
    loss: float
    valid: dict[str, float] = {}


class Metrics(_Part):
    """`metrics`: how the training went; models of earlier releases lack epochs and runner."""

    epoch: int | None = None
    loss: float | None = None
    valid: dict[str, float] = {}
    epochs: tuple[EpochLine, ...] = ()
    runner: dict[str, bool | int | float | str | None] = {}
    """The keys of the runner that training depends on, seed among them."""


class Data(_Part):
    """`data`: what the model was trained and validated on."""

    files: dict[str, str] = {}
    """Training files by name, with their sha256."""
    valid: dict[str, str] | None = None
    """Validation files by name, with their sha256; None if there were none, or an earlier release wrote the model."""
    item_features: dict[str, str] = {}
    """The file of item features by name, with its sha256; it is a setting of the model, so no part of `digest`."""
    events: dict[str, Any] = {}
    """What the data record of kinds of clicks; empty if nothing."""
    users: int | None = None
    interactions: int | None = None
    warm_start: str = ""
    """The model whose weights training began with; empty if it began anew."""
    final_of: str = ""
    """The model whose settings were trained on all data; empty for a model that was evaluated itself."""
    exclude_history: bool = False
    """Whether the lists that were measured have no item of the user's history."""

    @cached_property
    def digest(self) -> str:
        """Short name of the data and of what lists have: metrics can be compared where it is the same."""
        parts: list[Any] = [self.files, self.valid, self.users, self.interactions]
        parts += [self.events] if self.events else []
        parts += ["exclude_history"] if self.exclude_history else []
        content = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def summary(self) -> str:
        """One line for people, such as `754 users, 79,235 interactions in train.txt; validated on valid.txt`."""
        if not self.files:
            return "not recorded"
        files = next(iter(self.files)) if len(self.files) == 1 else f"{len(self.files)} files"
        if self.final_of:
            return (
                f"{self.users:,} users, {self.interactions:,} interactions, all there are; settings of {self.final_of}"
            )
        valid = "validation data not recorded" if self.valid is None else f"validated on {', '.join(self.valid)}"
        lists = "; items of the history left out" if self.exclude_history else ""
        return f"{self.users:,} users, {self.interactions:,} interactions in {files}; {valid}{lists}"


class Manifest(_Part):
    """`manifest.json`, as far as models are compared by it."""

    model_version: str
    created_at: str = ""
    hyper_parameters: HyperParameters
    data: Data = Data()
    metrics: Metrics = Metrics()


@dataclass(frozen=True)
class Model:
    """A model on disk, of which only the manifest has been read."""

    path: Path
    manifest: Manifest
    size_bytes: int

    @property
    def version(self) -> str:
        """The version of the model, which names its content."""
        return self.manifest.model_version

    @property
    def age(self) -> tuple[str, str]:
        """A sort key: older models come first, models of the same second by version."""
        return self.manifest.created_at, self.version

    def as_row(self) -> dict[str, Any]:
        """The model as plain data, for programs."""
        manifest = self.manifest
        hyper, data, metrics = manifest.hyper_parameters, manifest.data, manifest.metrics
        return {
            "version": self.version,
            "path": str(self.path),
            "created_at": manifest.created_at,
            "items": hyper.item_count,
            "embedding_dim": hyper.embedding_dim,
            "num_interests": hyper.num_interests,
            "hyper_parameters": hyper.model_dump(mode="json", by_alias=True),
            "runner": metrics.runner,
            "data": {"digest": data.digest, "users": data.users, "interactions": data.interactions},
            "size_bytes": self.size_bytes,
            "epoch": metrics.epoch,
            "valid": metrics.valid,
        }


@dataclass(frozen=True)
class Unusable:
    """A model directory that cannot be used."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Shelf:
    """The models of a directory, older ones first."""

    directory: Path
    models: list[Model] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)

    def chosen(self, versions: list[str]) -> list[Model]:
        """The models whose version starts with one of these texts; all models without any.

        Raises:
            ArtifactError: a text fits no usable model, or several.
        """
        if not versions:
            return self.models
        chosen: list[Model] = []
        for version in versions:
            found = {model.version: model for model in self.models if model.version.startswith(version)}
            broken = [one for one in self.unusable if one.path.name.startswith(version)]
            if not found and broken:
                raise ArtifactError(f"{broken[0].path}: {broken[0].reason}")
            if len(found) != 1:
                what = (
                    "no version begins with this"
                    if not found
                    else "several versions begin with this: " + ", ".join(found)
                )
                raise ArtifactError(f"{self.directory}: model {version}: {what}")
            chosen += found.values()
        return chosen


def read_shelf(directory: Path) -> Shelf:
    """Read every manifest in `directory`; `directory` itself may be one model.

    Raises:
        ArtifactError: it cannot be read, or holds no model at all.
    """
    shelf = Shelf(directory)
    for path in _model_directories(directory):
        try:
            shelf.models.append(_read_model(path))
        except ArtifactError as error:
            shelf.unusable.append(Unusable(path, str(error).removeprefix(f"{path}/")))
    if not shelf.models and not shelf.unusable:
        raise ArtifactError(f"{directory}: holds no model; `python -m mind.train` writes one")
    shelf.models.sort(key=lambda model: model.age)
    return shelf


def _model_directories(directory: Path) -> list[Path]:
    """The subdirectories that hold a part of a model; one that starts with a dot is still being written."""
    if (directory / MANIFEST).is_file():
        return [directory]
    try:
        entries = sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError as error:
        raise ArtifactError(f"{directory}: cannot be read: {error.strerror}") from error
    return [path for path in entries if (path / MANIFEST).exists() or (path / TENSORS).exists()]


def _read_model(path: Path) -> Model:
    content = read_manifest(path)
    check_format(content, path)
    if content.get("model_version") != content_version(content):
        raise ArtifactError(f"{path / MANIFEST}: changed since it was written")
    try:
        content |= {"hyper_parameters": stated_hyper_parameters(content)} if "hyper_parameters" in content else {}
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise ArtifactError(f"{path / MANIFEST}: {explain(error)}") from error
    try:
        with (path / TENSORS).open("rb") as tensors:
            read_places(tensors, path / TENSORS)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError as error:
        raise ArtifactError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return Model(path, manifest, size)

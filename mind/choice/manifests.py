"""Reads the manifests in a directory of models, without loading a tensor.

A model that cannot be used is listed with the reason, and the others are still read. This module knows nothing of
comparing models.
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
    """The section `metrics.epochs`: one epoch."""

    epoch: int
    loss: float
    valid: dict[str, float] = {}


class Metrics(_Part):
    """The section `metrics`: the course of the training. Models of earlier releases have no epochs and no runner."""

    epoch: int | None = None
    loss: float | None = None
    valid: dict[str, float] = {}
    epochs: tuple[EpochLine, ...] = ()
    runner: dict[str, bool | int | float | str | None] = {}
    """The keys of the runner that training depends on, including the seed."""


class Data(_Part):
    """The section `data`: the data that the model was trained and validated on."""

    files: dict[str, str] = {}
    """Training files by name, with their sha256."""
    valid: dict[str, str] | None = None
    """Validation files by name, with their sha256; None if there were none, or if an earlier release wrote the model.
    """
    item_features: dict[str, str] = {}
    """The file of item features by name, with its sha256. It is a setting of the model, so it is not part of `digest`.
    """
    events: dict[str, Any] = {}
    """What the data record about kinds of clicks; empty if nothing."""
    users: int | None = None
    interactions: int | None = None
    warm_start: str = ""
    """The model whose weights training began with; empty if training started from scratch."""
    final_of: str = ""
    """The model whose settings were trained on all data; empty for a model that was itself evaluated."""
    exclude_history: bool = False
    """Whether the measured lists leave out the items of the user's history."""

    @cached_property
    def digest(self) -> str:
        """Return a short name of the data and of `exclude_history`.

        Metrics can be compared if this name is the same.
        """
        parts: list[Any] = [self.files, self.valid, self.users, self.interactions]
        parts += [self.events] if self.events else []
        parts += ["exclude_history"] if self.exclude_history else []
        content = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def summary(self) -> str:
        """Return one line, such as `754 users, 79,235 interactions in train.txt; validated on valid.txt`."""
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
    """The parts of `manifest.json` by which models are compared."""

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
        """Return the version of the model, which is a hash of its content."""
        return self.manifest.model_version

    @property
    def age(self) -> tuple[str, str]:
        """Return a sort key: older models come first, and models of the same second are sorted by version."""
        return self.manifest.created_at, self.version

    def as_row(self) -> dict[str, Any]:
        """Return the model as plain data, for JSON."""
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
        """Return the models whose version begins with one of the texts, or all models if there are no texts.

        Raises:
            ArtifactError: a text fits no usable model, or more than one.
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
    """Read every manifest in a directory, which may also be a single model.

    Raises:
        ArtifactError: the directory cannot be read, or has no model.
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
    """Return the subdirectories with a part of a model.

    A name that starts with a dot is a model that is still written.
    """
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

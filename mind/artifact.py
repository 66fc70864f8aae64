"""The artifact: a trained model as one directory of plain data, named by its content.

    <model_save_path>/<model_version>/
        manifest.json       format version, hyper-parameters, sha256 of every file, data fingerprint, metrics
        model.safetensors   item ids and their text (keys), embeddings, popularity, routing weights, golden histories,
                            cells of the table, neighbours of the items

An artifact contains no pickle and no code, so loading it executes nothing. This module knows nothing of Paddle, and
loading needs only NumPy.
"""

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save as dump_tensors

from mind.config import HyperParameters, explain
from mind.errors import ArtifactError, DataError
from mind.events import EventRules, rules_of
from mind.mapped import map_tensors
from mind.sequences import Float32 as Float32
from mind.vocabulary import Vocabulary
from mind.weights import Weights, check_weights

FORMAT_VERSION = 4
"""The format that is written. Models of format 2 have no cells; code that needs cells computes them."""
READ_VERSIONS = (2, 3, 4)
FROM_HISTORY = 4
"""The first format whose models may begin routing at items of the history. Models of earlier formats never do."""
MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
VERSION_LENGTH = 12

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Artifact:
    """A model that was loaded and checked."""

    model_version: str
    hyper_parameters: HyperParameters
    weights: Weights
    data: dict[str, Any] = field(default_factory=dict)
    """Fingerprint of the data: sha256 of the training, validation, test and feature files; the numbers of users and
    interactions; how they were split; which kinds of clicks are history and targets (`events`).
    """
    metrics: dict[str, Any] = field(default_factory=dict)
    """The epoch that was kept, its loss and validation metrics as fractions, all epochs, and the `runner` keys."""
    created_at: str = ""
    """When the model was written: ISO 8601, UTC."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The items that the model knows."""
        return Vocabulary(self.weights.item_id)

    @property
    def events(self) -> EventRules | None:
        """Which kinds of clicks are history and targets; None without kinds. Raises ArtifactError."""
        try:
            return rules_of(self.data.get("events"))
        except DataError as error:
            raise ArtifactError(f"model {self.model_version}: data.{error}") from error


def check_writable(directory: Path) -> None:
    """Check, before hours of training, that models can be written under `directory`. Raises ArtifactError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=".incomplete-", dir=directory).cleanup()
    except OSError as error:
        raise ArtifactError(f"{directory}: models cannot be written there: {error.strerror}") from error


def write_artifact(
    directory: Path,
    hyper_parameters: HyperParameters,
    weights: Weights,
    data: dict[str, Any],
    metrics: dict[str, Any],
) -> Path:
    """Write a model under `directory` and return its own directory, `<directory>/<model_version>`.

    The directory appears when it is complete. Models that are already there are never touched.

    Raises:
        ArtifactError: the weights do not fit the hyper-parameters, or the disk refused them.
    """
    check_weights(hyper_parameters, weights, directory)
    if cells := weights.cells():
        weights = replace(
            weights,
            cell_centre=cells.centre,
            cell_spread=cells.spread,
            cell_reach=cells.reach,
            item_cell=cells.cell,
        )
    tensors = dump_tensors({name: np.ascontiguousarray(tensor) for name, tensor in weights.tensors().items()})
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "hyper_parameters": hyper_parameters.model_dump(mode="json", by_alias=True),
        "files": {TENSORS: hashlib.sha256(tensors).hexdigest()},
        "data": data,
        "metrics": metrics,
    }
    version = content_version(manifest)
    manifest |= {"model_version": version, "created_at": datetime.now(UTC).isoformat(timespec="microseconds")}
    target = directory / version
    staging: Path | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return target
        staging = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=directory))
        _write_synced(staging / TENSORS, tensors)
        _write_synced(staging / MANIFEST, json.dumps(manifest, indent=2).encode())
        staging.chmod(0o755)
        staging.rename(target)
    except OSError as error:
        raise ArtifactError(
            f"{target}: cannot be written: {error.strerror}; it needs {len(tensors) / 1e6:.1f} MB; "
            "other models in that directory are untouched"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def load_artifact(path: Path, aside: bool = False) -> Artifact:
    """Load a model, and check format, version, hashes and shapes.

    Args:
        path: the directory of the model.
        aside: whether requests are being served meanwhile (`mind.mapped.map_tensors`).

    Raises:
        ArtifactError: what is wrong, with the file, what was found and what was expected.
    """
    manifest = read_manifest(path)
    version = manifest.get("model_version")
    check_format(manifest, path)
    if version != content_version(manifest):
        raise ArtifactError(
            f"{path / MANIFEST}: changed since it was written: it calls itself model_version {version!r}, "
            f"its content is {content_version(manifest)!r}"
        )
    try:
        hyper_parameters = HyperParameters.model_validate(stated_hyper_parameters(manifest))
    except ValidationError as error:
        raise ArtifactError(f"{path / MANIFEST}: hyper_parameters: {explain(error)}") from error
    except KeyError as error:
        raise ArtifactError(f"{path / MANIFEST}: misses {error}") from error
    weights = _load_weights(path / TENSORS, tensors_hash(manifest, path), aside)
    check_weights(hyper_parameters, weights, path)
    return Artifact(
        model_version=version,
        hyper_parameters=hyper_parameters,
        weights=weights,
        data=manifest.get("data", {}),
        metrics=manifest.get("metrics", {}),
        created_at=created_at(manifest),
    )


def stated_hyper_parameters(manifest: dict[str, Any]) -> Any:
    """Return the hyper-parameters in a manifest. Those that its format did not have yet get the values of that time.

    Raises:
        KeyError: there are none.
    """
    stated = manifest["hyper_parameters"]
    return {"routing_init": "random"} | stated if manifest.get("format_version", 0) < FROM_HISTORY else stated


def check_format(manifest: dict[str, Any], path: Path) -> None:
    """Raise ArtifactError if this release cannot read the format of the model in directory `path`."""
    found = manifest.get("format_version")
    if found not in READ_VERSIONS:
        raise ArtifactError(
            f"{path / MANIFEST}: format_version is {found!r}, this release reads "
            f"{READ_VERSIONS[0]} to {READ_VERSIONS[-1]}; upgrade the software or train again"
        )


def newest_artifact(directory: Path) -> Path:
    """Return the model in `directory` that was written last; `directory` itself if it is a model.

    A manifest that cannot be read is skipped with a warning, so that one damaged model does not hide the others.

    Raises:
        ArtifactError: there is none that can be read.
    """
    if (directory / MANIFEST).is_file():
        return directory
    found: list[tuple[str, Path]] = []
    damaged: ArtifactError | None = None
    for path in directory.glob(f"[!.]*/{MANIFEST}"):  # names that start with a dot are still being written
        try:
            found.append((created_at(read_manifest(path.parent)), path.parent))
        except ArtifactError as error:
            logger.warning("%s; this model is left out", error)
            damaged = error
    if found:
        return max(found)[1]
    raise damaged or ArtifactError(f"{directory}: holds no model; `python -m mind.train` writes one")


def created_at(manifest: dict[str, Any]) -> str:
    """Return when a model was written: ISO 8601, UTC. Empty, which sorts first, if the manifest does not tell."""
    found = manifest.get("created_at")
    return found if isinstance(found, str) else ""


def tensors_hash(manifest: dict[str, Any], path: Path) -> str:
    """Return the sha256 of the tensors that a manifest names, in hex. Raises ArtifactError if it names none.

    Args:
        manifest: the content of the manifest.
        path: the directory of the model, or its URL, for the error.
    """
    files = manifest.get("files")
    found = files.get(TENSORS) if isinstance(files, dict) else None
    if not isinstance(found, str):
        raise ArtifactError(f"{path / MANIFEST}: misses files.{TENSORS}, the sha256 of the tensors")
    return found


def content_version(manifest: dict[str, Any]) -> str:
    """Return the model_version that a manifest should have."""
    content = {key: value for key, value in manifest.items() if key not in ("model_version", "created_at")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:VERSION_LENGTH]


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the unchecked manifest of the model in directory `path`. Raises ArtifactError if it is no JSON object."""
    file = path / MANIFEST
    try:
        manifest = json.loads(_content(file).decode())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{file}: expected a JSON object, found {type(manifest).__name__}")
    return manifest


def _content(file: Path) -> bytes:
    """Return the bytes of a file, or of the file that a link leads to. Raises ArtifactError for anything else."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ArtifactError(f"{file}: is not a regular file, nor a link to one")
    return file.read_bytes()


def _load_weights(file: Path, sha256: str, aside: bool) -> Weights:
    tensors = map_tensors(file, sha256, aside)
    wanted = {f.name for f in fields(Weights) if f.default is MISSING}
    if not wanted <= set(tensors) <= {f.name for f in fields(Weights)}:
        raise ArtifactError(f"{file}: tensors are {sorted(tensors)}, expected {sorted(wanted)}")
    return Weights(**tensors)

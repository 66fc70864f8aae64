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
import numpy.typing as npt
from pydantic import ValidationError
from safetensors.numpy import save as dump_tensors

from mind.cells import SHARES, Cells, cells_of
from mind.config import HyperParameters, explain
from mind.errors import ArtifactError, DataError
from mind.events import EventRules, rules_of
from mind.keys import Keys
from mind.mapped import blocks, map_tensors
from mind.neighbours import ItemNeighbours
from mind.sequences import Float32 as Float32
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

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
class Weights:
    """Everything that a model has learnt, and golden histories to check an encoder with. All arrays are read-only."""

    item_id: Int64
    """[N] int64, strictly ascending: external ids; `item_id[i]` has row `i + 1` of the table."""
    item_embedding: Float32
    """[N + 1, D] float32; row 0 is padding and zero."""
    popularity: Int64
    """[N] int64: how often each item occurs in the training data; of clicks with kinds, the weights of its targets."""
    bilinear: Float32
    """[D, D] float32: the shared map from behaviour to interest capsules."""
    routing_logits: Float32
    """[K, L] float32: the logits that routing starts from; fixed, not learnt."""
    recency_logits: Float32
    """[L] float32: softmax logits of a history item's weight in the residual, by age, 0 being the newest."""
    focus: Float32
    """[1] float32: power of an interest's own coupling in the weights of the residual."""
    golden_hist_index: Int64
    """[G, L] int64, 0-padded on the right: item rows of the golden histories, by which encoders are checked."""
    golden_seq_len: Int64
    """[G] int64: the number of items in each golden history."""
    golden_interest_vectors: Float32
    """[G, K, D] float32: the interest vectors that the trained Paddle network gave for the golden histories."""
    projection: Float32 | None = None
    """[D + 1, D] float32: the linear layer before the ReLU, its bias last; None without `projection: relu`."""
    item_key_offsets: Int64 | None = None
    """[N + 1] int64: where the key of each item starts in `item_key_text`; None where ids are the caller's integers."""
    item_key_text: npt.NDArray[np.uint8] | None = None
    """[T] uint8: the keys of the items in UTF-8, one after the other; see `mind.keys`."""
    join_cosine: Float32 | None = None
    """[1] float32: cosine from which interests of a user become one (`mind.joining`); None joins none."""
    cell_centre: Float32 | None = None
    """[C, D] float32: the centres of the item table's cells (`mind.cells`); None for a table too small to have any."""
    cell_spread: Float32 | None = None
    """[C] float32: the spread of each cell."""
    cell_reach: Float32 | None = None
    """[S] float32: how far a cell's rows may lie from its centre, in multiples of its spread."""
    item_cell: npt.NDArray[np.uint16] | None = None
    """[N + 1] uint16: the cell of each row of the item table."""
    neighbour_offsets: Int64 | None = None
    """[N + 2] int64: where the neighbours of each row of the item table start (`mind.neighbours`); None without any."""
    neighbour_row: npt.NDArray[np.int32] | None = None
    """[E] int32: the rows of the neighbours."""
    neighbour_weight: npt.NDArray[np.float16] | None = None
    """[E] float16: how strongly each of them follows the item."""
    neighbour_bonus: Float32 | None = None
    """[1] float32: what a weight of 1 adds to an inner product; 0 if neighbours are no candidates by default."""

    @property
    def keys(self) -> Keys | None:
        """The keys of the items, by row; None where ids are the caller's integers."""
        if self.item_key_offsets is None or self.item_key_text is None:
            return None
        return Keys(self.item_key_offsets, self.item_key_text)

    @property
    def neighbours(self) -> ItemNeighbours | None:
        """The items that follow each item; None in models that were written without them."""
        arrays = self.neighbour_offsets, self.neighbour_row, self.neighbour_weight, self.neighbour_bonus
        offsets, row, weight, bonus = arrays
        if offsets is None or row is None or weight is None or bonus is None:
            return None
        return ItemNeighbours(offsets, row, weight, float(bonus[0]))

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays by name, without those that this model does not have."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @property
    def joins_from(self) -> float:
        """The cosine from which interests of a user become one; 1 joins none."""
        return 1.0 if self.join_cosine is None else float(self.join_cosine[0])

    @property
    def stored_cells(self) -> Cells | None:
        """The stored cells of the item table; None for a small table or a model of format 2."""
        if self.cell_centre is None or self.cell_spread is None or self.item_cell is None or self.cell_reach is None:
            return None
        return Cells(self.cell_centre, self.cell_spread, self.item_cell, self.cell_reach)

    @property
    def golden_queries(self) -> Float32:
        """[Q, D] float32: the interest vectors of all golden histories, without those that are zero."""
        vectors = self.golden_interest_vectors.reshape(-1, self.golden_interest_vectors.shape[-1])
        return vectors[np.any(vectors, axis=1)]

    def cells(self) -> Cells | None:
        """Return the cells of the item table, or None for a small one. To compute them takes 3 s for 368,000 items."""
        return self.stored_cells or cells_of(self.item_embedding, self.golden_queries)


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
    _check(hyper_parameters, weights, directory)
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


def load_artifact(path: Path) -> Artifact:
    """Load a model, and check format, version, hashes and shapes.

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
    weights = _load_weights(path / TENSORS, tensors_hash(manifest, path))
    _check(hyper_parameters, weights, path)
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


def _load_weights(file: Path, sha256: str) -> Weights:
    tensors = map_tensors(file, sha256)
    wanted = {f.name for f in fields(Weights) if f.default is MISSING}
    if not wanted <= set(tensors) <= {f.name for f in fields(Weights)}:
        raise ArtifactError(f"{file}: tensors are {sorted(tensors)}, expected {sorted(wanted)}")
    return Weights(**tensors)


def _check(hyper_parameters: HyperParameters, weights: Weights, path: Path) -> None:
    """Check that weights fit the hyper-parameters and are valid. Raises ArtifactError, which names `path`."""
    tensors, expected = weights.tensors(), _expected(hyper_parameters, weights)
    if set(tensors) != set(expected):
        raise ArtifactError(f"{path}: tensors are {sorted(tensors)}, the hyper-parameters say {sorted(expected)}")
    for name, (shape, dtype) in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ArtifactError(
                f"{path}: {name} is {tensor.dtype}{list(tensor.shape)}, "
                f"the hyper-parameters say {np.dtype(dtype).name}{list(shape)}"
            )
        if tensor.dtype == np.float32 and not all(np.isfinite(block).all() for block in blocks(tensor)):
            raise ArtifactError(f"{path}: {name} has NaN or infinite values")
    items, golden, maxlen = weights.item_id.size, weights.golden_seq_len.size, hyper_parameters.maxlen
    ascending = all((block[1:] > block[:-1]).all() for block in blocks(weights.item_id, overlap=1))
    if items == 0 or golden == 0 or not ascending:
        raise ArtifactError(f"{path}: item_id must be strictly ascending and, like the golden histories, not empty")
    if weights.golden_hist_index.min() < 0 or weights.golden_hist_index.max() > items:
        raise ArtifactError(f"{path}: golden_hist_index names rows outside 0 to {items}")
    if weights.golden_seq_len.min() < 0 or weights.golden_seq_len.max() > maxlen:
        raise ArtifactError(f"{path}: golden_seq_len has lengths outside 0 to {maxlen}")
    if weights.item_embedding[0].any() or weights.popularity.min() < 0:
        raise ArtifactError(f"{path}: row 0 of item_embedding must be zero, and popularity 0 or more")
    if (cells := weights.stored_cells) and cells.cell.max() >= len(cells.centre):
        raise ArtifactError(f"{path}: item_cell has cells outside 0 to {len(cells.centre) - 1}")
    if (neighbours := weights.neighbours) and (problem := neighbours.problem(items)):
        raise ArtifactError(f"{path}: {problem}")
    if weights.keys is not None:
        try:
            weights.keys.check(weights.item_id)
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from error


def _expected(
    hyper_parameters: HyperParameters, weights: Weights
) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Return the shape and type that each tensor must have."""
    items, golden = weights.item_id.size, weights.golden_seq_len.size
    dim, interests, maxlen = (
        hyper_parameters.embedding_dim,
        hyper_parameters.num_interests,
        hyper_parameters.maxlen,
    )
    expected: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "item_id": ((items,), np.int64),
        "item_embedding": ((items + 1, dim), np.float32),
        "popularity": ((items,), np.int64),
        "bilinear": ((dim, dim), np.float32),
        "routing_logits": ((interests, maxlen), np.float32),
        "recency_logits": ((maxlen,), np.float32),
        "focus": ((1,), np.float32),
        "golden_hist_index": ((golden, maxlen), np.int64),
        "golden_seq_len": ((golden,), np.int64),
        "golden_interest_vectors": ((golden, interests, dim), np.float32),
    }
    if hyper_parameters.projection == "relu":
        expected["projection"] = ((dim + 1, dim), np.float32)
    if weights.item_key_text is not None:
        expected["item_key_offsets"] = ((items + 1,), np.int64)
        expected["item_key_text"] = ((weights.item_key_text.size,), np.uint8)
    if weights.neighbour_row is not None:
        size = weights.neighbour_row.size
        expected |= {"neighbour_offsets": ((items + 2,), np.int64), "neighbour_row": ((size,), np.int32)}
        expected |= {"neighbour_weight": ((size,), np.float16), "neighbour_bonus": ((1,), np.float32)}
    if weights.join_cosine is not None:
        expected["join_cosine"] = ((1,), np.float32)
    if weights.cell_spread is not None:
        cells = weights.cell_spread.size
        expected |= {"cell_centre": ((cells, dim), np.float32), "cell_spread": ((cells,), np.float32)}
        expected |= {"cell_reach": ((len(SHARES),), np.float32), "item_cell": ((items + 1,), np.uint16)}
    return expected

"""Everything that a model has learnt, as arrays, and the check that the arrays fit the hyper-parameters.

This module knows nothing of files: `mind.artifact` writes and loads them.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mind.cells import SHARES, Cells, cells_of
from mind.config import HyperParameters
from mind.errors import ArtifactError
from mind.keys import Keys
from mind.mapped import blocks
from mind.neighbours import ItemNeighbours
from mind.sequences import Float32, Int64


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


def check_weights(hyper_parameters: HyperParameters, weights: Weights, path: Path) -> None:
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

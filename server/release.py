"""A released pair of model and collection, as a value. `server.loader` makes it, `server.releases` follows them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mind.artifact import Float32
from mind.cells import Cells
from mind.config import HyperParameters
from mind.encoder import Encoder
from mind.events import EventRules
from mind.keys import Keys
from mind.milvus.collection import ITEM_KEY, Fingerprint, is_presence
from mind.milvus.rules import NO_RULES, ReleaseRules
from mind.nearest import inverse_norms
from mind.neighbours import ItemNeighbours
from mind.sequences import Int64
from mind.vocabulary import Vocabulary
from server.popular import Popular

if TYPE_CHECKING:  # FAISS may not be installed
    from mind.item_index import ItemIndex


@dataclass(frozen=True)
class Release:
    """One model and the collection that was built from it. Never changes; a new release is a new object."""

    model_version: str
    collection: str
    fingerprint: Fingerprint
    hyper_parameters: HyperParameters
    vocabulary: Vocabulary
    keys: Keys | None
    """The text ids of the items that the model knows; None where ids are the caller's integers."""
    encoder: Encoder
    click_weights: Callable[[Int64, Int64], Float32]
    """`mind.encoder.NumpyEncoder.click_weights` of the model, whatever its encoder."""
    item_embedding: Float32
    """[N + 1, D] float32, row 0 padding."""
    cells: Cells | None
    """The cells of the item table, for searches with filters; None for a table that is so small that it needs none."""
    index: "ItemIndex | None"
    """The index of the item table, for searches in memory; None if they score all items."""
    golden_history: tuple[Int64, Int64]
    """[1, L] int64 rows of the item table and [1] int64 length of a history that the encoder is known to encode."""
    golden_interest_vectors: Float32
    """[G, K, D] float32, interest vectors of real histories, for warming up."""
    popular: Popular
    neighbours: ItemNeighbours | None = None
    """The items that follow each item; None in a model without."""
    longest_key: int = 0
    """Bytes of the longest key; 0 where ids are integers."""
    events: EventRules | None = None
    """Which kinds of clicks are history for the model; None if it was trained without kinds."""
    rules: ReleaseRules = NO_RULES
    """What the shop wants for every request that does not turn it off."""

    @cached_property
    def inverse_norms(self) -> Float32:
        """[N + 1] float32, 1 / length of each embedding. The first reader computes them."""
        return inverse_norms(self.item_embedding)

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes of items as callers know them: the Milvus type of each, by name."""
        fields = self.fingerprint.attributes.items()
        return {name: kind for name, kind in fields if name != ITEM_KEY and not is_presence(name)}

    @property
    def adds_neighbours(self) -> bool:
        """Whether neighbours of the newest clicks are candidates unless a request says otherwise."""
        chosen = self.fingerprint.neighbours
        return self.neighbours is not None and (self.neighbours.bonus if chosen is None else chosen) > 0

    @property
    def has_text_ids(self) -> bool:
        """Whether callers name items by text."""
        return self.keys is not None

    def name_of(self, position: int) -> str:
        """What callers call the item at this position of the vocabulary."""
        if self.keys is None:
            return str(self.vocabulary.item_id[position])
        return repr(self.keys.at(np.array([position]))[0])

"""What indexer and server agree on about the item collection in Milvus, as plain data.

Knows nothing of Milvus itself. A collection is named after what it was built from, so that another model, other
attributes or another index are another collection, and building is idempotent. The alias names the released one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

ALIAS = "live"
"""The release pointer, for model and index together."""
ITEM_ID = "item_id"
"""Primary key, INT64: the external item id."""
EMBEDDING = "embedding"
"""FLOAT_VECTOR: the item embedding, as trained."""
METRIC = "IP"
"""Inner product, what the model is trained with."""
BY_KEY: dict[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True"}
"""Of a query: what makes Milvus give the rows with the smallest keys, as pymilvus' iterator does; else any."""
MAX_MESSAGE_BYTES = 48 * 2**20
"""Bytes of one message of rows; Milvus refuses more than 64 MiB."""
MAX_HITS = 16_384
"""Of one query; Milvus refuses more."""
VECTOR_SOURCE = "vector_source"
"""VARCHAR: the `VectorSource` of the item's embedding; filters may ask for it."""

_BREADTHS = {"ef", "search_list", "reorder_k"}  # of HNSW, DISKANN and SCANN
_NAME = re.compile(r"items_[0-9a-f]{12}_[0-9a-f]{8}")


class VectorSource(StrEnum):
    """Where the embedding of an item comes from."""

    TRAINED = "trained"
    """The model knows the item."""
    GIVEN = "given"
    """Somebody made it elsewhere."""
    NEIGHBOURS = "neighbours"
    """Derived from the items that users had together with it (`mind.fresh_items`)."""
    ATTRIBUTES = "attributes"
    """Derived from items that share its attributes."""


def wide_enough(params: Mapping[str, int | float | str], limit: int) -> dict[str, int | float | str]:
    """Search parameters for `limit` hits: Milvus refuses to look at fewer items than it shall give."""
    return {name: max(int(value), limit) if name in _BREADTHS else value for name, value in params.items()}


class Fingerprint(BaseModel):
    """What a verified collection was built from; the server checks it against the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    """Version of the artifact whose embeddings it holds."""
    dim: int
    """Length of an embedding."""
    metric: str
    """`METRIC`."""
    count: int
    """Items."""
    attributes: dict[str, str]
    """Attribute name to Milvus type, such as INT64 or ARRAY<VARCHAR>."""
    attributes_digest: str
    """sha256 of the attribute values; empty without attributes."""
    index_type: str
    """Such as HNSW, FLAT or IVF_FLAT."""
    index_params: dict[str, int | float | str]
    """Parameters of the index build."""
    search_params: dict[str, int | float | str]
    """Parameters that a search must use, such as ef."""
    filter_search_params: dict[str, int | float | str] = {}
    """Those of a search with a filter, which some indexes answer badly otherwise; empty if they are the same."""
    interest_cosine: float = 1
    """Interests of a user at least this similar are searched once (`mind.interests`); 1 searches each on its own."""

    @property
    def collection(self) -> str:
        """Name of the collection: `items_<model_version>_<digest of all the rest>`."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()
        return f"items_{self.model_version}_{digest[:8]}"

    def to_json(self) -> str:
        """Canonical JSON: equal fingerprints give equal text."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint | None":
        """Read a fingerprint; None if the text is none."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def is_item_collection(name: str) -> bool:
    """Whether a collection's name is one that `Fingerprint.collection` gives."""
    return _NAME.fullmatch(name) is not None

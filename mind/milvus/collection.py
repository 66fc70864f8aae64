"""The contract between indexer and server about item collections in Milvus, as plain data.

This module does not use Milvus. The name of a collection contains the model version and a digest of everything else it
was built from. So another model, other attributes or another index make another collection, and a build is idempotent.
The alias points to the released collection.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

ALIAS = "live"
"""The alias that points to the released collection, and so to the released model."""
ITEM_ID = "item_id"
"""Primary key, INT64: the external item id."""
EMBEDDING = "embedding"
"""FLOAT_VECTOR: the item embedding, without normalisation."""
METRIC = "IP"
"""The similarity: inner product, as in training."""
BY_KEY: dict[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True"}
"""Options of a query with which Milvus returns the rows with the smallest keys. Without them it returns any rows."""
MAX_MESSAGE_BYTES = 48 * 2**20
"""Maximum size of one message of rows. Milvus refuses more than 64 MiB."""
MAX_HITS = 16_384
"""Maximum number of hits of one query. Milvus refuses more."""
VECTOR_SOURCE = "vector_source"
"""VARCHAR: the `VectorSource` of the item's embedding. Filters can use it."""
ITEM_KEY = "item_key"
"""VARCHAR: the text id of the item (`mind.keys`). Only collections of models with text ids have it; the filters of
callers name it `item_id`."""

PRESENCE = "__present"
"""The end of the names of BOOL fields that tell whether an item has a value of an attribute: `price__present` of
`price`. Milvus 2.3 has no null, so the attribute itself holds 0, false, "" or [] where there is no value. A collection
that an earlier version built has no such fields."""

_BREADTHS = {"ef", "search_list", "reorder_k"}  # of HNSW, DISKANN and SCANN
_SAME_ITEMS = {
    "FLAT",
    "IVF_FLAT",
    "IVF_SQ8",
}  # index types that score the same items, whatever number of hits is asked for
_NAME = re.compile(r"items_[0-9a-f]{12}_[0-9a-f]{8}")
_BUILDING = re.compile(r"building_[0-9a-f]{12}_[0-9a-f]{8}_([0-9a-f]{11})[0-9a-f]{8}")


class VectorSource(StrEnum):
    """Where the embedding of an item comes from."""

    TRAINED = "trained"
    """The model knows the item."""
    GIVEN = "given"
    """The embedding was given with `upsert --vectors`."""
    NEIGHBOURS = "neighbours"
    """The embedding is derived from items that occur together with this one in interactions (`mind.fresh_items`)."""
    ATTRIBUTES = "attributes"
    """The embedding is derived from items with similar attributes."""


def presence_of(attribute: str) -> str:
    """Return the name of the field that tells whether an item has a value of an attribute."""
    return attribute + PRESENCE


def is_presence(field: str) -> bool:
    """Return whether a name is that of a field that tells whether an item has a value (`PRESENCE`)."""
    return field.endswith(PRESENCE)


def wide_enough(params: Mapping[str, int | float | str], limit: int) -> dict[str, int | float | str]:
    """Raise search parameters to at least `limit`, because Milvus refuses an `ef` below the number of hits."""
    return {name: max(int(value), limit) if name in _BREADTHS else value for name, value in params.items()}


class Fingerprint(BaseModel):
    """What a verified collection was built from. The server checks it against the artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    """The version of the artifact whose embeddings the collection holds."""
    dim: int
    """The length of an embedding."""
    metric: str
    """The similarity; always `METRIC`."""
    count: int
    """The number of items that the build inserted."""
    attributes: dict[str, str]
    """The Milvus type of each attribute, such as INT64 or ARRAY<VARCHAR>, by name."""
    attributes_digest: str
    """The sha256 of the attribute values; empty without attributes."""
    index_type: str
    """The Milvus index type, such as HNSW, FLAT or IVF_FLAT."""
    index_params: dict[str, int | float | str]
    """The parameters of the index build."""
    search_params: dict[str, int | float | str]
    """The parameters that a search must use, such as ef."""
    filter_search_params: dict[str, int | float | str] = {}
    """Not used any more, because no filter is searched in the index. The names of older collections depend on it."""
    interest_cosine: float = 1
    """Interests of a user with at least this cosine share one search (`mind.interests`); 1 searches for each."""
    neighbours: float | None = None
    """The bonus of neighbours (`mind.neighbours`), 0 if they are no candidates by default; None: as the model says."""

    @property
    def collection(self) -> str:
        """Return the name of the collection: `items_<model_version>_<digest of the whole fingerprint>`."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()
        return f"items_{self.model_version}_{digest[:8]}"

    @property
    def breadth(self) -> int | None:
        """Return the number of hits up to which a search finds the first hits of a larger one; None if unknown."""
        if self.index_type in _SAME_ITEMS:
            return MAX_HITS
        return min([int(self.search_params[name]) for name in _BREADTHS if name in self.search_params], default=None)

    def to_json(self) -> str:
        """Write the fingerprint as canonical JSON: equal fingerprints give equal texts."""
        unset = {"neighbours"} if self.neighbours is None else set()  # so collections keep the names that they have
        return json.dumps(self.model_dump(exclude=unset), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Fingerprint | None":
        """Read a fingerprint from JSON. Return None if the text is not a fingerprint."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def is_item_collection(name: str) -> bool:
    """Return whether a name has the form of `Fingerprint.collection`."""
    return _NAME.fullmatch(name) is not None


def building_name(collection: str) -> str:
    """Return a name for a new build of an item collection, which no other build has. It tells when the build began."""
    return f"building_{collection.removeprefix('items_')}_{time.time_ns() // 10**6:011x}{secrets.token_hex(4)}"


def build_age_s(name: str) -> float | None:
    """Return for how many seconds the build with this name runs, or None if it is not the name of a build."""
    begun = _BUILDING.fullmatch(name)
    return time.time() - int(begun[1], 16) / 1000 if begun else None

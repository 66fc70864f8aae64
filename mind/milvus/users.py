"""What server and indexer agree on about remembered users in Milvus, as plain data.

Two kinds of collection. `users` holds histories and belongs to no model: it is the truth. `users_<model_version>` holds
the interest vectors of these histories by one model; it can always be made anew. Knows nothing of Milvus itself.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from pydantic import BaseModel, ConfigDict

from mind.artifact import Float32
from mind.config import HyperParameters
from mind.encoder import Encoder
from mind.milvus.collection import EMBEDDING
from mind.sequences import Int64
from mind.vocabulary import Vocabulary

USERS = "users"
"""The collection of histories."""
USER_KEY = "user_key"
"""Its primary key, VARCHAR: `user_key(user_id)`."""
HIST_ITEM = "hist_item"
"""ARRAY<INT64>: external item ids, oldest first."""
UPDATED_AT = "updated_at"
"""INT64, in both kinds: milliseconds since 1970, by the clock of the server that wrote the history."""
UNUSED = "unused"
"""FLOAT_VECTOR of two zeros: a collection must have a vector."""
INTEREST_KEY = "interest_key"
"""Primary key of the vectors, VARCHAR: `<user key>/<number of the interest>`."""

MAX_USER_ID_BYTES = 128
"""Of UTF-8."""
MAX_KEY = 3 * MAX_USER_ID_BYTES + 3
"""Characters of an `INTEREST_KEY`: escaped, a byte takes three, and an interest has at most two digits."""
MAX_CAPACITY = 4_096
"""Ids that a Milvus ARRAY can hold."""
CLOCK_MARGIN_MS = 60_000
"""How far the clocks of servers may be apart."""
HNSW = {"M": 16, "efConstruction": 128}
"""Index of the vectors on a Milvus server; Milvus Lite searches exactly."""

_NAME = re.compile(r"users_[0-9a-f]{12}")

Row = dict[str, Any]


class UserVectors(BaseModel):
    """What a collection of user vectors is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    """The model that encoded the histories."""
    num_interests: int
    """K."""
    dim: int
    """Length of a vector."""
    synced_from: int = 0
    """All users as they were at this time, in ms since 1970, are in; 0: not even once."""

    @property
    def collection(self) -> str:
        """Its name."""
        return f"users_{self.model_version}"

    @property
    def complete(self) -> bool:
        """Whether it ever held all users."""
        return self.synced_from > 0

    def to_json(self) -> str:
        """What `mind.milvus.records` reads."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))


def now_ms() -> int:
    """The time as `UPDATED_AT` has it."""
    return int(time.time() * 1000)


def is_user_vectors(name: str) -> bool:
    """Whether a collection's name is one that `UserVectors.collection` gives."""
    return _NAME.fullmatch(name) is not None


def user_key(user_id: str) -> str:
    """The id escaped as in URLs: no quote, backslash or slash, so that it can stand in a Milvus expression."""
    return quote(user_id, safe="")


def user_id_of(key: str) -> str:
    """The user id of a user's or an interest's key."""
    return unquote(key.partition("/")[0])


def interest_keys(user_ids: Sequence[str], num_interests: int) -> list[str]:
    """Keys of all interests that the users may have."""
    return [f"{user_key(user_id)}/{number}" for user_id in user_ids for number in range(num_interests)]


def unit_interests(
    histories: Sequence[Int64], vocabulary: Vocabulary, encoder: Encoder, hyper_parameters: HyperParameters
) -> Float32:
    """Interest vectors of unit length, so that an inner product of two is their cosine.

    Args:
        histories: U arrays [n] int64 of external ids, oldest first.
        vocabulary, encoder, hyper_parameters: of the model.

    Returns:
        [U, K, D] float32, zero where a user has no such interest.
    """
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    item_id = np.concatenate([*histories, np.zeros(0, np.int64)])
    hist_index, seq_len, _ = vocabulary.look_up(item_id, offsets, hyper_parameters.maxlen)
    vectors = encoder.encode(hist_index, seq_len)
    length: Float32 = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit: Float32 = (vectors / np.where(length > 0, length, 1)).astype(np.float32, copy=False)
    return unit


def vector_rows(user_ids: Sequence[str], updated_at: Sequence[int], vectors: Float32) -> tuple[list[Row], list[str]]:
    """Rows to store and keys to remove, for the interests that a user does not have.

    Args:
        user_ids: U ids.
        updated_at: U times of their histories.
        vectors: [U, K, D] float32, as `unit_interests` gives them.
    """
    rows, absent = [], []
    present = np.any(vectors, axis=2)  # [U, K]
    for number, (user_id, at) in enumerate(zip(user_ids, updated_at, strict=True)):
        for interest, key in enumerate(interest_keys([user_id], vectors.shape[1])):
            if present[number, interest]:
                rows.append({INTEREST_KEY: key, UPDATED_AT: at, EMBEDDING: vectors[number, interest]})
            else:
                absent.append(key)
    return rows, absent


@dataclass(frozen=True)
class StoredUser:
    """What is remembered of a user."""

    hist_item: Int64
    """[n] int64 external ids, oldest first."""
    updated_at: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Neighbours:
    """The interests found by Q searches, in columns: those of search 0, nearest first, then those of search 1, ..."""

    keys: list[str]
    """[H] interest keys; `user_id_of` tells whose they are."""
    scores: Float32
    """[H] float32, cosines."""
    lengths: Int64
    """[Q] int64, hits of each search."""

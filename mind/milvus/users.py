"""The contract between server and indexer about remembered users in Milvus, as plain data.

There are two kinds of collections. `user_histories` holds the histories and does not depend on a model
(`mind.milvus.histories`). `users_<model_version>` holds the interest vectors that one model computes from these
histories; they can always be computed again. This module does not use Milvus.
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
"""The name of the collection of histories in the earlier format, with one row for each user."""
USER_KEY = "user_key"
"""VARCHAR, primary key of the earlier format: `user_key(user_id)`."""
HIST_ITEM = "hist_item"
"""ARRAY<INT64>: external item ids, oldest first."""
UPDATED_AT = "updated_at"
"""INT64, a time or a version. In a history it is the time at which the server wrote the row, in ms since 1970.
Beside a vector it is the version of the history that the vector was computed from."""
UNUSED = "unused"
"""FLOAT_VECTOR of two zeros. Milvus requires a vector field in every collection."""
INTEREST_KEY = "interest_key"
"""VARCHAR, primary key of the vectors: `<user key>/<number of the interest>`."""

MAX_USER_ID_BYTES = 128
"""Maximum length of a user id, in bytes of UTF-8."""
MAX_KEY = 3 * MAX_USER_ID_BYTES + 3
"""Maximum length of an `INTEREST_KEY`: an escaped byte takes three characters, and an interest has up to two digits."""
MAX_CAPACITY = 4_096
"""Maximum number of ids in a Milvus ARRAY."""
CLOCK_MARGIN_MS = 60_000
"""Maximum difference between the clocks of servers that we allow for."""
HNSW = {"M": 16, "efConstruction": 128}
"""The index parameters of the vectors on a Milvus server. Milvus Lite searches exactly."""

_NAME = re.compile(r"users_[0-9a-f]{12}")

Row = dict[str, Any]


class UserVectors(BaseModel):
    """The record of a collection of user vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_version: str
    """The model that encoded the histories."""
    num_interests: int
    """The number of interest vectors per user (K)."""
    dim: int
    """The length of a vector (D)."""
    synced_from: int = 0
    """The collection holds all users as they were at this time, in milliseconds since 1970; 0 if it never held all."""
    rows: int = 0
    """The number of vectors when a release last encoded the users. Fewer may mean that Milvus lost some."""

    @property
    def collection(self) -> str:
        """Return the name of the collection."""
        return f"users_{self.model_version}"

    @property
    def complete(self) -> bool:
        """Return whether the collection ever held all users."""
        return self.synced_from > 0

    def to_json(self) -> str:
        """Write the record as JSON, which `mind.milvus.records` reads."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))


def now_ms() -> int:
    """Return the current time in the unit of `UPDATED_AT`."""
    return int(time.time() * 1000)


def is_user_vectors(name: str) -> bool:
    """Return whether a name has the form of `UserVectors.collection`."""
    return _NAME.fullmatch(name) is not None


def user_key(user_id: str) -> str:
    """Escape a user id as in a URL. The key has no quote, backslash or slash, so a Milvus expression can hold it."""
    return quote(user_id, safe="")


def user_id_of(key: str) -> str:
    """Return the user id in the key of a user or of an interest."""
    return unquote(key.partition("/")[0])


def interest_keys(user_ids: Sequence[str], num_interests: int) -> list[str]:
    """List the keys of all interests that the users may have."""
    return [f"{key}/{number}" for key in map(user_key, user_ids) for number in range(num_interests)]


def unit_interests(
    histories: Sequence[Int64], vocabulary: Vocabulary, encoder: Encoder, hyper_parameters: HyperParameters
) -> Float32:
    """Compute interest vectors of length 1, so that the inner product of two of them is their cosine.

    Args:
        histories: U arrays [n] int64 of external ids, oldest first.
        vocabulary: the vocabulary of the model.
        encoder: the encoder of the model.
        hyper_parameters: the hyper-parameters of the model.

    Returns:
        [U, K, D] float32. The vector of an interest that a user does not have is zero.
    """
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    item_id = np.concatenate([*histories, np.zeros(0, np.int64)])
    hist_index, seq_len, _ = vocabulary.look_up(item_id, offsets, hyper_parameters.maxlen)
    vectors = encoder.encode(hist_index, seq_len)
    length: Float32 = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit: Float32 = (vectors / np.where(length > 0, length, 1)).astype(np.float32, copy=False)
    return unit


def vector_rows(user_ids: Sequence[str], versions: Sequence[int], vectors: Float32) -> tuple[list[Row], list[str]]:
    """Return the rows to store, and the keys to delete because the user does not have the interest.

    Args:
        user_ids: U user ids.
        versions: the U versions of their histories.
        vectors: [U, K, D] float32, from `unit_interests`.
    """
    rows, absent = [], []
    present = np.any(vectors, axis=2)  # [U, K]
    for number, (user_id, version) in enumerate(zip(user_ids, versions, strict=True)):
        for interest, key in enumerate(interest_keys([user_id], vectors.shape[1])):
            if present[number, interest]:
                rows.append({INTEREST_KEY: key, UPDATED_AT: version, EMBEDDING: vectors[number, interest]})
            else:
                absent.append(key)
    return rows, absent


@dataclass(frozen=True)
class Neighbours:
    """The H interests that Q searches found, in columns: the hits of search 0, nearest first, then of search 1, ..."""

    keys: list[str]
    """[H] interest keys; `user_id_of` returns the user of a key."""
    scores: Float32
    """[H] float32, cosines."""
    lengths: Int64
    """[Q] int64, the number of hits of each search."""


def concatenated(parts: Sequence[Neighbours]) -> Neighbours:
    """Join the results of several batches of searches into one."""
    keys: list[str] = []
    for part in parts:
        keys += part.keys
    scores = np.concatenate([part.scores for part in parts])
    return Neighbours(keys, scores, np.concatenate([part.lengths for part in parts]))

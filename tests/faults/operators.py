"""Operators of the indexer whose clocks differ: its commands, in this process, each with a connection of its own."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.build import build, choose_index
from indexer.catalogue import find, fingerprint_of, item_collections
from indexer.errors import RefusedError
from indexer.items.attributes import read_attributes
from indexer.items.changes import delete, upsert
from indexer.items.item_files import ItemFile
from indexer.items.journal import Journal
from indexer.model import load_model
from indexer.rollout import rollout
from indexer.rollout.retire import prune
from indexer.rollout.switch import close_channel
from mind.artifact import Artifact, Float32, load_artifact
from mind.milvus import collection
from mind.milvus.channels import LIVE, alias_of
from mind.milvus.collection import EMBEDDING, ITEM_ID, VECTOR_SOURCE
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import Models

T = TypeVar("T")
YEAR = "year"
_AHEAD_S: ContextVar[float] = ContextVar("_AHEAD_S", default=0)
_CLOCK = "indexer.catalogue.datetime"
"""Where the indexer reads the time, besides for the name of a build."""


class _Skewed(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Skewed":  # type: ignore[override]
        return super().now(tz) + timedelta(seconds=_AHEAD_S.get())


@contextmanager
def skewed_clocks() -> Iterator[None]:
    """From now on commands read the clock of their operator."""
    real = collection.time
    clock = SimpleNamespace(
        time=lambda: real.time() + _AHEAD_S.get(), time_ns=lambda: real.time_ns() + int(_AHEAD_S.get() * 1e9)
    )
    with patch.object(collection, "time", clock), patch(_CLOCK, _Skewed):
        yield


@dataclass
class Operator:
    """Somebody who runs commands."""

    uri: str
    """Of Milvus, as this operator reaches it."""
    models: Models
    directory: Path
    """For the files that commands read."""
    ahead_s: float = 0
    """How far the clock of the operator is ahead of the right time."""
    timeout_s: float = 30

    def run(self, command: Callable[[Store], T]) -> T:
        """Run a command with the operator's clock and a connection of its own."""
        _AHEAD_S.set(self.ahead_s)
        with Store(Connection(self.uri, timeout_s=self.timeout_s, wait_s=60)) as store:
            return command(store)

    def build(self, version: str, year: int) -> str:
        """Build a model, all of whose items are of one year."""
        model = load_artifact(self.models.version(version))
        file = self._parquet("items", {ITEM_ID: model.weights.item_id, YEAR: [year] * len(model.weights.item_id)})
        attributes = read_attributes(file, model.weights.item_id)
        index = choose_index(is_lite=False, index_type="FLAT", build_params={}, search_params={})
        return self.run(lambda store: build(store, model, attributes, index).collection)

    def publish(self, name: str | None, carry_over: bool = False, channel: str = LIVE) -> str:
        """Publish a collection, or the one that was built last; gives the live one."""
        return self.run(lambda store: rollout.publish(store, self.models, name, carry_over, channel=channel).live)

    def roll_back(self, to: str | None = None, channel: str = LIVE) -> str:
        """Roll back; gives the live collection."""
        return self.run(lambda store: rollout.rollback(store, self.models, to, channel=channel).live)

    def promote(self, channel: str, carry_over: bool = False) -> str:
        """Make what is live in a channel live in `live`; gives it."""
        return self.run(lambda store: rollout.promote(store, self.models, channel, carry_over).live)

    def close(self, channel: str) -> str:
        """Close a channel; gives what was live in it."""
        return self.run(lambda store: close_channel(store, channel) or "")

    def prune(self, keep: int, in_use: Collection[str] = ()) -> list[str]:
        """Prune; gives what was dropped."""
        dropped: list[str] = []
        self.run(lambda store: prune(store, keep, False, set(in_use), dropped.append))
        return [name for name in dropped if collection.is_item_collection(name)]

    def upsert(self, years: Mapping[int, int], vectors: Mapping[int, Float32], channel: str = LIVE) -> None:
        """Give items of the live collection of a channel years, and new ones vectors."""
        attributes = self._parquet("attributes", {ITEM_ID: list(years), YEAR: list(years.values())})

        def command(store: Store) -> None:
            name, model, journal = self._live(store, channel)
            kinds = {column: kind for column, kind in journal.columns.items() if column != VECTOR_SOURCE}
            given = None
            if vectors:
                lists = pa.array([vector.tolist() for vector in vectors.values()], pa.list_(pa.float32()))
                file = self._parquet("vectors", {ITEM_ID: list(vectors), EMBEDDING: lists})
                given = ItemFile(file, ITEM_ID, {}, journal.dim)
            upsert(journal, model, given, ItemFile(attributes, ITEM_ID, kinds), None, lambda *_: None)
            _check_live(store, name, channel)

        self.run(command)

    def delete(self, items: Sequence[int], channel: str = LIVE) -> None:
        """Delete items of the live collection of a channel."""

        def command(store: Store) -> None:
            name, _, journal = self._live(store, channel)
            delete(journal, np.array(items), lambda *_: None)
            _check_live(store, name, channel)

        self.run(command)

    def _live(self, store: Store, channel: str) -> tuple[str, Artifact, Journal]:
        name = store.alias(alias_of(channel))
        assert name
        version = fingerprint_of(find(item_collections(store), name)).model_version
        return name, load_model(self.models, version), Journal(store, name)

    def _parquet(self, name: str, columns: Mapping[str, Any]) -> Path:
        file = self.directory / f"{name}.parquet"
        pq.write_table(pa.table(dict(columns)), file)
        return file


def _check_live(store: Store, name: str, channel: str) -> None:
    """What the commands `upsert` and `delete` check at their end. Raises RefusedError."""
    if store.alias(alias_of(channel)) not in (None, name):
        raise RefusedError(f"another collection was released while this command changed {name}")

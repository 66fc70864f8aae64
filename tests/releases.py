"""Shorthands of the tests: releases without models, and the server's store without settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexer.rollout import rollout
from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.store import Store
from mind.transfer import Models

NO_MODELS = Models(Path("there-are-no-models"))


def publish(store: Store, name: str | None = None) -> rollout.Rollout:
    """Make a collection the live one, where no users are remembered."""
    return rollout.publish(store, NO_MODELS, name)


def rollback(store: Store, to: str | None = None) -> rollout.Rollout:
    """Return to an earlier release, where no users are remembered."""
    return rollout.rollback(store, NO_MODELS, to)


def item_store(uri: str, on_error: Callable[[StoreError], None] = lambda _: None, **connection: Any) -> MilvusStore:
    """The store that a server makes from its settings; `connection` as in `Connection`."""
    return MilvusStore(AioSession(Connection(uri, **connection), on_error))

"""Shorthands of the tests: releases without models, and the server's store without settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexer.rollout import rollout
from mind.milvus.aio_session import AioSession
from mind.milvus.aio_store import MilvusStore
from mind.milvus.channels import LIVE
from mind.milvus.connection import Connection
from mind.milvus.errors import StoreError
from mind.milvus.store import Store
from mind.transfer import Models

NO_MODELS = Models(Path("there-are-no-models"))


def publish(store: Store, name: str | None = None, channel: str = LIVE) -> rollout.Rollout:
    """Make a collection the live one of a channel, where no users are remembered."""
    return rollout.publish(store, NO_MODELS, name, channel=channel)


def rollback(store: Store, to: str | None = None, channel: str = LIVE) -> rollout.Rollout:
    """Return to an earlier release of a channel, where no users are remembered."""
    return rollout.rollback(store, NO_MODELS, to, channel=channel)


def promote(store: Store, channel: str) -> rollout.Rollout:
    """Make what is live in a channel live in `live`, where no users are remembered."""
    return rollout.promote(store, NO_MODELS, channel)


def item_store(uri: str, on_error: Callable[[StoreError], None] = lambda _: None, **connection: Any) -> MilvusStore:
    """The store that a server makes from its settings; `connection` as in `Connection`."""
    return MilvusStore(AioSession(Connection(uri, **connection), on_error))

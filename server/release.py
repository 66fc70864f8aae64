"""The released pair of model and collection: found through the alias, checked, warmed up, swapped in one assignment.

The alias in Milvus is the release pointer for both. A release that fails a check is refused and the one before it keeps
serving.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mind.artifact import Artifact, Float32, load_artifact
from mind.collection import ALIAS, METRIC, Fingerprint
from mind.config import HyperParameters
from mind.encoder import Encoder, check_golden
from mind.errors import ArtifactError
from mind.journal import rows_between
from mind.sequences import Int64
from mind.vocabulary import Vocabulary
from server.errors import (
    CollectionGoneError,
    NotReadyError,
    ReleaseRefusedError,
    ServerError,
    StoreError,
)
from server.store import ItemStore

logger = logging.getLogger(__name__)

COMPARED_VECTORS = 16
"""Stored vectors that are compared with the artifact."""
POPULAR_LISTED = 2_000
"""Length of the popular list; the fallback cannot give more."""


@dataclass(frozen=True)
class Popular:
    """What users without a usable history get, best first."""

    item_ids: Int64
    """[P] int64."""
    scores: Float32
    """[P] float32: share of all training interactions."""


@dataclass(frozen=True)
class Release:
    """One model and the collection that was built from it. Never changes; a new release is a new object."""

    model_version: str
    collection: str
    fingerprint: Fingerprint
    hyper_parameters: HyperParameters
    vocabulary: Vocabulary
    encoder: Encoder
    item_embedding: Float32
    """[N + 1, D] float32, row 0 padding."""
    popular: Popular


class Releases:
    """Follows the alias; `current` is what requests use."""

    def __init__(self, store: ItemStore, artifacts: Path, make_encoder: Callable[[Artifact], Encoder]) -> None:
        """`artifacts`: directory with one directory per model version."""
        self._store = store
        self._artifacts = artifacts
        self._make_encoder = make_encoder
        self._current: Release | None = None
        self._checking = asyncio.Lock()
        self.refused = ""
        """Why the newest release was not taken over; empty when it was."""

    @property
    def current(self) -> Release:
        """The release to serve with. Raises NotReadyError before the first."""
        if self._current is None:
            raise NotReadyError(f"no release is loaded: {self.refused or 'starting'}")
        return self._current

    @property
    def loaded(self) -> bool:
        """Whether a release was loaded."""
        return self._current is not None

    async def can_serve(self) -> bool:
        """Whether the release that was loaded is still in Milvus, whatever the alias says."""
        try:
            await self._store.load(self.current.collection)
        except (NotReadyError, StoreError):
            return False
        return True

    async def check(self) -> tuple[Release | None, Release]:
        """Look at the alias, take over what it names, and make sure that it is in memory.

        Returns:
            The release before and the release now.

        Raises:
            ReleaseRefusedError: the named release fails a check.
            StoreError: Milvus cannot be asked, or the collection being served is gone.
        """
        async with self._checking:
            before = self._current
            try:
                name = await self._store.live_collection()
                if name is None:
                    raise ReleaseRefusedError(f"Milvus has no alias {ALIAS!r}; `python -m indexer publish` sets it")
                if before is not None and before.collection == name:
                    await self._store.load(name)
                    release = before
                else:
                    release = await self._load(name)
                    logger.info("serving model %s from collection %s", release.model_version, name)
            except ServerError as error:
                if self.refused != str(error):
                    logger.warning("%s%s", error, f"; model {before.model_version} stays" if before else "")
                self.refused = str(error)
                raise
            self._current, self.refused = release, ""
            return before, release

    async def _load(self, collection: str) -> Release:
        try:
            fingerprint = await self._store.fingerprint(collection)
        except CollectionGoneError as error:
            raise ReleaseRefusedError(f"alias {ALIAS!r} names {collection}, which does not exist") from error
        if fingerprint is None:
            raise ReleaseRefusedError(f"collection {collection} has no fingerprint: its build has not finished")
        try:
            artifact = await asyncio.to_thread(load_artifact, self._artifacts / fingerprint.model_version)
            encoder = await asyncio.to_thread(self._make_encoder, artifact)
            await asyncio.to_thread(check_golden, encoder, artifact)
        except ArtifactError as error:
            raise ReleaseRefusedError(
                f"collection {collection} needs model {fingerprint.model_version}: {error}"
            ) from error
        await self._store.load(collection)
        await self._compare(collection, fingerprint, artifact)
        await self._warm_up(collection, fingerprint, artifact)
        return Release(
            model_version=artifact.model_version,
            collection=collection,
            fingerprint=fingerprint,
            hyper_parameters=artifact.hyper_parameters,
            vocabulary=artifact.vocabulary,
            encoder=encoder,
            item_embedding=artifact.weights.item_embedding,
            popular=_popular(artifact),
        )

    async def _compare(self, collection: str, fingerprint: Fingerprint, artifact: Artifact) -> None:
        """Hold the collection against the artifact. Raises ReleaseRefusedError."""
        weights = artifact.weights
        found = (fingerprint.model_version, fingerprint.dim, fingerprint.metric, fingerprint.count)
        expected = (artifact.model_version, artifact.hyper_parameters.embedding_dim, METRIC, len(weights.item_id))
        for name, there, here in zip(("model_version", "dim", "metric", "count"), found, expected, strict=True):
            if there != here:
                raise ReleaseRefusedError(f"collection {collection}: {name} is {there}, the model says {here}")
        before = await self._store.changes(collection)
        count = await self._store.count(collection)
        least, most = rows_between(before, await self._store.changes(collection), fingerprint.count)
        if not least <= count <= most:
            because = "" if least == most == fingerprint.count else f", with its journal {least} to {most}"
            raise ReleaseRefusedError(
                f"collection {collection} holds {count} items, its build had {fingerprint.count}{because}"
            )
        sample = np.linspace(0, len(weights.item_id) - 1, min(COMPARED_VECTORS, len(weights.item_id))).astype(int)
        sampled = weights.item_id[sample].tolist()
        stored = await self._store.vectors(collection, sampled)
        deleted = await self._store.deleted(collection, [item_id for item_id in sampled if item_id not in stored])
        for row in sample.tolist():
            if int(weights.item_id[row]) in deleted:
                continue
            vector = stored.get(int(weights.item_id[row]))
            if vector is None or not np.array_equal(vector, weights.item_embedding[row + 1]):
                raise ReleaseRefusedError(
                    f"collection {collection}: the vector of item {weights.item_id[row]} is not that of model "
                    f"{artifact.model_version}"
                )

    async def _warm_up(self, collection: str, fingerprint: Fingerprint, artifact: Artifact) -> None:
        """Search with real interest vectors until caches and connections are warm."""
        vectors = artifact.weights.golden_interest_vectors.reshape(-1, fingerprint.dim)
        for queries in (1, len(vectors)):
            await self._store.search(collection, vectors[:queries], 50, "", dict(fingerprint.search_params), 60)


async def watch(releases: Releases, interval_s: float, on_health: Callable[[bool], Awaitable[None]]) -> None:
    """Check for ever, `interval_s` apart; tell after every check whether requests can be answered."""
    while True:
        try:
            with suppress(ServerError):  # check has logged it
                await releases.check()
            healthy = await releases.can_serve()
        except Exception:
            logger.exception("checking for a release failed")
            healthy = False
        await on_health(healthy)
        await asyncio.sleep(interval_s)


def _popular(artifact: Artifact) -> Popular:
    weights = artifact.weights
    order = np.lexsort((weights.item_id, -weights.popularity))[:POPULAR_LISTED]
    share = weights.popularity[order] / max(int(weights.popularity.sum()), 1)  # an imported model may know none
    return Popular(weights.item_id[order], share.astype(np.float32))

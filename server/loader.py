"""Loads releases: reads the model of a collection, checks both against each other, and warms up.

All channels of a server share one loader. A release that one of them serves already is given to the others as the same
object, and two collections of one model share that model.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from mind.artifact import Artifact, load_artifact
from mind.cells import Cells
from mind.encoder import Encoder, NumpyEncoder, check_golden
from mind.errors import ArtifactError, ConfigError
from mind.milvus.collection import ITEM_KEY, METRIC, Fingerprint
from mind.milvus.journal import rows_between
from mind.milvus.rules import NO_RULES, ReleaseRules
from mind.neighbours import ItemNeighbours
from mind.transfer import Models
from server.errors import CollectionGoneError, ReleaseRefusedError
from server.popular import most_popular
from server.ports import ItemStore
from server.release import Release

if TYPE_CHECKING:  # FAISS may not be installed
    from mind.item_index import ItemIndex

logger = logging.getLogger(__name__)

COMPARED_VECTORS = 16
"""How many stored vectors are compared with the artifact."""


class Loader:
    """Makes releases, and knows those that are in memory."""

    def __init__(
        self,
        store: ItemStore,
        models: Models,
        make_encoder: Callable[[Artifact], Encoder],
        make_index: Callable[[Artifact, Cells | None], "ItemIndex | None"] = lambda *_: None,
    ) -> None:
        """Prepare to load; nothing is loaded yet.

        Args:
            store: Milvus.
            models: where models are loaded from.
            make_encoder: makes the encoder of a model.
            make_index: makes the index of a model's items, for searches in memory.
        """
        self._store = store
        self._models = models
        self._make_encoder = make_encoder
        self._make_index = make_index
        self._releases: WeakValueDictionary[str, Release] = WeakValueDictionary()
        """The releases that somebody uses, by collection."""
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Held while the model of a collection is read, so that channels do not read it at the same time."""
        self._bad_rules: dict[str, str] = {}
        """Rules of releases that cannot be used, as JSON, by collection."""

    def has(self, collection: str) -> bool:
        """Whether the release of a collection is in memory, so that `take` loads nothing."""
        return collection in self._releases

    async def take(self, collection: str) -> Release:
        """The release of a collection, checked and ready to be searched.

        Raises:
            ReleaseRefusedError: it fails a check.
            StoreError: Milvus cannot be asked.
        """
        loading = self._loading.setdefault(collection, asyncio.Lock())
        async with loading:
            release = await self.with_rules(self._releases.get(collection) or await self._load(collection))
            await self._store.load(collection)
            await self._compare(release)
            await self._warm_up(release)
            self._releases[collection] = release
        return release

    async def with_rules(self, release: Release) -> Release:
        """The release with its newest rules. Rules that cannot be used are logged, and those before stay.

        Raises:
            StoreError: Milvus cannot be asked.
        """
        collection = release.collection
        text = await self._store.rules(collection)
        try:
            rules = ReleaseRules.from_json(text)
            rules.check(release.fingerprint.attributes)
        except ConfigError as error:
            if self._bad_rules.get(collection) != text:
                logger.error("the rules of collection %s cannot be used: %s", collection, error)
            self._bad_rules[collection] = text
            return release
        shared = self._releases.get(collection, release)
        if rules == shared.rules:
            return shared
        logger.info("the rules of collection %s are now %s", collection, text or "none")
        self._releases[collection] = changed = replace(shared, rules=rules)
        return changed

    async def count(self, release: Release) -> str:
        """Count the rows of a collection. Return what is wrong with their number; an empty text if nothing is."""
        collection, built = release.collection, release.fingerprint.count
        before = await self._store.changes(collection)
        count = await self._store.count(collection)
        least, most = rows_between(before, await self._store.changes(collection), built)
        if least <= count <= most:
            return ""
        because = "" if least == most == built else f", with its journal {least} to {most}"
        return f"collection {collection} holds {count} items, its build had {built}{because}"

    async def _load(self, collection: str) -> Release:
        """Load the model of a collection. Raises ReleaseRefusedError."""
        try:
            fingerprint = await self._store.fingerprint(collection)
        except CollectionGoneError as error:
            raise ReleaseRefusedError(f"collection {collection} does not exist") from error
        if fingerprint is None:
            raise ReleaseRefusedError(f"collection {collection} has no release record: its build has not finished")
        for other in list(self._releases.values()):
            same_bonus = other.fingerprint.neighbours == fingerprint.neighbours
            if other.model_version == fingerprint.model_version and same_bonus:
                return replace(other, collection=collection, fingerprint=fingerprint, rules=NO_RULES)
        try:
            return await asyncio.to_thread(self._read, collection, fingerprint)
        except ArtifactError as error:
            raise ReleaseRefusedError(
                f"collection {collection} needs model {fingerprint.model_version}: {error}"
            ) from error
        except Exception as error:  # for example if the device has too little memory
            logger.exception("model %s cannot be loaded", fingerprint.model_version)
            raise ReleaseRefusedError(
                f"collection {collection} needs model {fingerprint.model_version}, which cannot be loaded: {error!r}"
            ) from error

    def _read(self, collection: str, fingerprint: Fingerprint) -> Release:
        serves = len(self._releases) > 0
        artifact = load_artifact(self._models.version(fingerprint.model_version), aside=serves)
        encoder = self._make_encoder(artifact)
        check_golden(encoder, artifact)
        keys = artifact.weights.keys
        started = time.monotonic()
        cells = artifact.weights.cells()
        if cells and not artifact.weights.stored_cells:
            logger.warning(
                "model %s is of an older format without the cells that filters need; this process computed them in "
                "%.1f s and keeps them in memory of its own; train again to have them in the model",
                artifact.model_version,
                time.monotonic() - started,
            )
        return Release(
            model_version=artifact.model_version,
            collection=collection,
            fingerprint=fingerprint,
            hyper_parameters=artifact.hyper_parameters,
            vocabulary=artifact.vocabulary,
            keys=keys,
            encoder=encoder,
            click_weights=NumpyEncoder(artifact.weights, artifact.hyper_parameters).click_weights,
            item_embedding=artifact.weights.item_embedding,
            cells=cells,
            index=self._make_index(artifact, cells),
            golden_history=(artifact.weights.golden_hist_index[:1], artifact.weights.golden_seq_len[:1]),
            golden_interest_vectors=artifact.weights.golden_interest_vectors,
            popular=most_popular(artifact.weights),
            neighbours=_with_bonus(artifact.weights.neighbours, fingerprint.neighbours),
            longest_key=keys.longest if keys else 0,
            events=artifact.events,
        )

    async def _compare(self, release: Release) -> None:
        """Compare the collection with the model. Raises ReleaseRefusedError."""
        collection, fingerprint, item_id = release.collection, release.fingerprint, release.vocabulary.item_id
        found = (fingerprint.model_version, fingerprint.dim, fingerprint.metric, fingerprint.count)
        expected = (release.model_version, release.hyper_parameters.embedding_dim, METRIC, len(item_id))
        for name, there, here in zip(("model_version", "dim", "metric", "count"), found, expected, strict=True):
            if there != here:
                raise ReleaseRefusedError(f"collection {collection}: {name} is {there}, the model says {here}")
        if (ITEM_KEY in fingerprint.attributes) != release.has_text_ids:
            has = ("no column", "a column")[ITEM_KEY in fingerprint.attributes]
            kind = "text" if release.has_text_ids else "integers"
            raise ReleaseRefusedError(
                f"collection {collection} has {has} {ITEM_KEY}, but the ids of model {release.model_version} are "
                f"{kind}; build the collection again"
            )
        if problem := await self.count(release):
            raise ReleaseRefusedError(problem)
        sample = np.linspace(0, len(item_id) - 1, min(COMPARED_VECTORS, len(item_id))).astype(int)
        sampled = item_id[sample].tolist()
        stored = await self._store.vectors(collection, sampled)
        deleted = await self._store.deleted(collection, [item for item in sampled if item not in stored])
        for row in sample.tolist():
            if int(item_id[row]) in deleted:
                continue
            vector = stored.get(int(item_id[row]))
            if vector is None or not np.array_equal(vector, release.item_embedding[row + 1]):
                raise ReleaseRefusedError(
                    f"collection {collection}: the vector of item {release.name_of(row)} is not that of model "
                    f"{release.model_version}"
                )

    async def _warm_up(self, release: Release) -> None:
        """Search with real interest vectors until caches and connections are warm."""
        params = dict(release.fingerprint.search_params)
        vectors = release.golden_interest_vectors.reshape(-1, release.fingerprint.dim)
        for queries in (1, len(vectors)):
            await self._store.search(release.collection, vectors[:queries], 50, params, 60)


def _with_bonus(neighbours: ItemNeighbours | None, bonus: float | None) -> ItemNeighbours | None:
    """The neighbours of a model with the bonus that the build set, if it set one."""
    return replace(neighbours, bonus=bonus) if neighbours and bonus else neighbours

"""The released pair of model and collection: found through the alias, checked, warmed up, swapped in one assignment.

The alias in Milvus names the release, model and collection together. A release that fails a check is refused, and the
one before it keeps serving. The pair before the current one stays in memory, for requests in progress and for a quick
rollback.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mind.artifact import Artifact, Float32, load_artifact
from mind.cells import Cells
from mind.config import HyperParameters
from mind.encoder import Encoder, NumpyEncoder, check_golden
from mind.errors import ArtifactError, ConfigError
from mind.events import EventRules
from mind.keys import Keys
from mind.milvus.collection import ALIAS, ITEM_KEY, METRIC, Fingerprint, is_presence
from mind.milvus.journal import rows_between
from mind.milvus.rules import NO_RULES, ReleaseRules
from mind.nearest import inverse_norms
from mind.neighbours import ItemNeighbours
from mind.sequences import Int64
from mind.transfer import Models
from mind.vocabulary import Vocabulary
from server.errors import (
    FAILURES,
    CollectionGoneError,
    Failure,
    NotReadyError,
    ReleaseRefusedError,
    StoreError,
    StoreUnavailableError,
)
from server.popular import Popular, most_popular
from server.ports import ItemStore

if TYPE_CHECKING:  # FAISS may not be installed
    from mind.item_index import ItemIndex

logger = logging.getLogger(__name__)

COMPARED_VECTORS = 16
"""How many stored vectors are compared with the artifact."""
REFUSED_AGAIN_S = (5, 300)
"""Pause in seconds before a refused release is checked again: the first, which doubles each time, and the longest."""
COUNT_EVERY_S = 60.0
"""How often the rows of the collection being served are counted."""
HEALTH_S = 1.0
"""Longest time between two looks whether the collection being served can be searched."""


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


@dataclass(frozen=True)
class _Refusal:
    """A release that failed a check."""

    collection: str
    error: ReleaseRefusedError
    times: int
    again_at: float
    """When it is checked again, on the clock of `time.monotonic`."""


class Releases:
    """Follows the alias. Requests use `current`."""

    def __init__(
        self,
        store: ItemStore,
        models: Models,
        make_encoder: Callable[[Artifact], Encoder],
        keep_previous: bool = True,
        make_index: Callable[[Artifact, Cells | None], "ItemIndex | None"] = lambda *_: None,
        on_check: Callable[[Release | None, Failure | None], None] = lambda *_: None,
    ) -> None:
        """Prepare to follow; nothing is loaded yet.

        Args:
            store: Milvus.
            models: where models are loaded from.
            make_encoder: makes the encoder of a model.
            keep_previous: whether the release before the current one stays in memory.
            make_index: makes the index of a model's items, for searches in memory.
            on_check: called after every check with the release that serves, and with the error if the check failed.
        """
        self._on_check = on_check
        self._store = store
        self._models = models
        self._make_encoder = make_encoder
        self._keep_previous = keep_previous
        self._make_index = make_index
        self._current: Release | None = None
        self._refusal: _Refusal | None = None
        self._checking = asyncio.Lock()
        self.previous: Release | None = None
        """The release before the current one; None without one, or if it made room for one that is being loaded."""
        self._left: list[Release] = []
        """Releases that nobody needs any more, to be freed."""
        self.refused = ""
        """Why the newest release was not taken over; empty if it was."""
        self.miscounted = ""
        """What is wrong with the number of rows of the collection being served; empty if nothing is."""
        self.unloaded = ""
        """Why the collection being served cannot be searched, as far as is known; empty if it can."""
        self._counted_at = 0.0
        self._bad_rules = ""
        """Rules of a release that cannot be used, as JSON."""

    @property
    def current(self) -> Release:
        """The release to serve with. Raises NotReadyError before the first."""
        if self._current is None:
            raise NotReadyError(f"no release is loaded: {self.refused or 'starting'}")
        return self._current

    @property
    def refused_collection(self) -> str:
        """The collection of the release that a check refused; empty if none is refused."""
        return self._refusal.collection if self._refusal else ""

    @property
    def loaded(self) -> bool:
        """Whether a release is loaded."""
        return self._current is not None

    async def can_serve(self) -> bool:
        """Whether the collection of the current release is still in Milvus, whatever the alias says.

        True while Milvus does not answer: the circuit breaker decides how long requests wait for it. True, too, while
        the collection is not in memory, which `unloaded` says; the next `check` loads it.
        """
        try:
            collection = self.current.collection
            loaded = await self._store.loaded(collection)
        except StoreUnavailableError:
            return True
        except (NotReadyError, StoreError):
            return False
        self.unloaded = "" if loaded else f"collection {collection} is not in Milvus' memory; it is being loaded"
        return True

    async def check(self, insist: bool = False) -> tuple[Release | None, Release]:
        """Look at the alias, take over the release that it names, and make sure that its collection is in memory.

        Args:
            insist: check a refused release now, without the pause that grows with every refusal.

        Returns:
            The release before and the release now.

        Raises:
            ReleaseRefusedError: the named release fails a check.
            StoreError: Milvus cannot be asked, or the collection being served is gone.
        """
        async with self._checking:
            before = self._current
            await self._free_left()
            if before is not None and self.unloaded:
                with suppress(StoreError):  # first, because nothing else is asked of Milvus while searches fail
                    await self._store.load(before.collection)
            try:
                name = await self._store.live_collection()
                if name is None:
                    raise ReleaseRefusedError(f"Milvus has no alias {ALIAS!r}; `python -m indexer publish` sets it")
                if before is not None and before.collection == name:
                    await self._store.load(name)
                    await self._count_again(before)
                    self._current = before = release = await self._with_rules(before)
                else:
                    release = await self._take_over(name, insist)
                    self.miscounted, self._counted_at = "", time.monotonic()
            except FAILURES as error:
                if self.refused != str(error):
                    logger.warning("%s%s", error, f"; model {before.model_version} stays" if before else "")
                self._on_check(before, error)
                self.refused = str(error)
                raise
            self.refused, self._refusal = "", None
            if release is not before:
                self._current, self.previous = release, before if self._keep_previous else None
                if before and not self._keep_previous:
                    self._left.append(before)  # freed by the next check, when requests in progress have ended
                logger.info("serving model %s from collection %s", release.model_version, name)
            self._on_check(release, None)
            return before, release

    async def _take_over(self, collection: str, insist: bool) -> Release:
        """Check a release that is not the current one."""
        refusal = self._refusal if self._refusal and self._refusal.collection == collection else None
        if refusal and not insist and time.monotonic() < refusal.again_at:
            raise refusal.error
        try:
            if self.previous is not None and self.previous.collection == collection:
                release = await self._with_rules(self.previous)
            else:
                if self.previous is not None:  # otherwise there would be three in memory
                    self._left.append(self.previous)
                    self.previous = None
                    await self._free_left()
                release = await self._with_rules(await self._load(collection))
            await self._store.load(collection)
            await self._compare(release)
            await self._warm_up(release)
        except ReleaseRefusedError as error:
            times = refusal.times + 1 if refusal else 1
            first, longest = REFUSED_AGAIN_S
            pause = min(first * 2 ** (times - 1), longest)
            self._refusal = _Refusal(collection, error, times, time.monotonic() + pause)
            raise
        return release

    async def _with_rules(self, release: Release) -> Release:
        """The release with its newest rules. Rules that cannot be used are logged, and those before stay."""
        text = await self._store.rules(release.collection)
        try:
            rules = ReleaseRules.from_json(text)
            rules.check(release.fingerprint.attributes)
        except ConfigError as error:
            if self._bad_rules != text:
                logger.error("the rules of collection %s cannot be used: %s", release.collection, error)
            self._bad_rules = text
            return release
        if rules == release.rules:
            return release
        logger.info("the rules of collection %s are now %s", release.collection, text or "none")
        return replace(release, rules=rules)

    async def _free_left(self) -> None:
        """Free releases in a thread, because it takes 10 ms to unmap a model of 1 GB."""
        if self._left:
            await asyncio.to_thread(self._left.clear)

    async def _load(self, collection: str) -> Release:
        """Load the model of a collection. Raises ReleaseRefusedError."""
        try:
            fingerprint = await self._store.fingerprint(collection)
        except CollectionGoneError as error:
            raise ReleaseRefusedError(f"alias {ALIAS!r} names {collection}, which does not exist") from error
        if fingerprint is None:
            raise ReleaseRefusedError(f"collection {collection} has no release record: its build has not finished")
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
        artifact = load_artifact(self._models.version(fingerprint.model_version), aside=self.loaded)
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
        if problem := await self._count(release):
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

    async def _count(self, release: Release) -> str:
        """Count the rows of a collection. Return what is wrong with their number; an empty text if nothing is."""
        collection, built = release.collection, release.fingerprint.count
        before = await self._store.changes(collection)
        count = await self._store.count(collection)
        least, most = rows_between(before, await self._store.changes(collection), built)
        if least <= count <= most:
            return ""
        because = "" if least == most == built else f", with its journal {least} to {most}"
        return f"collection {collection} holds {count} items, its build had {built}{because}"

    async def _count_again(self, release: Release) -> None:
        """Count the rows of the collection being served now and then, because anybody may write to Milvus."""
        if time.monotonic() - self._counted_at < COUNT_EVERY_S:
            return
        self._counted_at = time.monotonic()
        problem = await self._count(release)
        if problem and problem != self.miscounted:
            logger.error("%s; it is served nevertheless: build it again and publish it", problem)
        self.miscounted = problem

    async def _warm_up(self, release: Release) -> None:
        """Search with real interest vectors until caches and connections are warm."""
        params = dict(release.fingerprint.search_params)
        vectors = release.golden_interest_vectors.reshape(-1, release.fingerprint.dim)
        for queries in (1, len(vectors)):
            await self._store.search(release.collection, vectors[:queries], 50, params, 60)


async def watch(releases: Releases, interval_s: float, on_health: Callable[[bool], Awaitable[None]]) -> None:
    """Check for releases for ever, every `interval_s`, and tell `on_health` whether requests can be answered.

    A check that takes long, because a model is downloaded or a collection loaded, does not delay what `on_health` is
    told, at least every `HEALTH_S`.
    """
    checked = asyncio.Event()
    checking = asyncio.create_task(_keep_checking(releases, interval_s, checked))
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(checked.wait(), interval_s)
        while True:
            try:
                healthy = await releases.can_serve()
            except Exception:
                logger.exception("asking for the collection being served failed")
                healthy = False
            await on_health(healthy)
            await asyncio.sleep(min(interval_s, HEALTH_S))
    finally:
        checking.cancel()


async def _keep_checking(releases: Releases, interval_s: float, checked: asyncio.Event) -> None:
    """Check again and again. `checked`: set after every check."""
    while True:
        try:
            with suppress(*FAILURES):  # check has logged it
                await releases.check()
        except Exception:
            logger.exception("checking for a release failed")
        checked.set()
        await asyncio.sleep(interval_s)


def _with_bonus(neighbours: ItemNeighbours | None, bonus: float | None) -> ItemNeighbours | None:
    """The neighbours of a model with the bonus that the build set, if it set one."""
    return replace(neighbours, bonus=bonus) if neighbours and bonus else neighbours

"""Items that were added since the build, as neighbours of the items that users clicked before them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, Float32, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.milvus.journal import Clicked
from mind.transfer import Models
from server.edge.answers import interests
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving import added, changes
from server.serving.added import ItemRows, Links
from server.serving.answer import Outcome
from server.serving.local import LocalItems
from server.serving.matching import Matches
from server.serving.merge import Source
from server.serving.pipeline import CandidatePipeline
from server.serving.similar import ItemQuery, SimilarResult, similar_items
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.fake_store import FakeStore
from tests.server.conftest import Clock
from tests.server.test_neighbours import ask, ranks

A, B, C = 1000, 1007, 1014  # rows 1, 2, 3 of 200
OLD, NEW = 5, 9_000  # ids before and after those of the model
BONUS = 8.0
NO_LINKS = Links()


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    weights = with_neighbours(make_weights(), bonus=BONUS)
    return load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))


@pytest.fixture
def store(artifact: Artifact) -> FakeStore:
    store = FakeStore()
    store.publish(artifact)
    return store


@pytest.fixture
async def release(store: FakeStore, tmp_path: Path) -> Release:
    loader = Loader(store, Models(tmp_path), lambda model: NumpyEncoder(model.weights, model.hyper_parameters))
    releases = Releases(store, loader)
    await releases.check()
    return releases.current


class Shop:
    """A pipeline that lives on while items come and go, and its clock."""

    def __init__(self, store: FakeStore, release: Release, clock: Clock) -> None:
        self.store, self.release, self.clock, self.local = store, release, clock, LocalItems(store)

    def add(self, item_id: int, vector: Float32, before: dict[int, float]) -> None:
        self.store.add(self.release.collection, item_id, vector, before=before)

    async def recall(self, history: list[int], **options: object) -> Outcome:
        self.clock.now += 2  # so that the newest changes are looked for
        with ThreadPoolExecutor(1) as encode_on:
            pipeline = CandidatePipeline(self.store, encode_on, local=self.local)
            return await pipeline.run(self.release, ask(history, **options), None, explain=True)  # type: ignore[arg-type]

    async def sources(self, history: list[int], **options: object) -> dict[int, Source]:
        (result,) = (await self.recall(history, **{"top_k": 300} | options)).results
        return dict(zip(result.item_ids.tolist(), map(Source, result.source.tolist()), strict=True))

    async def similar(self, item_id: int, by: Source) -> SimilarResult:
        self.clock.now += 2
        await self.local.look(self.release)
        known = self.local.known(self.release)
        query = ItemQuery(np.array([item_id]), np.zeros(0, np.int64), 100, by)
        (result,) = similar_items(self.release, known.items, None, [query], known.added)
        return result


@pytest.fixture
def shop(store: FakeStore, release: Release, clock: Clock) -> Shop:
    return Shop(store, release, clock)


def vector(artifact: Artifact, row: int) -> Float32:
    return artifact.weights.item_embedding[row]


async def test_an_added_item_gets_score_and_bonus_as_any_neighbour(shop: Shop, artifact: Artifact) -> None:
    """0.8 as a neighbour of the newest click and 0.4 of the one before, which counts 0.8 times."""
    by_interest, bonus = ranks(artifact, [A, B, C])
    users = by_interest @ np.linalg.pinv(artifact.weights.item_embedding[1:].T)  # [K, D]
    place = np.argsort(np.argsort(-by_interest, axis=1), axis=1).min(axis=0)  # of each item, where it is best placed
    new = vector(artifact, 1 + int(np.where(place > 20, place, 200).argmin()))  # which a search for 20 does not find
    shop.add(NEW, new, {C: 0.8, B: 0.4})
    expected = dict(zip(artifact.vocabulary.item_id.tolist(), by_interest.max(axis=0) + bonus, strict=True))
    expected[NEW] = float((users @ new).max()) + BONUS * (np.float16(0.8) + 0.8 * np.float16(0.4))
    (result,) = (await shop.recall([A, B, C], top_k=20)).results
    best = sorted(expected, key=lambda item: -expected[item])[:20]
    assert result.item_ids.tolist() == best
    assert NEW in best
    place = best.index(NEW)
    assert result.scores[place] == pytest.approx(float((users @ new).max()), rel=1e-3)
    assert result.source[place] == Source.NEIGHBOURS


async def test_it_is_found_by_both_if_the_search_finds_it_too(shop: Shop, artifact: Artifact) -> None:
    shop.add(OLD, vector(artifact, 3), {C: 0.5})
    assert (await shop.sources([A, B, C]))[OLD] is Source.BOTH
    assert (await shop.sources([A, B]))[OLD] is Source.SEARCH  # it does not follow these


async def test_deletions_remove_it_and_another_upsert_replaces_what_it_follows(shop: Shop, artifact: Artifact) -> None:
    shop.add(OLD, vector(artifact, 7), {C: 0.5})
    shop.add(NEW, vector(artifact, 8), {C: 0.5})
    found = await shop.sources([C])
    assert found[OLD] is found[NEW] is Source.BOTH
    shop.add(OLD, vector(artifact, 7), {A: 0.5})
    found = await shop.sources([C])
    assert (found[OLD], found[NEW]) == (Source.SEARCH, Source.BOTH)
    assert (await shop.sources([A]))[OLD] is Source.BOTH
    shop.store.delete(shop.release.collection, [NEW])
    assert NEW not in await shop.sources([C])
    assert shop.local.known(shop.release).links.added.tolist() == [OLD]
    shop.add(OLD, vector(artifact, 7), {})
    assert (await shop.sources([A]))[OLD] is Source.SEARCH
    assert shop.local.known(shop.release).added is None


async def test_filters_and_exclusions_hold_for_it(shop: Shop, artifact: Artifact) -> None:
    shop.add(NEW, vector(artifact, 3), {C: 0.9})
    assert (await shop.sources([C], filter="item_id > 1700"))[NEW] is Source.BOTH
    assert NEW not in await shop.sources([C], filter="item_id < 1700")
    assert NEW not in await shop.sources([C], exclude=(NEW,))
    assert NEW in await shop.sources([C, NEW])  # an unknown click, which is no history
    assert NEW not in await shop.sources([C, NEW], exclude_history=True)


async def test_similar_items_by_neighbours_see_it(shop: Shop, artifact: Artifact) -> None:
    shop.add(NEW, 3 * vector(artifact, 3), {C: 1.0, A: 0.25})
    near, both = await shop.similar(C, Source.NEIGHBOURS), await shop.similar(C, Source.BOTH)
    assert near.item_ids[0] == NEW and near.weights[0] == 1.0
    assert near.scores[0] == pytest.approx(1)  # a cosine
    assert (near.source == Source.NEIGHBOURS).all() and (np.diff(near.weights) <= 0).all()
    assert both.item_ids[0] == NEW and both.source[0] == Source.BOTH and both.weights[0] == 1.0
    assert NEW in (await shop.similar(A, Source.NEIGHBOURS)).item_ids
    assert NEW not in (await shop.similar(B, Source.NEIGHBOURS)).item_ids
    assert not len((await shop.similar(NEW, Source.NEIGHBOURS)).item_ids)  # nobody knows yet what follows it
    shop.store.delete(shop.release.collection, [NEW])
    assert NEW not in (await shop.similar(C, Source.NEIGHBOURS)).item_ids


async def test_explain_tells_which_neighbours_were_added(shop: Shop, artifact: Artifact) -> None:
    shop.add(NEW, vector(artifact, 3), {C: 0.9})
    trace = (await shop.recall([A, B, C])).trace
    assert trace is not None
    added = {
        item_id: is_added
        for interest in interests(trace, shop.release, None)
        for item_id, is_added in zip(interest.neighbour_item_ids, interest.neighbour_fresh, strict=True)
    }
    assert added.pop(NEW) is True and len(added) > 5 and not any(added.values())


async def test_a_model_without_neighbours_does_not_ask_for_clicks(
    shop: Shop, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.store, "clicked", None)
    shop.release = replace(shop.release, neighbours=None)
    shop.add(NEW, vector(artifact, 3), {C: 0.9})
    await shop.local.look(shop.release)
    assert shop.local.known(shop.release).added is None


async def test_what_is_read_again_and_has_not_changed_is_not_sorted_again(shop: Shop, artifact: Artifact) -> None:
    shop.add(NEW, vector(artifact, 3), {C: 0.9, A: 0.1})
    await shop.local.look(shop.release)
    before = shop.local.known(shop.release)
    shop.clock.now += changes.READ_AGAIN_S[-1]
    await shop.local.look(shop.release)
    after = shop.local.known(shop.release)
    assert after.read_at > before.read_at and after.links is before.links and after.added is before.added


def linked(before: dict[int, float]) -> str:
    return Clicked([], list(before.items())).to_json()


def test_only_so_many_links_are_kept_and_only_good_ones(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {OLD: linked({A: 0.5, 77: 0.9, B: 0.0, C: float("inf")}), NEW: "from the future", 7: "[[1000, 0.5]]"}
    links = NO_LINKS.updated(np.array([OLD, NEW]), told, release.vocabulary)
    assert (links.added.tolist(), links.before.tolist(), links.weight.tolist()) == ([OLD], [1], [0.5])
    monkeypatch.setattr(added, "MAX_LINKS", 2)
    links = links.updated(np.array([NEW]), {NEW: linked({A: 0.25, C: 0.75})}, release.vocabulary)
    assert (links.added.tolist(), links.before.tolist()) == ([OLD, NEW], [1, 3])


def test_added_neighbours_of_an_item_by_weight_and_no_more_than_fifty(release: Release) -> None:
    ids = np.arange(10_000, 10_060)
    told = {item: linked({A: 0.1 + 0.01 * (item % 30), B: 0.5}) for item in ids.tolist()}
    found = NO_LINKS.updated(ids, told, release.vocabulary).neighbours(ids, 200)
    of_a = found.row[found.item == 1] - 201 + 10_000
    assert of_a.tolist() == sorted(ids.tolist(), key=lambda item: (-(item % 30), item))[:50]
    assert (found.row[found.item == 2] - 201).tolist() == list(range(50))  # of equal weight: by id


def test_rows_of_the_table_and_after_it(release: Release) -> None:
    every = np.arange(1, 201, dtype=np.int32)
    vectors = np.stack([np.full(16, 1.0), np.full(16, 2.0)]).astype(np.float32)
    known = Matches(every, np.array([OLD, NEW]), vectors)
    rows = ItemRows(release, known)
    assert rows.of(np.array([1000, NEW, OLD, 6])).tolist() == [1, 202, 201, 0]
    row = np.array([1, 202, 201])
    assert rows.item_ids(row).tolist() == [1000, NEW, OLD]
    np.testing.assert_array_equal(rows.embeddings(row)[1:], known.fresh_vectors[::-1])
    np.testing.assert_allclose(rows.inverse_norms(row)[1:], [1 / 8, 1 / 4])
    only_one = replace(known, fresh_ids=known.fresh_ids[:1])
    assert rows.among(row, only_one).tolist() == [True, False, True]

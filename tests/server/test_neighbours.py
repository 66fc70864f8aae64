"""The second source of candidates: neighbours of the newest clicks, beside what the search finds."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import encode_histories
from mind.hits import Hits
from mind.sequences import Float32, Sequences
from mind.transfer import Models
from server.errors import StoreUnavailableError
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving.answer import Outcome
from server.serving.inputs import NO_EXCLUSIONS
from server.serving.merge import Exclusions, Fate, Source
from server.serving.neighbours import least_scores
from server.serving.pipeline import CandidatePipeline
from server.serving.question import Query, Strategy, UserQuery
from server.serving.search import Found
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.fake_store import FakeStore

ITEMS = 200  # ids 1000, 1007, ..., 2393
A, B, C = 1000, 1007, 1014


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    weights = with_neighbours(make_weights(items=ITEMS), bonus=8)
    return load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))


@pytest.fixture
def store(artifact: Artifact) -> FakeStore:
    store = FakeStore()
    store.publish(artifact)
    return store


@pytest.fixture
async def release(store: FakeStore, tmp_path: Path) -> Release:
    releases = Releases(
        store, Loader(store, Models(tmp_path), lambda model: NumpyEncoder(model.weights, model.hyper_parameters))
    )
    await releases.check()
    return releases.current


def ask(*histories: list[int], top_k: int = 10, exclude: tuple[int, ...] = (), **options: object) -> Query:
    users = [UserQuery(np.array(h, np.int64), np.array(exclude, np.int64)) for h in histories]
    settings = {"filter": "", "exclude_history": False, "strategy": Strategy.BEST_SCORE, "neighbours": True} | options
    return Query(users=users, top_k=top_k, **settings)  # type: ignore[arg-type]


async def run(store: FakeStore, release: Release, query: Query, explain: bool = True) -> Outcome:
    with ThreadPoolExecutor(1) as encode_on:
        return await CandidatePipeline(store, encode_on, search_timeout_ms=1000).run(release, query, None, explain)


def ranks(artifact: Artifact, history: list[int]) -> tuple[Float32, Float32]:
    """The inner product of each item with each interest of the user, [K, N], and the bonus of each, [N]."""
    sequences = Sequences(np.array([0]), np.array([0, len(history)]), np.array(history))
    encoder = NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    vectors = encode_histories(encoder, artifact.vocabulary, sequences, artifact.hyper_parameters.maxlen, 1)
    bonus = np.zeros((1, ITEMS), np.float32)
    rows = artifact.vocabulary.item_index(np.array([history]))
    artifact.weights.neighbours.near(rows, np.array([len(history)])).add(bonus)
    return vectors[0] @ artifact.weights.item_embedding[1:].T, bonus[0]


async def test_lists_go_by_inner_product_and_bonus_of_all_items(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    by_interest, bonus = ranks(artifact, [A, B, C])
    scores = by_interest.max(axis=0)
    (result,) = (await run(store, release, ask([A, B, C], top_k=8))).results
    place = (result.item_ids - 1000) // 7
    assert place.tolist() == np.argsort(-(scores + bonus), kind="stable")[:8].tolist()
    assert np.allclose(result.scores, scores[place], rtol=1e-5)  # the bonus is in the order, not in the scores
    searched, near = np.isin(place, np.argsort(-by_interest)[:, :8]), bonus[place] > 0
    assert (result.source == np.where(near, np.where(searched, Source.BOTH, Source.NEIGHBOURS), Source.SEARCH)).all()
    assert set(result.source.tolist()) == {Source.SEARCH, Source.NEIGHBOURS, Source.BOTH}


async def test_without_neighbours_lists_are_as_ever_and_have_no_labels(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    scores = ranks(artifact, [A, B, C])[0].max(axis=0)
    (result,) = (await run(store, release, ask([A, B, C], top_k=8, neighbours=False))).results
    assert ((result.item_ids - 1000) // 7).tolist() == np.argsort(-scores, kind="stable")[:8].tolist()
    assert result.source is None


async def test_exclusions_filters_and_deletions_hold_for_neighbours_too(store: FakeStore, release: Release) -> None:
    (result,) = (await run(store, release, ask([A, B, C]))).results
    first, second, third, *_ = result.item_ids[result.source != Source.SEARCH].tolist()
    (result,) = (await run(store, release, ask([A, B, C], exclude=(first,)))).results
    assert first not in result.item_ids
    (result,) = (await run(store, release, ask([A, B, second], exclude_history=True, top_k=50))).results
    assert not {A, B, second} & set(result.item_ids.tolist())
    (result,) = (await run(store, release, ask([A, B, C], filter="item_id > 1700", top_k=50))).results
    assert min(result.item_ids) > 1700
    assert Source.BOTH in result.source
    store.delete(release.collection, [third])
    (result,) = (await run(store, release, ask([A, B, C], top_k=150))).results
    assert third not in result.item_ids


async def test_whoever_has_no_usable_history_gets_the_popular_list_alone(store: FakeStore, release: Release) -> None:
    results = (await run(store, release, ask([], [5], [A]), explain=False)).results
    assert [result.source is None for result in results] == [True, True, False]


async def test_the_answer_does_not_depend_on_the_batch(store: FakeStore, release: Release) -> None:
    histories = [[A, B, C], [C], [], [1021, A], [5, 6], [1028] * 30]
    for strategy in Strategy:
        together = await run(store, release, ask(*histories, strategy=strategy), explain=False)
        for history, batched in zip(histories, together.results, strict=True):
            (alone,) = (await run(store, release, ask(history, strategy=strategy))).results
            assert batched.item_ids.tolist() == alone.item_ids.tolist()
            assert batched.scores.tobytes() == alone.scores.tobytes()


@pytest.mark.parametrize("options", [{}, {"exclude_history": True}, {"top_k": 3}, {"top_k": 150}])
async def test_leaving_neighbours_out_beforehand_changes_no_list(
    store: FakeStore, release: Release, options: dict[str, int]
) -> None:
    rng = np.random.default_rng(0)
    histories = [(1000 + 7 * rng.integers(0, ITEMS, length)).tolist() for length in range(1, 20)]
    for strategy in Strategy:
        query = ask(*histories, strategy=strategy, **options)
        for history, found in zip(histories, (await run(store, release, query, explain=False)).results, strict=True):
            (told,) = (await run(store, release, ask(history, strategy=strategy, **options))).results  # has them all
            assert found.item_ids.tolist() == told.item_ids.tolist()
            assert found.interest.tolist() == told.interest.tolist()
            assert found.source.tolist() == told.source.tolist()
            assert np.allclose(found.scores, told.scores, rtol=1e-5)


def test_neighbours_that_rank_below_enough_hits_are_left_out() -> None:
    scores = np.array([9, 8, 7, 6, 5, 4, 9, 8, 7], np.float32)  # of two interests of user 0, and one of user 1
    hits = Hits(np.arange(9), scores, np.array([3, 3, 3]))
    found = Found(np.array([0, 0, 1]), np.array([0, 1, 0]), hits)
    best_first = np.zeros(2, bool)
    least = least_scores(found, np.array([2, 2]), best_first, NO_EXCLUSIONS, explain=False)
    assert least == pytest.approx([8, 8], rel=1e-3) and (least < 8).all()
    one = Exclusions(np.array([0]), np.array([5]), np.array([Fate.EXCLUDED]))
    assert least_scores(found, np.array([2, 3]), best_first, one, explain=False) == pytest.approx([7, 7], rel=1e-3)
    assert least_scores(found, np.array([3, 4]), best_first, one, explain=False).tolist() == [-np.inf, -np.inf]
    for how in ((~best_first, NO_EXCLUSIONS, False), (best_first, NO_EXCLUSIONS, True)):
        assert least_scores(found, np.array([2, 2]), *how).tolist() == [-np.inf, -np.inf]


async def test_whoever_wants_none_gets_none_beside_others(store: FakeStore, release: Release) -> None:
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on)
        store.hold()
        first = pipeline.run(release, ask([A]), None)
        queries = [ask([A, B, C], neighbours=wanted) for wanted in (True, False)]
        asked = [asyncio.create_task(each) for each in (first, *(pipeline.run(release, q, None) for q in queries))]
        while store.held < 1:
            await asyncio.sleep(0)
        store.let_go()
        _, *outcomes = await asyncio.gather(*asked)
    for query, outcome in zip(queries, outcomes, strict=True):
        (alone,) = (await run(store, release, query)).results
        assert outcome.results[0].item_ids.tolist() == alone.item_ids.tolist()


async def test_no_neighbours_while_it_is_not_known_which_items_are_deleted(
    store: FakeStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(collection: str) -> None:
        raise StoreUnavailableError("Milvus does not answer")

    monkeypatch.setattr(store, "change_log", away)
    (result,) = (await run(store, release, ask([A, B, C]))).results
    assert set(result.source.tolist()) == {Source.SEARCH}


async def test_explain_shows_neighbours_their_bonus_and_their_fate(store: FakeStore, release: Release) -> None:
    outcome = await run(store, release, ask([A, B, C], exclude_history=True, top_k=5))
    trace, (result,) = outcome.trace, outcome.results
    assert (trace.near.bonus > 0).all()
    assert len(trace.fate) == len(trace.hits.item_ids) + len(trace.near.bonus)
    fate = trace.fate[len(trace.hits.item_ids) :]
    kept = set(trace.near.hits.item_ids[fate == Fate.KEPT].tolist())
    assert set(result.item_ids[result.source == Source.NEIGHBOURS].tolist()) <= kept <= set(result.item_ids.tolist())


async def test_a_model_without_neighbours_serves_as_ever(store: FakeStore, release: Release) -> None:
    bare = replace(release, neighbours=None)
    (result,) = (await run(store, bare, ask([A, B, C], neighbours=False))).results
    assert len(result.item_ids) == 10
    assert not bare.adds_neighbours

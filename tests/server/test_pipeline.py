"""The serving path on an exact store: what each user of a batch gets, and why."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind import cells
from mind.artifact import Artifact, Float32, load_artifact
from mind.encoder import NumpyEncoder
from mind.evaluation.retrieval import nearest_items
from mind.interests import leading
from mind.sequences import Int64
from mind.transfer import Models
from server.errors import DeadlineExceededError, StoreUnavailableError
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving import filtered, popular
from server.serving.answer import Outcome, Status, UserResult
from server.serving.merge import Fate
from server.serving.pipeline import CandidatePipeline
from server.serving.popular import PopularItems
from server.serving.question import Query, Strategy, UserQuery
from tests.artifacts import make_artifact
from tests.fake_store import FakeStore

ITEMS = 200  # ids 1000, 1007, ..., 2393; the lowest ids are the most popular
A, B, C = 1000, 1007, 1014


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return load_artifact(make_artifact(tmp_path, items=ITEMS))


@pytest.fixture
def store(artifact: Artifact) -> FakeStore:
    store = FakeStore()
    store.publish(artifact)
    return store


@pytest.fixture
async def release(store: FakeStore, tmp_path: Path) -> Release:
    releases = Releases(
        store,
        Loader(store, Models(tmp_path), lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters)),
    )
    await releases.check()
    store.searches.clear()
    return releases.current


def ask(*histories: list[int], top_k: int = 5, exclude: list[int] | None = None, **options: object) -> Query:
    users = [UserQuery(np.array(h, np.int64), np.array(exclude or [], np.int64)) for h in histories]
    settings = {"filter": "", "exclude_history": False, "strategy": Strategy.BEST_SCORE} | options
    return Query(users=users, top_k=top_k, **settings)  # type: ignore[arg-type]


def breadth(release: Release, ef: int) -> Release:
    """The same with an index that looks at so many candidates."""
    fingerprint = release.fingerprint.model_copy(update={"index_type": "HNSW", "search_params": {"ef": ef}})
    return replace(release, fingerprint=fingerprint)


async def run(store: FakeStore, release: Release, query: Query, remaining_s: float | None = None) -> Outcome:
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, search_timeout_ms=1000, max_overfetch=10)
        return await pipeline.run(release, query, remaining_s, explain=True)


def exact(artifact: Artifact, history: list[int], top_k: int) -> list[int]:
    rows = artifact.vocabulary.item_index(np.array([history], np.int64))
    encoder = NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    vectors = encoder.encode(rows, np.array([len(history)]))
    return artifact.weights.item_id[nearest_items(vectors, artifact.weights.item_embedding, top_k)[0] - 1].tolist()


async def test_candidates_are_the_exact_nearest_items(store: FakeStore, release: Release, artifact: Artifact) -> None:
    outcome = await run(store, release, ask([A, B], [C], top_k=20))
    assert [result.item_ids.tolist() for result in outcome.results] == [
        exact(artifact, [A, B], 20),
        exact(artifact, [C], 20),
    ]
    assert all(np.all(np.diff(result.scores) <= 0) for result in outcome.results)
    assert all(set(result.interest.tolist()) <= {0, 1, 2, 3} for result in outcome.results)


async def test_one_search_for_the_whole_batch(store: FakeStore, release: Release) -> None:
    await run(store, release, ask([A], [B], [], [C]))
    assert store.searches == [(3 * 4, 10)]  # three users with a history, four interests


async def test_the_answer_does_not_depend_on_the_batch(store: FakeStore, release: Release) -> None:
    histories = [[A, B, C], [C], [], [1021, A], [5, 6], [1028] * 30]
    together = await run(store, release, ask(*histories, top_k=30))
    for history, batched in zip(histories, together.results, strict=True):
        (alone,) = (await run(store, release, ask(history, top_k=30))).results
        assert batched.item_ids.tolist() == alone.item_ids.tolist()
        assert batched.status == alone.status


async def test_only_the_newest_known_items_count(store: FakeStore, release: Release, artifact: Artifact) -> None:
    newest = [1000 + 7 * i for i in range(8)]  # maxlen is 8
    outcome = await run(store, release, ask([1105, 1112, *newest[:4], 5, *newest[4:]]))
    assert outcome.trace.used_hist_item.tolist() == newest
    assert outcome.results[0].item_ids.tolist() == exact(artifact, newest, 5)
    assert outcome.results[0].unknown.tolist() == [5]


@pytest.mark.parametrize(("history", "status"), [([], Status.EMPTY_HISTORY), ([5, -1, 0, 2**62], Status.ALL_UNKNOWN)])
async def test_without_a_usable_history_the_popular_list(
    store: FakeStore, release: Release, history: list[int], status: Status
) -> None:
    outcome = await run(store, release, ask(history, top_k=3, exclude=[A]))
    (result,) = outcome.results
    assert result.status is status
    assert result.fallback
    assert result.item_ids.tolist() == [1007, 1014, 1021]
    assert result.scores[0] == pytest.approx(199 / (200 * 201 / 2))  # share of all clicks
    assert result.interest.tolist() == [-1, -1, -1]
    assert store.searches == []


async def test_the_popular_list_has_nothing_that_was_deleted(store: FakeStore, release: Release) -> None:
    there = store.collections[release.collection]
    keep = there.item_ids != 1007
    there.item_ids, there.vectors = there.item_ids[keep], there.vectors[keep]
    listed = PopularItems(store)
    assert (await listed.of(release)).item_ids.tolist()[:3] == [1000, 1014, 1021]
    store.fault = StoreUnavailableError("Milvus does not answer")
    assert (await listed.of(release)).item_ids.tolist()[:3] == [1000, 1014, 1021]
    assert (await PopularItems(store).of(release)).item_ids.tolist()[:3] == [1000, 1007, 1014]  # better than nothing


class SlowPopular(FakeStore):
    """Answers at once, except which items are left: that waits for `told`, if there is one."""

    told: asyncio.Event | None = None

    async def existing(self, collection: str, item_ids: list[int]) -> set[int]:
        if self.told:
            await self.told.wait()
        return await super().existing(collection, item_ids)


@pytest.fixture
def slow(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> SlowPopular:
    monkeypatch.setattr(popular, "WAIT_S", 60)
    slow = SlowPopular(**vars(store))
    slow.told = asyncio.Event()
    return slow


async def test_nobody_waits_for_the_popular_list_of_a_neighbour(slow: SlowPopular, release: Release) -> None:
    slow.delay_s = 0.01  # so that the second and the third wait for a batch together
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(slow, encode_on, workers=1)
        queries = [ask([C]), ask([]), ask([A])]
        first, new, warm = (asyncio.create_task(pipeline.run(release, query, None)) for query in queries)
        assert len((await asyncio.wait_for(warm, 10)).results[0].item_ids) == 5
        assert first.done() and not new.done() and len(slow.searches) == 1
        slow.told.set()
        assert (await new).results[0].item_ids.tolist() == [1000, 1007, 1014, 1021, 1028]


async def test_the_last_popular_list_is_given_while_milvus_is_asked_again(
    slow: SlowPopular, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.told.set()
    listed = PopularItems(slow)
    await listed.of(release)
    slow.delete(release.collection, [1007])
    slow.told = asyncio.Event()
    monkeypatch.setattr(popular, "REFRESH_S", -1)  # every answer is asked for again
    monkeypatch.setattr(popular, "OLD_S", 60)
    assert (await asyncio.wait_for(listed.of(release), 10)).item_ids.tolist()[:2] == [1000, 1007]
    monkeypatch.setattr(popular, "OLD_S", -1)  # and is too old to be given
    newer = asyncio.create_task(listed.of(release))
    await asyncio.sleep(0)
    assert not newer.done()
    slow.told.set()
    assert (await newer).item_ids.tolist()[:2] == [1000, 1014]


async def test_a_filter_that_milvus_cannot_check_is_nobody_elses_fault(store: FakeStore, release: Release) -> None:
    class Unmatched(FakeStore):
        async def matching(self, collection: str, filter_: str, timeout_s: float | None = None) -> Int64:
            raise StoreUnavailableError("Milvus does not answer: gone")

    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(Unmatched(**vars(store)), encode_on, workers=1)
        queries = [ask([A]), ask([], filter="item_id < 1100"), ask([B])]
        first, filtered_, last = await asyncio.gather(
            *(pipeline.run(release, query, 10) for query in queries), return_exceptions=True
        )
    assert isinstance(filtered_, StoreUnavailableError)
    assert [len(each.results[0].item_ids) for each in (first, last) if isinstance(each, Outcome)] == [5, 5]


async def test_the_popular_list_obeys_the_filter(store: FakeStore, release: Release) -> None:
    outcome = await run(store, release, ask([], top_k=2, filter="item_id > 1100"))
    assert outcome.results[0].item_ids.tolist() == [1105, 1112]


async def test_an_invalid_user_leaves_the_neighbours_alone(store: FakeStore, release: Release) -> None:
    nothing = np.zeros(0, np.int64)
    query = ask([A])
    query.users.append(UserQuery(nothing, nothing, invalid="hist_item has 9 ids, the limit is 8"))
    first, second = (await run(store, release, query)).results
    assert first.status is Status.OK and len(first.item_ids) == 5
    assert second.status is Status.INVALID and len(second.item_ids) == 0 and "limit is 8" in second.detail


async def test_exclusions_are_made_up_for(store: FakeStore, release: Release, artifact: Artifact) -> None:
    best = exact(artifact, [A, B], 7)
    outcome = await run(store, release, ask([A, B], exclude=[best[0], best[2], 2**61]))
    assert outcome.results[0].item_ids.tolist() == [best[1], *best[3:7]]


async def test_history_is_left_out_on_request(store: FakeStore, release: Release) -> None:
    with_history = await run(store, release, ask([A, B], top_k=200))
    without = await run(store, release, ask([A, B], top_k=200, exclude_history=True, exclude=[B, C]))
    left_out = set(with_history.results[0].item_ids.tolist()) - set(without.results[0].item_ids.tolist())
    assert left_out == {A, B, C}
    reasons = dict(zip(without.trace.hits.item_ids.tolist(), without.trace.fate.tolist(), strict=True))
    assert [reasons[item] for item in (A, B, C)] == [Fate.HISTORY, Fate.HISTORY, Fate.EXCLUDED]


async def test_overfetch_is_bounded_and_said(store: FakeStore, release: Release, artifact: Artifact) -> None:
    excluded = exact(artifact, [A], 150)
    wide = breadth(release, 128)
    outcome = await run(store, wide, ask([A], exclude=excluded))
    assert store.searches[-1][1] == 20  # 5 + 10, in multiples of 10
    assert outcome.results[0].detail == "0 of 5: the search found no more items that are not excluded"


async def test_a_passed_deadline_does_no_search(store: FakeStore, release: Release) -> None:
    with pytest.raises(DeadlineExceededError, match="passed in the queue"):
        await run(store, release, ask([A]), remaining_s=0.0)
    assert store.searches == []


async def test_a_failing_store_is_told_apart_from_a_short_deadline(store: FakeStore, release: Release) -> None:
    store.fault = StoreUnavailableError("Milvus does not answer: gone")
    with pytest.raises(StoreUnavailableError):
        await run(store, release, ask([A]))
    store.delay_s = 0.05
    with pytest.raises(DeadlineExceededError, match="passed in the search"):
        await run(store, release, ask([A]), remaining_s=0.02)


async def test_concurrent_batches_do_not_mix(store: FakeStore, release: Release, artifact: Artifact) -> None:
    histories = [[1000 + 7 * i] for i in range(50)]
    outcomes = await asyncio.gather(*(run(store, release, ask(history)) for history in histories))
    assert [o.results[0].item_ids.tolist() for o in outcomes] == [exact(artifact, h, 5) for h in histories]


async def test_requests_that_wait_together_share_a_search_and_get_their_own_answers(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    store.delay_s = 0.02  # so that the others wait while the first is searched
    histories = [[1000 + 7 * i] for i in range(40)]
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, max_batch_users=16, workers=1)
        asks = [ask(h, top_k=5 if i % 2 else 9, exclude=[A] if i % 4 == 0 else []) for i, h in enumerate(histories)]
        outcomes = await asyncio.gather(*(pipeline.run(release, query, 10) for query in asks))
    assert len(store.searches) <= 6 and sum(queries for queries, _ in store.searches) == 40 * 4
    for i, (history, outcome) in enumerate(zip(histories, outcomes, strict=True)):
        best = [item for item in exact(artifact, history, 10) if item != A or i % 4]
        assert outcome.results[0].item_ids.tolist() == best[: 5 if i % 2 else 9]


def candidates(result: UserResult) -> tuple[bytes, bytes, bytes, Status, str]:
    """All that a caller sees, to the bit."""
    columns = (column.tobytes() for column in (result.item_ids, result.scores, result.interest))
    return *columns, result.status, result.detail  # type: ignore[return-value]


@pytest.mark.parametrize("cosine", [1.0, 0.3])
@pytest.mark.parametrize("ef", [0, 128])
async def test_requests_that_differ_in_everything_share_a_search_and_get_what_each_gets_alone(
    store: FakeStore, release: Release, cosine: float, ef: int
) -> None:
    release = breadth(release, ef) if ef else release
    release = replace(release, fingerprint=release.fingerprint.model_copy(update={"interest_cosine": cosine}))
    rng = np.random.default_rng(0)
    queries = []
    for number in range(40):
        history = (1000 + 7 * rng.integers(0, ITEMS, rng.integers(0, 30))).tolist()
        queries.append(
            ask(
                history,
                top_k=int(rng.integers(1, 50)),
                exclude=(1000 + 7 * rng.integers(0, ITEMS, number % 3)).tolist(),
                exclude_history=bool(number % 2),
                strategy=Strategy(1 + number % 2),
            )
        )
    alone = [await run(store, release, query) for query in queries]
    store.searches.clear()
    store.delay_s = 0.02  # so that the others wait while the first is searched
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, workers=1, max_overfetch=10)
        together = await asyncio.gather(*(pipeline.run(release, query, 10) for query in queries))
    assert len(store.searches) == 1
    for one, other in zip(alone, together, strict=True):
        assert candidates(one.results[0]) == candidates(other.results[0])


async def test_who_wants_many_is_searched_apart_from_the_neighbours(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    wide, store.delay_s = breadth(release, 128), 0.02
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on)
        queries = [ask([A], top_k=5), ask([B], top_k=180), ask([C], top_k=60)]
        outcomes = await asyncio.gather(*(pipeline.run(wide, query, 10) for query in queries))
    assert sorted(store.searches) == [(4, 192), (8, 60)]
    assert [len(outcome.results[0].item_ids) for outcome in outcomes] == [5, 180, 60]


async def test_who_loses_too_many_hits_to_exclusions_is_searched_again_alone(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    wide = breadth(release, 16)
    best = exact(artifact, [A], 60)
    far = [item for item in exact(artifact, [B], ITEMS) if item not in exact(artifact, [B], 100)]
    query = ask([A], [B], [C])
    query.users[0] = replace(query.users[0], exclude=np.array(best[:40]))
    query.users[1] = replace(query.users[1], exclude=np.array(far[:40]))
    with ThreadPoolExecutor(1) as encode_on:
        outcome = await CandidatePipeline(store, encode_on).run(wide, query, None)
    assert outcome.results[0].item_ids.tolist() == best[40:45]
    assert [result.item_ids.tolist() for result in outcome.results[1:]] == [
        exact(artifact, history, 5) for history in ([B], [C])
    ]
    assert store.searches == [(12, 16), (4, 48)]  # 5, and 11 of the 40 that may be among them; then 5 and 40


async def test_a_search_that_fails_is_each_callers_own_deadline_or_the_stores_fault(
    store: FakeStore, release: Release
) -> None:
    store.fault, store.delay_s = StoreUnavailableError("Milvus does not answer: gone"), 0.05
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, workers=1)
        asks = (pipeline.run(release, ask([A]), remaining_s) for remaining_s in (0.02, 10))
        short, patient = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(short, DeadlineExceededError) and isinstance(patient, StoreUnavailableError)


async def test_who_needs_no_search_is_answered_beside_those_whose_search_fails(
    store: FakeStore, release: Release
) -> None:
    store.fault, store.delay_s = StoreUnavailableError("Milvus does not answer: gone"), 0.02
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, workers=1)
        queries = [ask([A]), ask([], [5]), ask([], [B]), ask([], filter="item_id > 1100")]
        first, warm, new, mixed, filtered = await asyncio.gather(
            *(pipeline.run(release, query, 10) for query in [ask([C]), *queries]), return_exceptions=True
        )
    assert isinstance(new, Outcome), new
    assert [result.status for result in new.results] == [Status.EMPTY_HISTORY, Status.ALL_UNKNOWN]
    assert all(result.item_ids.tolist() == [1000, 1007, 1014, 1021, 1028] for result in new.results)
    assert all(isinstance(each, StoreUnavailableError) for each in (first, warm, mixed, filtered))


async def test_similar_interests_are_searched_once_and_answer_as_if_each_had_been(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    query = ask([A, B], [C], [A, B, C, 1021, 1028], [], top_k=20)
    each = await run(store, release, query)
    own = sum(int(np.any(vectors, axis=1).sum()) for vectors in _vectors(artifact, query))
    assert store.searches == [(own, 20)]

    merging = replace(release, fingerprint=release.fingerprint.model_copy(update={"interest_cosine": -0.99}))
    once = await run(store, merging, query)
    assert store.searches[1] == (3, 40)  # one search for each user with a history
    for vectors, alone, together in zip(_vectors(artifact, query), each.results, once.results, strict=True):
        if not vectors.any():
            assert together.fallback == alone.fallback
            continue
        # The answer is the best 20 by any interest, of the 40 items nearest to the interest that is searched with.
        lead = vectors[leading(vectors[None], -0.99)[0]]
        nearest = nearest_items(lead[None], artifact.weights.item_embedding, 40)[0]
        scores = (artifact.weights.item_embedding[nearest] @ vectors.T).max(axis=1)
        best = np.argsort(-scores)[:20]
        assert together.item_ids.tolist() == artifact.weights.item_id[nearest[best] - 1].tolist()
        assert together.scores == pytest.approx(scores[best], rel=1e-5)
        known = dict(zip(alone.item_ids.tolist(), alone.interest.tolist(), strict=True))
        for item_id, interest in zip(together.item_ids.tolist(), together.interest.tolist(), strict=True):
            assert known.get(item_id, interest) == interest


async def test_interests_too_short_to_measure_are_searched_like_any(store: FakeStore, release: Release) -> None:
    class Vanishing:
        name, inline = "vanishing", True

        def encode(self, hist_index: Int64, seq_len: Int64) -> Float32:
            vectors = np.ones((len(hist_index), 4, 16), np.float32)
            vectors[:, 1] = 1e-30  # whose square is 0
            return vectors

    for cosine in (1, 0.9):
        fingerprint = release.fingerprint.model_copy(update={"interest_cosine": cosine})
        other = replace(release, encoder=Vanishing(), fingerprint=fingerprint)
        assert [len(result.item_ids) for result in (await run(store, other, ask([A], [B]))).results] == [5, 5]


async def test_no_search_asks_for_more_than_milvus_gives(store: FakeStore, release: Release) -> None:
    merging = replace(release, fingerprint=release.fingerprint.model_copy(update={"interest_cosine": 0.3}))
    await run(store, merging, ask([A, B], top_k=10_000))
    assert [limit for _, limit in store.searches] == [16_384]


async def test_merged_interests_do_not_depend_on_the_neighbours(store: FakeStore, release: Release) -> None:
    merging = replace(release, fingerprint=release.fingerprint.model_copy(update={"interest_cosine": 0.3}))
    histories = [[A, B], [C], [A, 1021, 2000], [1500, 1507, 1514, C]]
    together = (await run(store, merging, ask(*histories, top_k=10, exclude=[B]))).results
    for history, result in zip(histories, together, strict=True):
        (alone,) = (await run(store, merging, ask(history, top_k=10, exclude=[B]))).results
        assert alone.item_ids.tolist() == result.item_ids.tolist()
        assert alone.scores.tobytes() == result.scores.tobytes()
        assert B not in result.item_ids


async def test_filters_are_searched_exactly_and_different_ones_together(
    store: FakeStore, release: Release, artifact: Artifact
) -> None:
    filters = ["item_id > 1100", "item_id < 1300", "item_id < 1300", "item_id < 0"]
    histories = [[A, B], [C], [A, B, C], [A]]
    batches: list[int] = []
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on, workers=1)
        answer = pipeline._batcher._answer

        async def spy(batch: list[Any]) -> Any:
            batches.append(len(batch))
            return await answer(batch)

        pipeline._batcher._answer = spy
        queries = [ask(h, [], top_k=20, filter=f) for h, f in zip(histories, filters, strict=True)]
        answers = await asyncio.gather(*(pipeline.run(release, query, 10) for query in queries))
    for history, filter_, outcome in zip(histories, filters, answers, strict=True):
        passing = set((await store.matching(release.collection, filter_)).tolist())
        wanted = [item for item in exact(artifact, history, ITEMS) if item in passing][:20]
        assert outcome.results[0].item_ids.tolist() == wanted
        assert (
            outcome.results[1].item_ids.tolist()
            == [item for item in range(A, A + 7 * ITEMS, 7) if item in passing][:20]
        )
    assert store.searches == []
    assert sum(batches) == 4 and max(batches) > 1  # the first begins at once


async def test_the_loop_goes_on_while_many_matches_are_searched(
    store: FakeStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring, seen = threading.Event(), threading.Event()
    score = filtered.nearest

    def held(*args: Any) -> Any:
        scoring.set()
        assert seen.wait(10)
        return score(*args)

    monkeypatch.setattr(filtered, "nearest", held)
    with ThreadPoolExecutor(1) as encode_on:
        pipeline = CandidatePipeline(store, encode_on)
        answer = asyncio.create_task(pipeline.run(release, ask(*[[A, B]] * 60, filter="item_id > 0"), 20))
        assert await asyncio.to_thread(scoring.wait, 10)
        seen.set()
        assert len((await answer).results) == 60


async def test_very_many_matches_are_searched_by_cells(
    store: FakeStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = await _first_interest(store, release)
    store.add(release.collection, 5, 10 * vector)
    queries = [
        ask([A, B], [C], [], top_k=20, filter="item_id > 1100"),
        ask([A], top_k=20, filter="item_id < 1100"),
        ask([B, C], top_k=20, filter="item_id > 0", exclude=[A]),
    ]
    expected = [await run(store, release, query) for query in queries]
    monkeypatch.setattr(cells, "EXACT_ROWS", 5)
    monkeypatch.setattr(cells, "ROWS_A_CELL", 10)
    divided = replace(release, cells=cells.cells_of(release.item_embedding, release.item_embedding))
    assert divided.cells is not None
    store.searches.clear()
    for query, exactly in zip(queries, expected, strict=True):
        found = await run(store, divided, query)
        for one, other in zip(found.results, exactly.results, strict=True):
            assert one.item_ids.tolist() == other.item_ids.tolist()
            assert one.scores.tobytes() == other.scores.tobytes()
    assert store.searches == []


async def test_items_that_were_added_are_found_with_a_filter(store: FakeStore, release: Release) -> None:
    vector = await _first_interest(store, release)
    store.add(release.collection, 5, 10 * vector)
    store.add(release.collection, 6, 9 * vector)
    outcome = await run(store, release, ask([A], filter="item_id < 1020"))
    (result,) = outcome.results
    assert result.item_ids.tolist()[:2] == [5, 6] and set(result.item_ids.tolist()[2:]) == {A, B, C}
    assert outcome.trace is not None
    assert result.scores[0] == pytest.approx(10 * float((outcome.trace.interest_vectors @ vector).max()), rel=1e-5)
    (result,) = (await run(store, release, ask([A], filter="item_id < 6"))).results
    assert result.item_ids.tolist() == [5]


async def _first_interest(store: FakeStore, release: Release) -> Float32:
    outcome = await run(store, release, ask([A]))
    assert outcome.trace is not None
    return outcome.trace.interest_vectors[0]


@pytest.mark.parametrize(
    ("filter_", "exclude", "detail"),
    [
        ("item_id < 1020", [], "3 of 5: 3 items match the filter"),
        (
            "item_id < 1020",
            [A],
            "2 of 5: 3 items match the filter, and the search found no more of them that are not excluded",
        ),
        ("item_id < 0", [], "0 of 5: 0 items match the filter"),
        ("item_id > 0", [], ""),
    ],
)
async def test_a_short_list_says_how_many_items_match(
    store: FakeStore, release: Release, filter_: str, exclude: list[int], detail: str
) -> None:
    outcome = await run(store, release, ask([B], filter=filter_, exclude=exclude))
    assert outcome.results[0].detail == detail


async def test_a_short_popular_list_says_so(store: FakeStore, release: Release) -> None:
    store.add(release.collection, 5, np.ones(16, np.float32))
    (result,) = (await run(store, release, ask([], filter="item_id < 1010"))).results
    assert result.detail == (
        "2 of 5: 3 items match the filter, and the popular list has no more of them that are not excluded"
    )


def _vectors(artifact: Artifact, query: Query) -> list[Float32]:
    encoder = NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    vectors = []
    for user in query.users:
        rows = np.zeros((1, artifact.hyper_parameters.maxlen), np.int64)
        rows[0, : len(user.hist_item)] = artifact.vocabulary.item_index(user.hist_item)
        vectors.append(encoder.encode(rows, np.array([len(user.hist_item)]))[0])
    return vectors

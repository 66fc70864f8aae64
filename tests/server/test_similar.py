"""The items most similar to given ones, compared with a plain computation of cosines and weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from mind.nearest import inverse_norms
from mind.sequences import Float32
from mind.transfer import Models
from server.loader import Loader
from server.release import Release
from server.releases import Releases
from server.serving.matching import Matches
from server.serving.merge import Source
from server.serving.similar import NO_DIRECTION, UNKNOWN, ItemQuery, ItemStatus, SimilarResult, similar_items
from tests.artifacts import hyper_parameters_of, make_weights, with_neighbours
from tests.fake_store import FakeStore

ITEMS = 200  # ids 1000, 1007, ..., 2393
A, B, C, D = 1000, 1007, 1014, 1021
FRESH = [5, 5_000]
SEARCH, NEIGHBOURS, BOTH = Source.SEARCH, Source.NEIGHBOURS, Source.BOTH


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    weights = with_neighbours(make_weights(items=ITEMS), bonus=8)
    return load_artifact(write_artifact(tmp_path, hyper_parameters_of(weights), weights, {}, {}))


@pytest.fixture
async def release(artifact: Artifact, tmp_path: Path) -> Release:
    store = FakeStore()
    store.publish(artifact)
    releases = Releases(
        store, Loader(store, Models(tmp_path), lambda model: NumpyEncoder(model.weights, model.hyper_parameters))
    )
    await releases.check()
    lengths = np.append(0, np.linspace(0.1, 5, ITEMS)).astype(np.float32)  # as if the last items were the popular ones
    return replace(releases.current, item_embedding=releases.current.item_embedding * lengths[:, None])


def items(release: Release, gone: Sequence[int] = ()) -> Matches:
    """A collection of the items of the model, without some, and two fresh ones: like A, and opposite to it."""
    rows = np.setdiff1d(
        np.arange(1, ITEMS + 1, dtype=np.int32), release.vocabulary.item_index(np.array(gone, np.int64))
    )
    vector = release.item_embedding[1]
    return Matches(rows.astype(np.int32), np.array(FRESH), np.stack([7 * vector, -vector]))


def ask(*item_ids: int, by: Source = SEARCH, top_k: int = 10, exclude: Sequence[int] = ()) -> ItemQuery:
    return ItemQuery(np.array(item_ids, np.int64), np.array(exclude, np.int64), top_k, by)


def embedding_of(release: Release, item: int) -> Float32:
    known = items(release)
    if item in FRESH:
        return known.fresh_vectors[FRESH.index(item)]
    return release.item_embedding[release.vocabulary.item_index(np.array([item]))[0]]


def cosines(release: Release, *item_ids: int) -> dict[int, float]:
    """The cosine of every item and the mean direction of the given ones, in double precision."""

    def direction(item: int) -> np.ndarray:  # type: ignore[type-arg]
        vector = embedding_of(release, item).astype(np.float64)
        return vector / np.linalg.norm(vector)

    mean = np.mean([direction(item) for item in item_ids], axis=0)
    every = [*release.vocabulary.item_id.tolist(), *FRESH]
    return {item: float(direction(item) @ mean / np.linalg.norm(mean)) for item in every}


def weights(release: Release, *item_ids: int) -> dict[int, float]:
    """The mean weight of every neighbour of the given items."""
    found: dict[int, float] = {}
    assert release.neighbours
    for item in item_ids:
        row = release.vocabulary.item_index(np.array([item]))[0]
        own = slice(*release.neighbours.offsets[row : row + 2])
        for near, weight in zip(release.neighbours.row[own], release.neighbours.weight[own], strict=True):
            neighbour = int(release.vocabulary.item_id[near - 1])
            found[neighbour] = found.get(neighbour, 0) + float(weight) / len(item_ids)
    return found


def best(scores: dict[int, float], without: Sequence[int], top_k: int = 10) -> list[int]:
    return [item for item in sorted(scores, key=lambda item: -scores[item]) if item not in without][:top_k]


def check(release: Release, found: SimilarResult, item_ids: Sequence[int], expected: Sequence[int]) -> None:
    assert found.item_ids.tolist() == list(expected)
    wanted = cosines(release, *item_ids)
    np.testing.assert_allclose(found.scores, [wanted[item] for item in expected], rtol=1e-4, atol=1e-6)


def test_by_embedding_is_the_exact_order_of_cosines(release: Release) -> None:
    asked = [[A], [B, C], [2393, 1501, A], [5], [5_000, D]]
    excluded = [[], [1028, 1035], [], [A], list(range(1000, 1700, 7))]
    queries = [ask(*own, exclude=left) for own, left in zip(asked, excluded, strict=True)]
    found = similar_items(release, items(release), None, queries)
    for own, left, result in zip(asked, excluded, found, strict=True):
        known = [item for item in own if item in {*release.vocabulary.item_id.tolist(), *FRESH}]
        check(release, result, known, best(cosines(release, *known), [*own, *left]))
        assert result.status is ItemStatus.OK and set(result.source.tolist()) == {SEARCH} and not len(result.weights)
    assert found[2].unknown.tolist() == [1]
    assert found[0].item_ids[0] == 5  # the fresh item like A


def test_an_answer_does_not_depend_on_the_others(release: Release) -> None:
    queries = [
        ask(item, other, by=by, top_k=top_k)
        for number, (item, by) in enumerate((1000 + 7 * row, by) for row in range(0, 190, 3) for by in Source)
        for other, top_k in [(A + 7 * (number % 60), 1 + number % 40)]
    ]
    together = similar_items(release, items(release), None, queries)
    for query, found in zip(queries, together, strict=True):
        [alone] = similar_items(release, items(release), None, [query])
        assert found.item_ids.tolist() == alone.item_ids.tolist()
        assert found.scores.tolist() == alone.scores.tolist()
        assert found.weights.tolist() == alone.weights.tolist()
        assert found.source.tolist() == alone.source.tolist()


def test_by_neighbours_is_the_order_of_mean_weights(release: Release) -> None:
    asked = [[A], [A, B, C], [D, 5]]
    found = similar_items(release, items(release), None, [ask(*own, by=NEIGHBOURS, top_k=8) for own in asked])
    for own, result in zip(asked, found, strict=True):
        wanted = weights(release, *(item for item in own if item not in FRESH))
        if 5 in own:
            wanted = {item: weight / 2 for item, weight in wanted.items()}  # the fresh item has no neighbours
        check(release, result, own, best(wanted, own, 8))
        np.testing.assert_allclose(result.weights, [wanted[item] for item in result.item_ids.tolist()], rtol=1e-3)
        assert set(result.source.tolist()) == {NEIGHBOURS}


def test_by_both_the_two_lists_take_turns(release: Release) -> None:
    [embedding, near, both] = similar_items(
        release, items(release), None, [ask(A, by=by, top_k=12) for by in (SEARCH, NEIGHBOURS, BOTH)]
    )
    turns = [
        sorted(pair, key=lambda item: -cosines(release, A)[item])
        for pair in zip(embedding.item_ids.tolist(), near.item_ids.tolist(), strict=False)
    ]
    expected = list(dict.fromkeys(item for turn in turns for item in turn))[:12]
    check(release, both, [A], expected)
    by_weight = weights(release, A)
    np.testing.assert_allclose(both.weights, [by_weight.get(item, 0) for item in expected], rtol=1e-3)
    everything, *_ = similar_items(release, items(release), None, [ask(A, by=BOTH, top_k=300)])
    sources = dict(zip(everything.item_ids.tolist(), everything.source.tolist(), strict=True))
    assert {item for item, source in sources.items() if source == BOTH} == by_weight.keys() - {A}
    assert len(sources) == ITEMS + len(FRESH) - 1


def test_items_that_are_gone_are_no_answers_but_may_be_asked_about(release: Release) -> None:
    gone = best(cosines(release, A), [A], 5) + best(weights(release, A), [A], 2)
    known = items(release, [A, *(item for item in gone if item not in FRESH)])
    for by in (SEARCH, NEIGHBOURS, BOTH):
        [found] = similar_items(release, known, None, [ask(A, by=by)])
        assert found.status is ItemStatus.OK and len(found.item_ids)
        assert not set(found.item_ids.tolist()) & (set(gone) - set(FRESH))


def test_with_a_filter_only_what_matches_is_an_answer(release: Release) -> None:
    known = items(release)
    matches = Matches(known.rows[::3], known.fresh_ids[1:], known.fresh_vectors[1:])
    passing = {*release.vocabulary.item_id[::3].tolist(), 5_000}
    for by, scores in ((SEARCH, cosines(release, B)), (NEIGHBOURS, weights(release, B))):
        [found] = similar_items(release, known, matches, [ask(B, by=by, top_k=100)])
        wanted = {item: score for item, score in scores.items() if item in passing}
        check(release, found, [B], best(wanted, [B], 100))
        what = "neighbours of the items" if by is NEIGHBOURS else "items"
        told = f"of 100: there are no more {what} among the 68 that match the filter that are not excluded"
        assert found.detail == f"{len(wanted)} {told}"
    [fresh] = similar_items(release, known, matches, [ask(5)])  # which does not match itself
    assert fresh.status is ItemStatus.OK and len(fresh.item_ids) == 10


def test_queries_without_an_answer(release: Release) -> None:
    invalid = replace(ask(), invalid="item_ids is empty")
    table = release.item_embedding.copy()
    table[3] = 0
    without = replace(release, item_embedding=table)
    queries = [ask(1, 2), invalid, ask(C), ask(C, by=BOTH), ask(A, by=NEIGHBOURS, top_k=100)]
    unknown, wrong, zero, both, few = similar_items(without, items(release), None, queries)
    assert (unknown.status, unknown.detail, unknown.unknown.tolist()) == (ItemStatus.UNKNOWN, UNKNOWN, [0, 1])
    assert (wrong.status, wrong.detail) == (ItemStatus.INVALID, "item_ids is empty")
    assert (zero.status, zero.detail) == (ItemStatus.OK, NO_DIRECTION)
    assert [len(each.item_ids) for each in (unknown, wrong, zero)] == [0, 0, 0]
    assert set(both.source.tolist()) == {NEIGHBOURS} and set(both.scores.tolist()) == {0}
    assert few.detail == f"{len(few.item_ids)} of 100: there are no more neighbours of the items that are not excluded"


def test_vectors_without_a_direction_have_no_inverse_length() -> None:
    vectors = np.array([[3, 4], [0, 0], [1e-45, 0], [3e38, 3e38]], np.float32)
    np.testing.assert_allclose(inverse_norms(vectors), [0.2, 0, 0, 1 / (3e38 * 2**0.5)], rtol=1e-6)

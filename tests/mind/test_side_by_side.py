"""Two models on the same users: the figures are those that a reader can count."""

from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact
from mind.evaluation.side_by_side import TOP_N, compare
from mind.sequences import EvalCases
from tests.artifacts import make_artifact
from tests.server.test_metrics import sequences

UNKNOWN = 5


def model(directory: Path, **kind: int) -> Artifact:
    return load_artifact(make_artifact(directory, **kind))


def test_a_model_beside_itself(tmp_path: Path) -> None:
    one = model(tmp_path)
    items = one.weights.item_id.tolist()
    popular = one.weights.item_id[np.argsort(-one.weights.popularity, kind="stable")]
    cases = EvalCases(
        sequences(items[:3], items[5:9], [UNKNOWN]), sequences([items[4]], [items[10]], [int(popular[0]), UNKNOWN])
    )
    found = compare(cases, one, one, examples=3)
    assert found.users == 3
    assert found.live == found.candidate
    assert found.difference and (found.difference.mean, found.difference.half_width) == (0, 0)
    assert (found.in_common, found.new_items) == (1, 0)
    assert found.candidate.fallback == pytest.approx(1 / 3)
    (stranger,) = [one for one in found.examples if one.history == [UNKNOWN]]
    assert stranger.candidate == popular[: len(stranger.candidate)].tolist()
    assert stranger.wanted == sorted([int(popular[0]), UNKNOWN])
    assert all(len(set(each.candidate)) == len(each.candidate) for each in found.examples)
    assert 0 < found.candidate.coverage <= min(1, 3 * TOP_N / len(items))


def test_a_model_of_other_items(tmp_path: Path) -> None:
    one, other = model(tmp_path / "a", items=200), model(tmp_path / "b", items=100, seed=1)
    known = np.isin(one.weights.item_id, other.weights.item_id)
    history = sequences(*(one.weights.item_id[k : k + 4].tolist() for k in range(20)))
    target = sequences(*([int(one.weights.item_id[k + 5])] for k in range(20)))
    found = compare(EvalCases(history, target), one, other, examples=2)
    assert found.live and found.live.items == 100
    assert found.new_items == pytest.approx(1 - known.mean())
    assert found.difference and found.difference.mean == pytest.approx(
        found.candidate.recall.mean - found.live.recall.mean
    )
    alone = compare(EvalCases(history, target), one, None, examples=2)
    assert (alone.live, alone.difference, alone.in_common, alone.new_items) == (None, None, None, None)
    assert alone.candidate == found.candidate
    assert alone.examples[0].live == []

"""Which interests share a search: chosen by the golden histories of the model, and told by `build`."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer.__main__ import app
from indexer.catalogue import item_collections
from indexer.tuning import interests
from indexer.tuning.interests import choose_cosine
from mind.artifact import Artifact, load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from tests.artifacts import make_artifact

HISTORIES, INTERESTS, DIM = 40, 4, 16


@pytest.fixture(autouse=True)
def few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interests, "MIN_ITEMS", 100)


def with_interests(directory: Path, noise: float) -> Artifact:
    """A model whose interests are one direction for each history and so much noise beside it."""
    model = load_artifact(make_artifact(directory, items=2_000, dim=DIM))
    rng = np.random.default_rng(0)
    one, each = (rng.normal(size=(HISTORIES, number, DIM)) for number in (1, INTERESTS))
    vectors = (one + noise * each).astype(np.float32)
    vectors[0, 2:] = 0
    object.__setattr__(model.weights, "golden_interest_vectors", vectors)
    return model


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 1, 1), (0.05, 1, 2), (2, 3.9, 4)])
def test_the_alike_share_a_search_if_that_loses_nothing(
    tmp_path: Path, noise: float, least: float, most: float
) -> None:
    model = with_interests(tmp_path, noise)
    chosen = choose_cosine(model)
    assert chosen and chosen.interests == pytest.approx(INTERESTS - 2 / HISTORIES) and chosen.users == HISTORIES
    assert least <= chosen.searches <= most
    assert chosen.share >= 0.995
    assert (chosen.cosine < 1) is (chosen.searches < chosen.interests)


def test_one_user_who_would_lose_much_counts(tmp_path: Path) -> None:
    model = with_interests(tmp_path, 0.0)
    model.weights.golden_interest_vectors[0] = np.eye(DIM)[:INTERESTS]
    chosen = choose_cosine(model)
    assert chosen and chosen.searches > 1


def test_nothing_to_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_interests(tmp_path, 0.0)
    monkeypatch.setattr(interests, "MIN_ITEMS", 2_001)
    assert choose_cosine(model) is None
    monkeypatch.setattr(interests, "MIN_ITEMS", 2_000)
    assert choose_cosine(model)
    model.weights.golden_interest_vectors[:] = 0
    assert choose_cosine(model) is None


@pytest.mark.parametrize("given", [None, "1", "0.5"])
def test_a_build_chooses_unless_told(tmp_path: Path, given: str | None) -> None:
    directory = make_artifact(tmp_path / "models")
    uri = str(tmp_path / "items.db")
    options = ["--interest-cosine", given] if given else []
    result = CliRunner().invoke(app, ["build", "--artifact", str(directory), "--milvus-uri", uri, *options])
    assert result.exit_code == 0, result.output
    assert ("golden histories" in result.stdout) is (given is None)
    with Store(Connection(uri)) as store:
        (built,) = item_collections(store)
    assert built.fingerprint is not None
    chosen = choose_cosine(load_artifact(directory))
    assert chosen and built.fingerprint.interest_cosine == (float(given) if given else chosen.cosine)

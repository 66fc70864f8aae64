"""A warm start begins where an earlier model ended, and begins anew where it cannot."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mind.artifact import Artifact, load_artifact
from mind.config import Config, HyperParameters
from mind.keys import Keys, key_ids
from mind.training.loop import train
from mind.training.warm import why_not
from tests.artifacts import make_artifact
from tests.mind.test_train import here, overrides, write_data
from tests.mind.test_training import clustered, config
from tests.server.test_metrics import sequences

NEW = 5
"""An item that the earlier model does not know."""


def earlier() -> tuple[Config, Artifact]:
    settings = config(epochs=3)
    weights = train(settings, sequences(*clustered(300, 1)), None).weights
    return settings, Artifact("0123456789ab", settings.hyper_parameters, weights)


def standing(settings: Config) -> Config:
    """The same settings, with steps so short that the weights stay where they begin."""
    optimizer = settings.hyper_parameters.optimizer.model_copy(update={"learning_rate": 1e-12})
    hyper = settings.hyper_parameters.model_copy(update={"optimizer": optimizer})
    runner = settings.runner.model_copy(update={"epochs": 1, "seed": 8})
    return settings.model_copy(update={"hyper_parameters": hyper, "runner": runner})


def test_training_begins_with_the_weights_of_the_model() -> None:
    settings, model = earlier()
    rows = clustered(300, 1)
    near = rows[0][:6]
    begun = train(standing(settings), sequences(*rows, *([NEW, *near] for _ in range(20))), None, warm=model).weights
    known = model.vocabulary.item_index(begun.item_id)
    assert begun.item_id[known == 0].tolist() == [NEW]
    np.testing.assert_allclose(
        begun.item_embedding[1:][known > 0], model.weights.item_embedding[known[known > 0]], atol=1e-6
    )
    for name in ("bilinear", "recency_logits", "focus", "routing_logits"):
        np.testing.assert_allclose(getattr(begun, name), getattr(model.weights, name), atol=1e-6)
    new = begun.item_embedding[1:][known == 0][0]
    table = model.weights.item_embedding
    cosine = table @ new / np.maximum(np.linalg.norm(table, axis=1) * np.linalg.norm(new), 1e-9)
    nearest = model.vocabulary.item_id[np.argsort(-cosine)[:20] - 1]
    assert set(near) & set(nearest.tolist())


def test_a_warm_epoch_begins_with_a_lower_loss() -> None:
    settings, model = earlier()
    once = settings.model_copy(update={"runner": settings.runner.model_copy(update={"epochs": 1})})
    warm, anew = (train(once, sequences(*clustered(320, 1)), None, warm=each).best.loss for each in (model, None))
    assert warm < anew


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"dropout": 0.5, "neg_samples": 3, "min_history": 2, "item_init": "random"}, ""),
        ({"embedding_dim": 8, "hidden_size": 8}, "hyper_parameters.embedding_dim is 8, the model has 16"),
        ({"num_interests": 2}, "hyper_parameters.num_interests is 2, the model has 4"),
        ({"routing_iterations": 2}, "hyper_parameters.routing_iterations is 2, the model has 3"),
        ({"item_features": ["genres"]}, "item_features is set"),
    ],
)
def test_settings_that_mean_something_else_begin_anew(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    model = load_artifact(make_artifact(tmp_path))
    hyper = HyperParameters.model_validate(model.hyper_parameters.model_dump(by_alias=True) | changed)
    found = why_not(model, hyper, sequences(model.weights.item_id[:5].tolist()), text_ids=False)
    assert found.startswith(says) and bool(found) == bool(says)


def test_other_items_begin_anew(tmp_path: Path) -> None:
    model = load_artifact(make_artifact(tmp_path))
    hyper = model.hyper_parameters
    assert why_not(model, hyper, sequences([1, 2]), text_ids=False) == "the model knows none of the items in the data"
    keys = Keys.of(["a", "b"])
    named = replace(model, weights=replace(model.weights, item_key_offsets=keys.offsets, item_key_text=keys.text))
    ids = key_ids(["a", "b"])
    assert "integers in the data, by text ids in the model" in why_not(named, hyper, sequences(ids), text_ids=False)
    assert "text ids in the data, by integers in the model" in why_not(model, hyper, sequences(ids), text_ids=True)


def test_the_command_tells_how_it_began(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    first = here("mind.train", *overrides(data, runner__epochs=2))
    assert first.returncode == 0, first.stderr
    (model,) = [path.parent for path in (data / "artifacts").glob("*/manifest.json")]
    options = ["--warm-start", str(model), "--warm-epochs", "1"]
    warm = here("mind.train", *overrides(data, runner__seed=3), *options)
    assert f"begins with the weights of model {model.name}, which knows 200 of 200 items" in warm.stdout
    manifests = [json.loads(path.read_text()) for path in (data / "artifacts").glob("*/manifest.json")]
    (written,) = [one for one in manifests if one["model_version"] != model.name]
    assert written["data"]["warm_start"] == model.name
    assert len(written["metrics"]["epochs"]) == 1
    anew = here("mind.train", *overrides(data, runner__seed=4, hyper_parameters__maxlen=9), *options)
    assert "starts from scratch" in anew.stdout and "hyper_parameters.maxlen is 9, the model has 20" in anew.stdout
    (last,) = {path.parent.name for path in (data / "artifacts").glob("*/manifest.json")} - {
        one["model_version"] for one in manifests
    }
    content = json.loads((data / "artifacts" / last / "manifest.json").read_text())
    assert "warm_start" not in content["data"] and len(content["metrics"]["epochs"]) > 1


def test_a_warning_where_held_out_users_may_be_known(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    assert here("mind.train", *overrides(data, runner__epochs=1)).returncode == 0
    (model,) = [path.parent for path in (data / "artifacts").glob("*/manifest.json")]
    write_data(tmp_path, seed=50)
    (data / "split.json").write_text(json.dumps({"split": "users", "seed": 1}))
    told = here("mind.train", *overrides(data, runner__epochs=1), "--warm-start", str(model)).stdout
    assert "warning: the held-out users were drawn anew" in " ".join(told.split())

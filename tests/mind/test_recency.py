"""Recent clicks count more: targets by their age, and a popular fallback of a window."""

from pathlib import Path

import numpy as np
import pytest

from mind.artifact import load_artifact
from mind.config import Config, HyperParameters
from mind.data.ages import AGES
from mind.data.paddlerec import read_eval, read_train
from mind.errors import DataError
from mind.sequences import Sequences, joined
from mind.training.inputs import read_everything, read_inputs
from mind.training.loop import train
from mind.training.parallel import ALONE
from mind.training.recency import popularity_within, recency
from mind.training.sampler import TrainingSampler
from mind.vocabulary import Vocabulary
from tests.commands import run_here
from tests.mind.test_train import CONFIG, overrides, write_data


def test_a_weight_halves_with_every_half_life() -> None:
    weight = recency(np.array([0, 30, 60, 15], np.float32), 30)
    assert weight is not None
    np.testing.assert_allclose(weight, [1, 0.5, 0.25, 0.5**0.5], rtol=1e-6)
    assert recency(np.zeros(1, np.float32), None) is None and recency(None, 30) is None


def test_a_window_counts_its_clicks_alone() -> None:
    sequences = Sequences(np.array([1, 2]), np.array([0, 3, 5]), np.array([10, 20, 10, 30, 10]))
    ages = np.array([9, 1, 8, 7, 0], np.float32)
    vocabulary = Vocabulary(np.array([10, 20, 30]))
    clicks = np.array([3, 1, 1])
    assert popularity_within(sequences, vocabulary, ages, 7, clicks).tolist() == [1, 1, 1]
    assert popularity_within(sequences, vocabulary, ages + 100, 7, clicks).tolist() == [1, 1, 1]  # the rest is held out
    assert popularity_within(sequences, vocabulary, ages, None, clicks).tolist() == [3, 1, 1]


def test_batches_weigh_their_targets() -> None:
    sequences = Sequences(np.array([1, 2]), np.array([0, 3, 5]), np.array([10, 20, 10, 30, 10]))
    weight = np.array([9, 1, 3, 9, 4], np.float32)
    sampler = TrainingSampler(sequences, Vocabulary(np.array([10, 20, 30])), HyperParameters(), 8, 0, weight=weight)
    batch = sampler.batch(np.array([0, 1, 2]), [0])  # the second and third click of one, the second of the other
    assert batch.weight is not None and batch.weight.tolist() == [1, 3, 4]
    np.testing.assert_allclose(ALONE.share(batch)[3].numpy(), np.array([1, 3, 4]) * 3 / 8, rtol=1e-6)


def test_a_model_learns_what_is_clicked_now() -> None:
    """After item 1, people used to click 2 and now click 3; half as many do."""
    old, new = [1, 2] * 1, [1, 3] * 1
    users = 300
    items = np.concatenate([np.tile(old, 200), np.tile(new, 100)])
    sequences = Sequences(np.arange(users), np.arange(0, 2 * users + 1, 2), items)
    ages = np.repeat(np.where(np.arange(users) < 200, 100, 1), 2).astype(np.float32)
    hyper = {"embedding_dim": 8, "hidden_size": 8, "num_interests": 1, "maxlen": 2, "dropout": 0}
    config = Config.model_validate({"runner": {"epochs": 20, "train_batch_size": 50}, "hyper_parameters": hyper})

    def preferred(config: Config) -> int:
        weights = train(config, sequences, None, ages=ages).weights
        interest = weights.item_embedding[1] @ weights.bilinear  # of a history of item 1, up to its length
        return 2 + int(np.argmax(weights.item_embedding[2:] @ interest))

    aged = config.model_copy(
        update={"hyper_parameters": config.hyper_parameters.model_copy(update={"half_life_days": 10.0})}
    )
    assert (preferred(config), preferred(aged)) == (2, 3)


def test_ages_go_with_their_clicks_into_a_final_model(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    config = Config()
    runner = config.runner.model_copy(update={f"{part}_data_dir": data / part for part in ("train", "valid", "test")})
    settings = replace_hyper(Config(runner=runner), half_life_days=5.0)
    with pytest.raises(DataError, match="prepare the data with --keep-ages"):
        read_inputs(settings)
    (data / AGES).mkdir()
    for part in ("train", "valid", "test"):
        found = read_train(data / part) if part == "train" else joined(read_eval(data / part))
        np.save(data / AGES / f"{part}.npy", (found.item_id % 7).astype(np.float32))
    inputs = read_inputs(settings)
    assert inputs.ages is not None and (inputs.ages == inputs.sequences.item_id % 7).all()
    words = [str(CONFIG), *overrides(data, runner__epochs=1, hyper_parameters__half_life_days=5.0)]
    words += ["-o", "hyper_parameters.trending_days=2"]
    done = run_here("mind.train", "-m", *words)
    assert done.returncode == 0, done.stderr
    (path,) = (data / "artifacts").iterdir()
    model = load_artifact(path)
    assert model.hyper_parameters.half_life_days == 5
    recent = inputs.sequences.item_id[inputs.ages <= 2]
    assert model.weights.popularity.sum() == len(recent)
    every = read_everything(settings, model)
    assert every.ages is not None and (every.ages == every.sequences.item_id % 7).all()
    assert every.fingerprint["ages"] != inputs.fingerprint["ages"]


def replace_hyper(config: Config, **values: float) -> Config:
    """The same configuration with other hyper-parameters."""
    return config.model_copy(update={"hyper_parameters": config.hyper_parameters.model_copy(update=values)})

"""The training configuration: PaddleRec's keys, every fault named."""

from pathlib import Path

import pytest

from mind.config import Config, load_config
from mind.errors import ConfigError
from tests import ROOT

SHIPPED = ROOT / "mind" / "config.yaml"


def test_the_shipped_file_is_the_defaults() -> None:
    assert load_config(SHIPPED) == Config()


def test_overrides_win() -> None:
    config = load_config(
        SHIPPED, ["runner.epochs=3", "hyper_parameters.optimizer.learning_rate=1e-2", "runner.valid_data_dir=null"]
    )
    assert (config.runner.epochs, config.hyper_parameters.optimizer.learning_rate) == (3, 0.01)
    assert config.runner.valid_data_dir is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("runner.epochz=3", "runner.epochz: unknown key; did you mean runner.epochs?"),
        ("hyper_parameters.optimiser.decay=none", "unknown key; did you mean hyper_parameters.optimizer?"),
        ("extra.thing=3", "extra: unknown key"),
        ("hyper_parameters.optimizer.class=SGD", "optimizer.class: Input should be 'Adam' (value: 'SGD')"),
        ("hyper_parameters.maxlen=long", "hyper_parameters.maxlen: Input should be a valid integer"),
        ("hyper_parameters.num_interests=0", "num_interests: Input should be greater than 0 (value: 0)"),
        ("hyper_parameters.hidden_size=32", "hidden_size is 32 and embedding_dim 64"),
        ("runner.epochs", "'runner.epochs': expected section.key=value"),
        ("runner.epochs.x=1", "epochs is a value, not a section"),
        ("runner.epochs=[", "the value is not YAML"),
        ("runner.precision=bfloat16", "precision is bfloat16 and use_gpu is false"),
        ("hyper_parameters.item_features=[genres]", "needs runner.item_features_file"),
    ],
)
def test_faults_are_named(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SHIPPED, [override])
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"runner: [", "not YAML"),
        (b"- a\n- b\n", "expected sections `runner` and `hyper_parameters`, found list"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"runner: 3\n", "runner: Input should be a valid dictionary"),
        (b"hyper_parameters: {optimizer: !!python/object/apply:os.system ['true']}\n", "not YAML"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert says in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_config(Path("nowhere.yaml"))

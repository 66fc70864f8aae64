"""The encoder for GPUs, on a stand-in for CuPy: the vectors of the NumPy encoder, and nothing bad on the device."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest

from mind.artifact import Artifact
from mind.encoder import Encoder, NumpyEncoder, check_golden
from mind.encoders import EncoderName, encoder_maker
from mind.errors import ConfigError
from mind.sequences import Int64
from mind.weights import Weights
from server.options import load_settings
from tests.artifacts import hyper_parameters_of, make_weights
from tests.fake_cupy import FakeCupy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    return installed(monkeypatch, FakeCupy())


def installed(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy | None) -> Any:
    """Let `import cupy` find this, or nothing."""
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.delitem(sys.modules, "mind.cupy_encoder", raising=False)
    return cupy


def made(weights: Weights, **changes: Any) -> Encoder:
    return encoder_maker(EncoderName.cupy)(Artifact("test", hyper_parameters_of(weights, **changes), weights))


def histories(users: int, items: int, maxlen: int = 8) -> tuple[Int64, Int64]:
    rng = np.random.default_rng(users)
    seq_len = rng.integers(0, maxlen + 1, users)
    return rng.integers(1, items + 1, (users, maxlen)) * (np.arange(maxlen) < seq_len[:, None]), seq_len


@pytest.mark.parametrize("softmax", ["interests", "history", "history_then_interests"])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("init", ["history", "random"])
def test_the_gpu_gives_the_vectors_of_the_cpu(
    cupy: FakeCupy, softmax: str, bounded: bool, residual: bool, relu: bool, init: str
) -> None:
    weights = dataclasses.replace(make_weights(), join_cosine=np.array([0.8], np.float32))
    options: dict[str, Any] = {"routing_softmax": softmax, "bounded_update": bounded, "residual": residual}
    options["routing_init"] = init
    if relu:
        linear = np.random.default_rng(4).normal(size=(17, 16)).astype(np.float32)
        weights, options = dataclasses.replace(weights, projection=linear), options | {"projection": "relu"}
    on_cpu = NumpyEncoder(weights, hyper_parameters_of(weights, **options))
    on_gpu = made(weights, **options)
    for users in (0, 1, 3, 64, 300):  # the sizes are 1, 8, 64 and 256
        found, expected = on_gpu.encode(*histories(users, 200)), on_cpu.encode(*histories(users, 200))
        assert (found.shape, found.dtype) == (expected.shape, np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # projected together, or batch by batch


def test_the_golden_vectors_hold_it(cupy: FakeCupy) -> None:
    weights = make_weights()
    encoder = made(weights)
    check_golden(encoder, Artifact("test", hyper_parameters_of(weights), weights))
    assert (encoder.name, encoder.inline) == ("cupy", False)


def test_the_table_moves_once_and_batches_have_few_shapes(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights()
    made(weights)  # which imports the module with the stand-in
    monkeypatch.setattr("mind.cupy_encoder._PROJECTED_ROWS", 64)  # 201 rows in four parts
    cupy.moved.clear()
    encoder = made(weights)
    parts = [shape for shape in cupy.moved if shape[-1] == 16 and shape[0] not in (16,)]
    assert parts == [(64, 16), (64, 16), (64, 16), (9, 16)]
    check_golden(encoder, Artifact("test", hyper_parameters_of(weights), weights))
    cupy.moved.clear()
    for users, length in ((2, 3), (7, 8), (65, 1), (300, 5)):
        hist_index, _ = histories(users, 200)
        encoder.encode(hist_index[:, :length], np.full(users, length))
    batches = [shape for shape in cupy.moved if len(shape) == 2]
    assert batches == [(8, 8), (8, 8), (256, 8), (256, 8), (64, 8)]


@pytest.mark.parametrize("row", [-1, 201])
def test_rows_outside_the_table_never_reach_the_gpu(cupy: FakeCupy, row: int) -> None:
    encoder = made(make_weights(items=200))
    cupy.moved.clear()
    with pytest.raises(ValueError, match="the table has 0 to 200"):
        encoder.encode(np.array([[1, row]]), np.array([2]))
    assert not cupy.moved


@pytest.mark.parametrize(
    ("cupy", "says"),
    [
        (FakeCupy(gpus=0), "encoder is cupy, but CuPy finds no GPU; take the encoder numpy"),
        (FakeCupy(gpus=None), "encoder is cupy, but CuPy finds no GPU: cudaErrorInsufficientDriver"),
        (None, "encoder is cupy, but CuPy is not installed; it is the extra cupy"),
    ],
)
def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, cupy: FakeCupy | None, says: str) -> None:
    installed(monkeypatch, cupy)
    with pytest.raises(ConfigError, match=says):
        encoder_maker(EncoderName.cupy)


def test_it_is_an_option_of_the_server_that_wants_a_gpu() -> None:
    assert load_settings(["--encoder", "cupy"]).encoder == "cupy"
    with pytest.raises(ConfigError, match="device is cpu, but encoder is cupy, which needs a GPU"):
        load_settings(["--encoder", "cupy", "--device", "cpu"])

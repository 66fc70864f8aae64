"""Makes encoders by name. The libraries of an encoder are imported only when it is used."""

from collections.abc import Callable
from enum import StrEnum

from mind.artifact import Artifact
from mind.encoder import Encoder, NumpyEncoder
from mind.errors import ConfigError


class EncoderName(StrEnum):
    """The names of the encoders."""

    numpy = "numpy"
    cupy = "cupy"
    paddle = "paddle"


def encoder_maker(name: EncoderName, paddle_device: str = "cpu") -> Callable[[Artifact], Encoder]:
    """Return a function that makes the encoder of a model.

    Args:
        name: which encoder.
        paddle_device: cpu, gpu, or auto for a GPU where there is one; for the encoder paddle.

    Raises:
        ConfigError: its library is not installed, or it needs a GPU and there is none.
    """
    if name is EncoderName.numpy:
        return lambda artifact: NumpyEncoder(artifact.weights, artifact.hyper_parameters)
    if name is EncoderName.cupy:
        return _cupy()
    return _paddle(paddle_device)


def _cupy() -> Callable[[Artifact], Encoder]:
    try:
        from mind.cupy_encoder import CupyEncoder, check_gpu
    except ModuleNotFoundError as error:
        raise ConfigError("encoder is cupy, but CuPy is not installed; it is the extra cupy") from error
    check_gpu()
    return lambda artifact: CupyEncoder(artifact.weights, artifact.hyper_parameters)


def _paddle(device: str) -> Callable[[Artifact], Encoder]:
    try:
        from mind.paddle_encoder import PaddleEncoder, check_device
    except ModuleNotFoundError as error:
        raise ConfigError("encoder is paddle, but PaddlePaddle is not installed; it is the extra cpu or gpu") from error
    check_device(device)
    return lambda artifact: PaddleEncoder.from_artifact(artifact, device)

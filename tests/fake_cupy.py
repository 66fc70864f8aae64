"""A stand-in for CuPy on machines without a GPU: NumPy behind arrays that are as strict as those on a GPU.

An array of the device never meets one of the host, in an operation or as an index, is never converted unasked, and
wraps around where an index is out of bounds, as CuPy's does.
"""

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class CUDARuntimeError(Exception):
    """What CuPy raises without a driver."""


class DeviceArray(NDArrayOperatorsMixin):
    """An array that is on the device."""

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)
        self.shape = self.host.shape

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> "DeviceArray":
        if out := options.get("out"):
            options["out"] = tuple(_host(each) for each in out)
        found = getattr(ufunc, method)(*map(_host, inputs), **options)
        return out[0] if out else DeviceArray(found)

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, key: Any) -> "DeviceArray":
        return DeviceArray(self.host[_key(key, len(self))])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[_key(key, len(self))] = _host(value)

    def argmin(self, axis: int) -> "DeviceArray":
        return DeviceArray(self.host.argmin(axis=axis))

    def max(self, axis: int, keepdims: bool) -> "DeviceArray":
        return DeviceArray(self.host.max(axis=axis, keepdims=keepdims))

    def sum(self, axis: int, keepdims: bool) -> "DeviceArray":
        return DeviceArray(self.host.sum(axis=axis, keepdims=keepdims))

    def transpose(self, *axes: int) -> "DeviceArray":
        return DeviceArray(self.host.transpose(*axes))


def _host(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _key(key: Any, rows: int) -> Any:
    if isinstance(key, DeviceArray):
        return key.host % rows
    return tuple(map(_host, key)) if isinstance(key, tuple) else _host(key)


class FakeCupy(ModuleType):
    """The functions that the project uses. `gpus`: how many there are; None without a driver."""

    def __init__(self, gpus: int | None = 1) -> None:
        super().__init__("cupy")
        self.gpus = gpus
        self.free_bytes = 8_000_000_000
        self.moved: list[tuple[int, ...]] = []
        """The shapes of the arrays that came from the host."""
        self.float32 = np.float32
        self.exp, self.log, self.sqrt, self.maximum = np.exp, np.log, np.sqrt, np.maximum
        self.linalg = SimpleNamespace(norm=lambda x, **options: DeviceArray(np.linalg.norm(_host(x), **options)))
        self.__version__ = "0"
        runtime = SimpleNamespace(
            getDeviceCount=self._device_count,
            getDeviceProperties=lambda _: {"name": b"Stand-in"},
            memGetInfo=lambda: (self.free_bytes, 80_000_000_000),
            CUDARuntimeError=CUDARuntimeError,
        )
        self.cuda = SimpleNamespace(runtime=runtime)

    def asarray(self, array: Any) -> DeviceArray:
        self.moved.append(array.shape)
        return DeviceArray(array.copy())

    def asnumpy(self, array: DeviceArray) -> Any:
        return array.host.copy()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        return DeviceArray(np.full(shape, np.nan, dtype))

    def arange(self, stop: int) -> DeviceArray:
        return DeviceArray(np.arange(stop))

    def where(self, condition: DeviceArray, x: Any, y: Any) -> DeviceArray:
        return DeviceArray(np.where(condition.host, _host(x), _host(y)))

    def _device_count(self) -> int:
        if self.gpus is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return self.gpus

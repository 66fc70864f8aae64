"""Tells this process its rank among those that `paddle.distributed.launch` started for data-parallel training.

Each process has its own users. All processes learn from every batch, each from an equal share of its examples.
"""

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from mind.errors import ConfigError
from mind.paddle_runtime import has_gpu, paddle
from mind.training.sampler import Batch

Values = TypeVar("Values", bound=npt.NDArray[Any])


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train together. A single process is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, use_gpu: bool) -> "Ranks":
        """Choose the device, and connect to the other processes if a launcher started this one with others.

        Raises:
            ConfigError: a GPU is wanted and there is none.
        """
        if use_gpu and not has_gpu():
            raise ConfigError(
                "runner.use_gpu is true, but this Paddle has no GPU: install paddlepaddle-gpu, or say false"
            )
        paddle.set_device(f"gpu:{paddle.distributed.ParallelEnv().device_id}" if use_gpu else "cpu")
        world = paddle.distributed.get_world_size()
        if world > 1:
            paddle.distributed.init_parallel_env()
        return cls(paddle.distributed.get_rank(), world)

    @property
    def leads(self) -> bool:
        """Whether this process validates, prints and writes."""
        return self.rank == 0

    def averaged(self, network: paddle.nn.Layer) -> paddle.nn.Layer:
        """Return the network with the weights of rank 0 and with gradients that are averaged over the processes."""
        if self.world == 1:
            return network
        return paddle.DataParallel(network, find_unused_parameters=True)

    def mean(self, values: list[float]) -> list[float]:
        """Return the means of the processes' values. Each process must give equally many values."""
        if self.world == 1:
            return values
        tensor = paddle.to_tensor(values, dtype="float64")
        paddle.distributed.all_reduce(tensor)
        return [float(total) / self.world for total in tensor.numpy()]

    def of_leader(self, values: list[float]) -> list[float]:
        """Return the values of rank 0. Each process must give equally many values."""
        if self.world == 1:
            return values
        tensor = paddle.to_tensor(values, dtype="float64")
        paddle.distributed.broadcast(tensor, 0)
        return [float(value) for value in tensor.numpy()]

    def gather(self, values: Values) -> Values:
        """Return the values of all processes in the order of their ranks. Each may give any number, [n] of one type."""
        if self.world == 1:
            return values
        counts = [int(count) for count in self._all(np.array([len(values)]))]
        padded = np.zeros(max(counts), values.dtype)
        padded[: len(values)] = values
        found = self._all(padded).reshape(self.world, -1)
        return cast(Values, np.concatenate([one[:count] for one, count in zip(found, counts, strict=True)]))

    def _all(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of all processes, which have equally many."""
        found: list[paddle.Tensor] = []
        paddle.distributed.all_gather(found, paddle.to_tensor(values))
        return np.concatenate([one.numpy() for one in found])

    def total(self, values: Values) -> Values:
        """Return the sum over the processes of arrays of one shape."""
        return values if self.world == 1 else cast(Values, self._summed(values).numpy())

    def _summed(self, values: npt.NDArray[Any]) -> paddle.Tensor:
        tensor = paddle.to_tensor(values)
        if self.world > 1:
            paddle.distributed.all_reduce(tensor)
        return tensor

    def share(self, batch: Batch) -> list[paddle.Tensor]:
        """Return what this process learns from: its share of the histories, and all candidates, its own first.

        Args:
            batch: of B examples, which divide evenly among the processes; each process gives its part of the batch.

        Returns:
            hist_index, seq_len and candidates of the share, on the device, and the weights, if the batch has any. The
            weights have a mean of 1 over the rows of all processes.
        """
        size, maxlen = batch.hist_index.shape
        packed = self._summed(np.concatenate([batch.hist_index.ravel(), batch.seq_len, batch.candidates]))
        parts = paddle.split(packed, [size * maxlen, size, len(batch.candidates)])
        found = [parts[0].reshape([size, maxlen]), parts[1], parts[2]]
        if batch.weight is not None:
            weight = self._summed(batch.weight)
            found.append(weight / weight.mean())
        if self.world == 1:
            return found
        turns = np.arange(size).reshape(-1, self.world)
        order = np.roll(turns, -self.rank, axis=1).T.ravel()  # own rows first
        every = paddle.to_tensor(np.append(order, np.arange(size, len(batch.candidates))))
        mine = paddle.to_tensor(order[: size // self.world])
        return [paddle.gather(one, every if number == 2 else mine) for number, one in enumerate(found)]


ALONE = Ranks()

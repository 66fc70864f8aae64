"""Data-parallel training: which of the processes that `paddle.distributed.launch` started this one is."""

from dataclasses import dataclass

from mind.errors import ConfigError
from mind.paddle_runtime import has_gpu, paddle


@dataclass(frozen=True)
class Ranks:
    """Which of the processes that train together this one is; a process alone is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, use_gpu: bool) -> "Ranks":
        """Choose the device, and meet the other processes if a launcher started this one with others.

        Raises:
            ConfigError: a GPU is asked for and there is none.
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
        """The network with gradients averaged over the processes, and with the weights of rank 0 to begin with."""
        if self.world == 1:
            return network
        return paddle.DataParallel(network, find_unused_parameters=True)

    def mean(self, values: list[float]) -> list[float]:
        """The means of the processes' values; all processes give equally many."""
        if self.world == 1:
            return values
        tensor = paddle.to_tensor(values, dtype="float64")
        paddle.distributed.all_reduce(tensor)
        return [float(total) / self.world for total in tensor.numpy()]

    def of_leader(self, values: list[float]) -> list[float]:
        """The values of rank 0; all processes give equally many."""
        if self.world == 1:
            return values
        tensor = paddle.to_tensor(values, dtype="float64")
        paddle.distributed.broadcast(tensor, 0)
        return [float(value) for value in tensor.numpy()]

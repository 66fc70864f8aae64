"""The first stage: encodes the histories of a batch, on the event loop or in the encoder's thread."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

import numpy as np

from mind.artifact import Float32
from mind.sequences import Int64
from server.release import Release
from server.serving.inputs import Inputs
from server.serving.offload import ITEMS_PER_USER, computed


class EncodeStage:
    """Runs encoders, and notices when one is lost."""

    def __init__(self, encode_on: Executor, on_lost: Callable[[], Awaitable[None]]) -> None:
        """Make the stage.

        Args:
            encode_on: must have one thread, because an encoder need not be thread-safe.
            on_lost: called when an encoder fails even for a history that it encoded before, as after a GPU fault.
        """
        self._encode_on = encode_on
        self._on_lost = on_lost

    async def encode(self, release: Release, inputs: Inputs) -> Float32:
        """Return the [B, K, D] float32 interest vectors of the active users."""
        if not len(inputs.active):
            return np.zeros((0, 1, release.hyper_parameters.embedding_dim), np.float32)
        if release.encoder.inline:
            items = ITEMS_PER_USER * len(inputs.active)
            return await computed(items, release.encoder.encode, inputs.hist_index, inputs.seq_len)
        try:
            return await self._on_thread(release, inputs.hist_index, inputs.seq_len)
        except Exception:
            try:
                await self._on_thread(release, *release.golden_history)
            except Exception:
                await self._on_lost()
            raise

    async def _on_thread(self, release: Release, hist_index: Int64, seq_len: Int64) -> Float32:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._encode_on, release.encoder.encode, hist_index, seq_len)

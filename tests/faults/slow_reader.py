"""A caller's network that carries requests and stops to carry answers, on demand."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024


class SlowReader:
    """Carries connections to one address. An async context manager; clear `reads` and nothing comes back."""

    def __init__(self, target: str) -> None:
        """`target`: `host:port`."""
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._carrying: set[asyncio.Task[None]] = set()
        self.reads = asyncio.Event()
        """Set: answers are carried."""
        self.reads.set()
        self.address = ""
        """`127.0.0.1:port`, where the caller connects."""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        far_reader, far_writer = await asyncio.open_connection(*self._target, limit=_CHUNK)
        up = asyncio.create_task(self._pump(reader, far_writer, None))
        try:
            with suppress(asyncio.CancelledError):  # asyncio would report it
                await self._pump(far_reader, writer, self.reads)
        finally:
            up.cancel()
            for each in (writer, far_writer):
                each.transport.abort()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: asyncio.Event | None) -> None:
        with suppress(OSError):
            while not may or await may.wait():
                if not (chunk := await reader.read(_CHUNK)):
                    return
                writer.write(chunk)
                await writer.drain()

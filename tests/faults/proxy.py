"""A TCP proxy that is slow, silent or cut, as a network can be. Knows nothing of what it carries."""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Carries connections to one port. An async context manager; set `delay_ms` and `refuses` at any time."""

    def __init__(self, target: str) -> None:
        """`target`: `host:port`, or a URI that has them."""
        host, _, port = target.rpartition("//")[2].rpartition(":")
        self._target = host, int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.delay_ms = 0.0
        """How much later everything arrives, in each direction."""
        self.refuses = False
        """New connections are reset at once."""
        self.connections = 0
        """Connections taken so far."""
        self.address = ""
        """`127.0.0.1:port`, where callers connect."""

    def stall(self) -> None:
        """Keep connections open, take new ones, and forward nothing."""
        self._open.clear()

    def go_on(self) -> None:
        """Forward again, what was held back first."""
        self._open.set()

    def reset(self) -> None:
        """Reset every connection (RST)."""
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more, and reset what is open."""
        self._server.close()
        self.go_on()
        self.reset()
        await asyncio.gather(*self._carrying)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        self.connections += 1
        writers = {writer}
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                writers.add(far_writer)
                self._writers.add(far_writer)
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= writers
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction. Chunks come late, not slowly: one need not wait for the one before."""
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1_024)

        async def take() -> None:
            chunk = b"-"
            while chunk:
                chunk = b""
                with suppress(OSError):
                    chunk = await reader.read(_CHUNK)
                await late.put((loop.time() + self.delay_ms / 1000, chunk))

        taking = asyncio.create_task(take())
        chunk = b"-"
        while chunk:
            due, chunk = await late.get()
            await asyncio.sleep(due - loop.time())
            await self._open.wait()
            with suppress(OSError):  # the other side is gone: what still comes is lost
                writer.write(chunk)
                await writer.drain()
        with suppress(OSError):
            writer.write_eof()
        await taking

"""What gRPC itself takes of a call, in a server that does nothing: `python -m tests.bench.empty_call`.

Processor time of a grpc.aio server on uvloop, and of the two ways to ask it: the client that gRPC generates, and the
load generator's own HTTP/2 (`tests.bench.serving.http2`).
"""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Annotated, Any

import grpc
import psutil
import typer
import uvloop
from rich.table import Table

from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.http2 import Channel

PATH = "/bench.Empty/Call"
CALLERS = 64
REQUEST = b"x" * 64

app = typer.Typer(add_completion=False)


def serve() -> None:
    """Answer with what was asked, until standard input ends; `{}` is answered with the address."""

    async def answer(request: bytes, context: Any) -> bytes:
        return request

    async def run(ports: SimpleQueue[int]) -> None:
        server = grpc.aio.server()
        handlers = {"Call": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Empty", handlers),))
        ports.put(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await asyncio.Event().wait()

    def loop(ports: SimpleQueue[int]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(ports))

    ports: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=loop, args=(ports,), daemon=True).start()
    port = ports.get(timeout=world.START_S)
    world.answer_lines(lambda _: f"127.0.0.1:{port}")


def ask(kind: str, address: str) -> None:
    """Answer `seconds`: as many calls as 64 callers can make, and the processor time of this side."""

    async def load(call: Callable[[bytes], Awaitable[bytes]], seconds: float) -> int:
        calls, end = 0, time.perf_counter() + seconds

        async def caller() -> None:
            nonlocal calls
            while time.perf_counter() < end:
                await call(REQUEST)
                calls += 1

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return calls

    async def run(seconds: float) -> dict[str, float]:
        host, _, port = address.rpartition(":")
        channel = grpc.aio.insecure_channel(address)
        call = channel.unary_unary(PATH) if kind == "generated" else Channel([(host, int(port))], PATH, timeout_s=30)
        await load(call, 0.3)
        before = time.process_time()
        calls = await load(call, seconds)
        spent = time.process_time() - before
        await channel.close()
        return {"calls": calls, "cpu_s": spent}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        world.answer_lines(lambda question: runner.run(run(**question)))


@app.command()
def main(seconds: Annotated[float, typer.Option(min=0.1, help="Of every measurement.")] = 5) -> None:
    """Print what a call costs server and client, in ms of processor time."""
    console.print(describe())
    table = Table(title=f"an empty call, {CALLERS} callers; processor time of one call, ms", title_justify="left")
    for heading in ("client", "calls/s", "server", "of it in the kernel", "client"):
        table.add_column(heading, justify="left" if heading == "client" and not table.columns else "right")
    with world.worker("tests.bench.empty_call", "serve") as server:
        address, process = server.ask(), psutil.Process(server.pid)
        for kind in ("generated", "http2"):
            with world.worker("tests.bench.empty_call", kind, address) as client:
                client.ask(seconds=0.3)
                before = process.cpu_times()
                answer = client.ask(seconds=seconds)
                after, calls = process.cpu_times(), answer["calls"]
            user, kernel = (1000 * (now - was) / calls for now, was in zip(after[:2], before[:2], strict=True))
            share = f"{kernel / (user + kernel):.0%}"
            cells = f"{calls / seconds:,.0f}", f"{user + kernel:.3f}", share, f"{1000 * answer['cpu_s'] / calls:.3f}"
            table.add_row(kind, *cells)
    console.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    elif len(sys.argv) == 3 and sys.argv[1] in ("generated", "http2"):
        ask(*sys.argv[1:])
    else:
        app()

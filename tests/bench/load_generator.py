"""What `recall-client bench` itself costs, against a server that does nothing: `python -m tests.bench.load_generator`.

The server answers every request with the same 50 candidates. Beside it the client that gRPC generates, in a loop that
measures nothing. All of them are processes of their own.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Annotated, Any

import grpc
import typer
import uvloop
from rich.table import Table

from clients.bench.histories import Clicks
from clients.bench.load import Load, Outcome, Plan, Sender, Tally
from clients.bench.loops import closed_loop
from clients.bench.mix import Shape
from clients.bench.traffic import Traffic
from protos.recall.v1 import recall_pb2, recall_pb2_grpc
from tests import ROOT
from tests.bench.machine import console, describe

TOP_K, CALLERS, HISTORY = 50, 64, 20
SHARES = (0.1, 0.25, 0.5)
"""Of the rate of the closed loop, for the open one."""
MODULE = "tests.bench.load_generator"

app = typer.Typer(add_completion=False)


class Null(recall_pb2_grpc.RecallServiceServicer):
    """Answers at once, whatever is asked."""

    _user = recall_pb2.UserCandidates(
        item_ids=range(TOP_K), scores=[0.5] * TOP_K, interest=[0] * TOP_K, status=recall_pb2.USER_STATUS_OK
    )

    async def Recall(self, request: Any, context: Any) -> recall_pb2.RecallResponse:  # noqa: N802
        """Candidates for one user."""
        return recall_pb2.RecallResponse(results=[self._user], model_version="none", collection="none")

    async def GetServerInfo(self, request: Any, context: Any) -> recall_pb2.GetServerInfoResponse:  # noqa: N802
        """No limits."""
        return recall_pb2.GetServerInfoResponse(collection="none", maxlen=HISTORY)


async def serve() -> None:
    """Print the port, and answer until the process is ended."""
    server = grpc.aio.server()
    recall_pb2_grpc.add_RecallServiceServicer_to_server(Null(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


async def ask_bare(address: str, seconds: float) -> dict[str, float]:
    """What the generated client alone does: requests a second, and ms of its loop for each."""
    users = [recall_pb2.User(hist_item=range(HISTORY))]
    request, calls = recall_pb2.RecallRequest(users=users, top_k=TOP_K), 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = recall_pb2_grpc.RecallServiceStub(channel)

        async def call(_: float) -> None:
            nonlocal calls
            await stub.Recall(request, timeout=30)
            calls += 1

        await closed_loop(call, CALLERS, 0.5)
        calls, before, started = 0, time.thread_time(), time.perf_counter()
        await closed_loop(call, CALLERS, seconds)
        spent_s, took_s = time.thread_time() - before, time.perf_counter() - started
    return {"rate": calls / took_s, "loop_ms": 1_000 * spent_s / calls}


async def bookkeeping_ms(requests: int = 20_000) -> float:
    """Processor time of what is done for a request beside gRPC: drawing it, decoding and counting the answer."""
    answer = (await Null().Recall(None, None)).SerializeToString()

    class AtOnce(Sender):
        async def send(self, request: recall_pb2.RecallRequest) -> recall_pb2.RecallResponse:
            return recall_pb2.RecallResponse.FromString(answer)

    shape = Shape(top_k=TOP_K)
    traffic = Traffic([shape], [Clicks(range(HISTORY))], HISTORY, seed=0)
    outcome = Outcome(Plan(None, 1, 0, 1), [Tally(shape)], recall_pb2.GetServerInfoResponse(), "")
    load = Load([AtOnce(timeout_s=1)], traffic, outcome)
    before = time.process_time()
    for _ in range(requests):
        await load.one(time.perf_counter())
    return 1_000 * (time.process_time() - before) / requests


def ask_bare_apart(address: str, seconds: float) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", MODULE, "bare", address, str(seconds)]
    found: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return found


def ask_bench(address: str, seconds: float, *words: str) -> dict[str, float]:
    """What `recall-client bench` finds, and what it costs."""
    command = [sys.executable, "-m", "clients", "bench", "--server", address, "--format", "json", "--warm-up-s", "0.5"]
    command += ["--duration-s", str(seconds), "--history", str(HISTORY), "--timeout-ms", "30000", *words]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    total, generator = found["total"], found["generator"]
    return {
        "rate": total["requests"] / found["elapsed_s"],
        "loop_ms": 1_000 * generator["busy"] * found["elapsed_s"] / total["requests"],
        "late_ms": generator["late_p99_ms"],
        "p50_ms": total["p50_ms"],
        "p99_ms": total["p99_ms"],
    }


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=0.2, help="Of every turn.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each, interleaved; medians are shown.")] = 5,
) -> None:
    """Print the rate that it reaches, what a request costs it, and how late it sends at lower rates."""
    console.print(describe())
    title = f"a server that does nothing, medians of {rounds} turns of {seconds:g} s; ms"
    table = Table(title=title, title_justify="left")
    headings = ("requests/s", "its loop, a request", "sent late, p99", "p50", "p99")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    command = [sys.executable, "-m", MODULE, "serve"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = f"127.0.0.1:{server.stdout.readline().strip()}"
            callers = str(CALLERS)
            turns = [
                (ask_bare_apart(address, seconds), ask_bench(address, seconds, "--callers", callers))
                for _ in range(rounds)
            ]
            peak = statistics.median(mine["rate"] for _, mine in turns)
            found = {f"the generated client alone, {CALLERS} callers": [bare for bare, _ in turns]}
            found[f"recall-client bench, {CALLERS} callers"] = [mine for _, mine in turns]
            for share in SHARES:
                rate = str(round(share * peak))
                found[f"the same, --rate {rate}"] = [ask_bench(address, seconds, "--rate", rate) for _ in range(rounds)]
        finally:
            server.terminate()
    for name, answers in found.items():
        medians = {key: statistics.median(answer[key] for answer in answers) for key in answers[0]}
        cells = [f"{medians[key]:.2f}" if key in medians else "" for key in ("late_ms", "p50_ms", "p99_ms")]
        table.add_row(name, f"{medians['rate']:,.0f}", f"{medians['loop_ms']:.3f}", *cells)
    console.print(table)
    own_ms = statistics.median(asyncio.run(bookkeeping_ms()) for _ in range(rounds))
    console.print(f"of it without gRPC: {own_ms:.4f} ms of processor time a request")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve())
    elif sys.argv[1:2] == ["bare"]:
        print(json.dumps(asyncio.run(ask_bare(sys.argv[2], float(sys.argv[3])))))
    else:
        app()

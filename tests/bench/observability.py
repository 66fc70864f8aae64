"""What being watched costs: `python -m tests.bench.observability`.

One Milvus, and servers that differ only in who watches them. They take turns in every round, and each
is compared with the silent one of the same round, so that all meet the same neighbours on a shared machine. Metrics are
read once a turn, far more often than Prometheus does; traces go to a receiver in this process. Two servers that are the
same differ by a few per cent; therefore the hooks are timed by themselves too, and compared with what a call costs.
"""

import os
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import typer
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from rich.table import Table

from mind.artifact import Float32, load_artifact
from server.instrumentation import make_metrics, make_telemetry
from server.settings import Settings
from server.watching.telemetry import SILENT, Telemetry
from tests.bench import hooks
from tests.bench.machine import console
from tests.bench.serving import world
from tests.bench.serving.world import Worker, watching

WATCHED = ("--metrics-listen", "127.0.0.1:0", "--log-format", "json")
"""As in production; the share of sampled batches is the default."""
TRACED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
LOADS = ((1, 64), (64, 16))
"""Users of a request, callers."""


@dataclass
class Subject:
    """A server, and what was measured of it under the load of the moment."""

    name: str
    address: str
    pid: int
    metrics: str
    """URL of its metrics; empty without."""
    users_per_s: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time per 1,000 users."""


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Takes spans and counts them."""

    def __init__(self) -> None:
        """None yet."""
        self.spans = 0

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See opentelemetry.proto.collector.trace.v1."""
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def receiving() -> Iterator[tuple[Receiver, str]]:
    """An OTLP receiver and its endpoint."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield receiver, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def subjects(directory: Path, uri: str, endpoint: str) -> Iterator[list[Subject]]:
    """Two silent servers, one with metrics, samples and JSON logs, and one that traces 1 % of calls."""
    variants: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
        ("silent", (), {}),
        ("silent, another one", (), {}),
        ("metrics, samples, JSON logs", WATCHED, {}),
        ("traces of 1 %", ("--otlp-endpoint", endpoint), TRACED),
    ]
    with ExitStack() as stack:
        found = []
        for name, options, variables in variants:
            server = world.our_server(directory, uri, *options, variables=variables)
            address, pid = stack.enter_context(server)
            url = re.search(r"metrics on (http\S+?metrics)", (directory / "server.log").read_text())
            found.append(Subject(name, address, pid, url[1] if url else ""))
        yield found


def measure(load: Worker, subject: Subject, users: int, callers: int, seconds: float) -> None:
    """One turn."""
    question = {"users": users, "callers": callers, "seconds": seconds, "watch": [subject.pid]}
    answer = load.ask(kind="grpc", address=subject.address, **question)
    with watching([subject.pid]) as scrape_cpu_s:
        if subject.metrics:
            urllib.request.urlopen(subject.metrics, timeout=10).close()  # noqa: S310
    spent = sum(answer["watched_cpu_s"] + scrape_cpu_s)
    assert set(answer["outcomes"]) == {"OK"}, answer["outcomes"]
    subject.users_per_s.append(answer["users_per_s"])
    subject.cpu.append(spent / (answer["users_per_s"] * answer["seconds"] / 1_000))


def rows(found: list[Subject]) -> Iterator[list[str]]:
    """What each gives, and the median of its ratios to the silent server of the same round."""
    silent = found[0]
    for subject in found:
        yield [
            subject.name,
            f"{np.median(subject.users_per_s):,.0f}",
            _ratio(subject.users_per_s, silent.users_per_s),
            f"{np.median(subject.cpu):.3f}",
            _ratio(subject.cpu, silent.cpu),
        ]


def _ratio(own: list[float], silent: list[float]) -> str:
    """Median and its 95 % confidence interval, by the bootstrap."""
    ratios = np.array(own) / np.array(silent)
    drawn = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def _hooks(call_us: float, endpoint: str, item_embedding: Float32) -> Table:
    """What a call spends in the hooks, beside the `call_us` microseconds that it costs a silent server in all."""
    os.environ |= TRACED
    silent = hooks.microseconds(SILENT)
    table = Table(title="The hooks alone, microseconds a call", title_justify="left")
    for heading in ("", "more than silent", f"of {call_us:.0f}"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, telemetry in (
        ("metrics", Telemetry(make_metrics())),
        ("traces of 1 %", make_telemetry(Settings(otlp_endpoint=endpoint))),
    ):
        more = hooks.microseconds(telemetry) - silent
        telemetry.close()
        table.add_row(name, f"{more:.1f}", f"{more / call_us:.1%}")
    batch = hooks.BATCH / Settings().recall_sample_rate  # calls between two samples
    more = hooks.sample_microseconds(item_embedding) / batch
    table.add_row(f"samples of recall, {len(item_embedding) - 1:,} items", f"{more:.2f}", f"{more / call_us:.1%}")
    return table


def main(
    workdir: Annotated[Path, typer.Option(help="Model, collection and results; used again next time.")] = Path(
        "build/bench-observability"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server under each load.")] = 40,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 1,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Compare watched servers with a silent one."""
    directory, artifact = world.begin(workdir, items)
    console.print(f"{items:,} items, {rounds} rounds of {seconds:g} s for each server")
    with ExitStack() as stack:
        uri, _ = stack.enter_context(world.milvus(directory, milvus_uri))
        world.build_and_publish(artifact, uri)
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        receiver, endpoint = stack.enter_context(receiving())
        found = stack.enter_context(subjects(directory, uri, endpoint))
        for users, callers in LOADS:
            for subject in found:
                subject.users_per_s, subject.cpu = [], []
            for turn in range(rounds):
                for subject in (found, found[::-1])[turn % 2]:
                    measure(load, subject, users, callers, seconds)
            table = Table(title=f"{users} users a request, {callers} callers", title_justify="left")
            for heading in ("", "users/s", "of silent", "CPU s per 1,000 users", "of silent"):
                table.add_column(heading, justify="left" if not heading else "right")
            for row in rows(found):
                table.add_row(*row)
            console.print(table)
            if users == 1:
                items_table = load_artifact(artifact).weights.item_embedding
                console.print(_hooks(float(np.median(found[0].cpu)) * 1_000, endpoint, items_table))
    console.print(f"{receiver.spans:,} spans received")


if __name__ == "__main__":
    typer.run(main)

"""What a shadow channel costs live requests: `python -m tests.bench.serving.shadow`.

One real Milvus with two models in two channels, and two servers of both channels. One of them asks the second channel a
share of the requests too. The same requests go to both servers in turn.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clients import RecallClient
from mind.artifact import load_artifact, write_artifact
from mind.encoder import NumpyEncoder
from tests.bench.machine import console, describe
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Row, Subject
from tests.bench.serving.report import pairs
from tests.bench.serving.world import TOP_K

LOADS = ((64, 1), (64, 16), (1, 8), (1, 64))
"""Users of a request, and callers."""
CHANNELS = ("--channel", "live", "--channel", "b")

app = typer.Typer(add_completion=False)


def write_second(artifact: Path) -> Path:
    """Write a model whose embeddings differ a little from another one's, as after a training; gives its directory."""
    model = load_artifact(artifact)
    weights = model.weights
    embedding = weights.item_embedding + 0.1 * np.random.default_rng(1).normal(size=weights.item_embedding.shape)
    embedding[0] = 0
    changed = replace(weights, item_embedding=embedding.astype(np.float32))
    encoder = NumpyEncoder(changed, model.hyper_parameters)
    golden = encoder.encode(changed.golden_hist_index, changed.golden_seq_len)
    changed = replace(changed, golden_interest_vectors=golden)
    return write_artifact(artifact.parent, model.hyper_parameters, changed, {}, {})


@app.command()
def main(
    workdir: Annotated[Path, typer.Option(help="Models, collections and results; used again next time.")] = Path(
        "build/bench-shadow"
    ),
    items: Annotated[int, typer.Option(min=1_000, help="Size of the catalogue.")] = 100_000,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the requests that the shadow gets.")] = 0.05,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server under a load.")] = 9,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 3,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Measure throughput without and with a shadow channel."""
    directory, artifact = world.begin(workdir, items)
    rows: list[Row] = []
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        world.build_and_publish(artifact, uri)
        second = write_second(artifact)
        world.indexer(uri, "build", "--artifact", str(second), *world.INDEX)
        world.indexer(uri, "publish", "--channel", "b")
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        subjects, shadowed = [], ""
        for name, options in (("none", ()), (f"{share:.0%}", ("--shadow", f"b={share:g}"))):
            shadowed, pid = stack.enter_context(world.our_server(directory, uri, *CHANNELS, *options))
            subjects.append(Subject(name, pid, partial(load.ask, kind="grpc", address=shadowed), 1))
        bench = Bench(milvus_pid, rounds, seconds)
        for users, callers in LOADS:
            question = {"users": users, "callers": callers}
            rows += bench.compare(users, [(subject, f"{callers}", question) for subject in subjects])
        with RecallClient(shadowed, timeout_s=60) as client:
            [summary] = client.get_server_info().shadows
    outcomes = {each.outcome: each.requests for each in summary.outcomes if each.requests}
    console.print(f"{items:,} items, top {TOP_K}; medians of {rounds} turns of {seconds:g} s each")
    console.print(pairs("A shadow channel, in turn with a server without", "shadow", rows))
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    console.print(f"requests drawn: {told}; mean overlap {summary.overlap.mean:.2f}")
    results = {"machine": describe(), "items": items, "outcomes": outcomes, "rows": [asdict(row) for row in rows]}
    (directory / "shadow.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app()

"""What text ids cost: `python -m tests.bench.serving.text_ids`.

One real Milvus and two servers in it, of the same model: in one its items have integers, in the other text ids. The
same vectors, the same index, the same requests, in turn; and what the text ids take in memory.
"""

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import typer

from mind.artifact import load_artifact, write_artifact
from mind.keys import Keys
from tests.artifacts import hyper_parameters_of, with_keys
from tests.bench.machine import console
from tests.bench.serving import world
from tests.bench.serving.bench import Bench, Subject
from tests.bench.serving.report import pairs
from tests.bench.serving.stage import ITEMS, LOADS, Items, MilvusUri, Rounds, Seconds, Workdir, head, save
from tests.conftest import own_database

DATABASE = "text_ids"
"""The database of Milvus for the collection with text ids, because a database has one live collection."""
CHECKED_USERS = 512

app = typer.Typer(add_completion=False)


def write_text_data(directory: Path, artifact: Path) -> tuple[Path, Keys]:
    """Write the same model with text ids of 10 characters, as ASINs have; gives its directory and the keys by row."""
    weights = load_artifact(artifact).weights
    keyed = with_keys(weights, [f"B{item:09d}" for item in range(len(weights.item_id))])
    assert keyed.keys
    text = directory / "text"
    path = write_artifact(text / "artifacts", hyper_parameters_of(keyed), keyed, {}, {})
    world.write_keys(directory, weights.item_id, keyed.keys)
    return path, keyed.keys


@app.command()
def main(
    workdir: Workdir = Path("build/bench-text-ids"),
    items: Items = ITEMS,
    rounds: Rounds = 9,
    seconds: Seconds = 3,
    milvus_uri: MilvusUri = "",
) -> None:
    """Measure throughput with text ids and with integers."""
    directory, artifact = world.begin(workdir, items)
    text_artifact, keys = write_text_data(directory, artifact)
    with ExitStack() as stack:
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        text_uri = own_database(f"http://{urlsplit(uri).netloc}", DATABASE)
        world.build_and_publish(artifact, uri)
        world.build_and_publish(text_artifact, text_uri)
        load = stack.enter_context(world.worker("tests.bench.serving.load", str(directory)))
        plain, plain_pid = stack.enter_context(world.our_server(directory, uri))
        text, text_pid = stack.enter_context(world.our_server(directory / "text", text_uri))
        ask = partial(load.ask, kind="grpc", address=plain)
        ask_text = partial(load.ask, kind="grpc", address=text, text=True)
        names = dict(zip(load_artifact(artifact).weights.item_id.tolist(), keys.at(np.arange(len(keys))), strict=True))
        expected = [[names[item] for item in own] for own in ask(check=CHECKED_USERS)]
        same = np.mean(
            [set(own) == set(other) for own, other in zip(expected, ask_text(check=CHECKED_USERS), strict=True)]
        )
        console.print(f"the same candidates from both for {same:.1%} of {CHECKED_USERS} users")
        bench = Bench(milvus_pid, rounds, seconds)
        subjects = Subject("integers", plain_pid, ask, 1), Subject("text", text_pid, ask_text, 1)
        rows = bench.beside(LOADS, [subjects])
        memory_gb = {subject.name: world.memory_gb(subject.pid) for subject in subjects}
    own_bytes = len(keys.text) / len(keys)
    per_item = (memory_gb["text"] - memory_gb["integers"]) * 2**30 / items - own_bytes
    head(items, rounds, seconds)
    console.print(pairs("Text ids beside integers, in turn", "ids", rows))
    console.print(f"memory: {per_item:.0f} bytes an item more than the {own_bytes:.0f} of its key")
    save(directory, "text_ids", items=items, memory_gb=memory_gb, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    app()

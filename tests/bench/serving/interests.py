"""What it is worth to search once for interests that are alike: `python -m tests.bench.serving.interests`.

`build` chooses `interest_cosine` by the golden histories of a model. One server serves other users from a collection
that was built so and from one that is searched with every interest, released one after the other.
"""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from indexer.tuning.measure import read_histories
from mind.artifact import newest_artifact
from tests.bench.machine import console, describe
from tests.bench.serving import report, world
from tests.bench.serving.bench import Bench
from tests.bench.serving.tuned import served_in_turn

ALL, ALIKE = "all interests", "alike ones once"


def main(
    artifacts: Annotated[Path, typer.Option(help="Directory of models; the newest is used.")],
    histories: Annotated[Path, typer.Option(help="Users to serve: evaluation lines or training lines.")],
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each collection.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.2, help="Length of a turn.")] = 3,
    cosine: Annotated[float, typer.Option(help="Interests this alike share a search; 0 lets `build` choose.")] = 0,
    milvus_uri: Annotated[str, typer.Option(help="A Milvus server that runs; otherwise one is started.")] = "",
) -> None:
    """Build the same model in both ways, and serve from both in turn."""
    console.width = max(console.width, world.WIDTH)
    console.print(describe())
    artifact = newest_artifact(artifacts)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        directory = Path(temporary)
        shutil.copytree(artifact, directory / "artifacts" / artifact.name)
        world.write_histories(directory, read_histories(histories))
        uri, milvus_pid = stack.enter_context(world.milvus(directory, milvus_uri))
        once = ("--interest-cosine", str(cosine)) if cosine else ()
        collections = {ALL: world.build_and_publish(artifact, uri), ALIKE: world.build_and_publish(artifact, uri, once)}
        rows = served_in_turn(directory, artifact, uri, collections, Bench(milvus_pid, rounds, seconds))
    console.print(f"{artifact.name}, top_k {world.TOP_K}, {rounds} turns of {seconds:g} s each, medians")
    console.print(report.tuned(rows))


if __name__ == "__main__":
    typer.run(main)

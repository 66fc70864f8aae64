"""The command `choose-index`: its options and its output."""

from pathlib import Path
from typing import Annotated

import typer

from indexer import display
from indexer.errors import RefusedError
from indexer.options import Artifact, ArtifactCache, milvus_options
from indexer.tuning.candidates import TYPES
from indexer.tuning.index_file import write_index
from indexer.tuning.measure import MIN_USERS, read_histories
from indexer.tuning.tune import refuse_lite, tune
from mind.artifact import load_artifact
from mind.milvus.connection import Connection
from mind.milvus.store import Store
from mind.transfer import CACHE, Models


def choose_index_command(
    connection: Connection,
    artifact: Artifact,
    histories: Annotated[
        Path,
        typer.Option(help="File or directory of evaluation or training lines. The searches are for these users."),
    ],
    min_recall: Annotated[
        float,
        typer.Option(min=0, max=1, help="Minimum share of a user's exact merged best 50 that the index must find."),
    ] = 0.99,
    users: Annotated[int, typer.Option(min=MIN_USERS, help="Maximum number of histories to measure with.")] = 512,
    index_type: Annotated[
        list[str] | None, typer.Option(help=f"Index type to try: {', '.join(TYPES)}. Repeatable; all by default.")
    ] = None,
    output: Annotated[Path, typer.Option(help="File to write. `build --index` reads it.")] = Path("index.json"),
    artifact_cache: ArtifactCache = CACHE,
) -> None:
    """Measure which index and search parameters are fastest at the recall you want.

    The command inserts the model's items into a trial collection on a Milvus
    server, indexes it in several ways, and searches for real users as a server
    does. It drops the trial collection at the end. It does not change released
    collections or the alias, but the trial uses CPU and memory of the same Milvus.
    """
    refuse_lite(connection)
    if output.is_dir():
        raise RefusedError(f"{output}: --output is a directory; name a file to write")
    model = load_artifact(Models(artifact, artifact_cache).newest())
    sequences = read_histories(histories)
    display.show_model(model)
    with Store(connection) as store:
        version = store.version()
        with display.progress() as on_progress:
            tuned = tune(store, model, sequences, min_recall, users, index_type or TYPES, on_progress=on_progress)
    display.show_tuned(tuned)
    write_index(output, tuned, model.model_version, version.text)
    display.line("wrote", str(output))
    options = f"--artifact {artifact} --index {output} --publish{milvus_options(connection)}"
    display.line("next", f"python -m indexer build {options}")

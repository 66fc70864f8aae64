"""The command line of the indexer: `python -m indexer build`, `publish`, `choose-index`, `upsert` and the others."""

import logging
import signal
import sys

from mind.extras import missing

if line := missing("indexer", "pyarrow", "pymilvus", "safetensors", "tenacity", "typer"):
    sys.exit(line)

import typer

from indexer.commands.build import build_command
from indexer.commands.choose_index import choose_index_command
from indexer.commands.doctor import doctor_command
from indexer.commands.items import delete_command, upsert_command
from indexer.commands.nightly import nightly_command
from indexer.commands.releases import (
    close_command,
    drop_command,
    promote_command,
    prune_command,
    publish_command,
    purge_users_command,
    rollback_command,
)
from indexer.commands.status import count_command, status_command
from indexer.options import RENAMED, connected
from mind.command import Version, call

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Turn a trained model into a searchable item collection in Milvus, and choose which one is live.

[bold]Examples[/bold]

Build the newest model under artifacts/ in a local file, and release it:

    python -m indexer build --artifact artifacts --publish

Do the same on a Milvus server, with attributes to filter on:

    python -m indexer build --artifact artifacts --publish
        --attributes items.csv --multi-valued genres
        --milvus-uri http://127.0.0.1:19530

Measure which index is fastest at the recall you want, and build with it:

    python -m indexer choose-index --artifact artifacts
        --histories data/movielens-100k/valid --output index.json
        --milvus-uri http://127.0.0.1:19530
    python -m indexer build --artifact artifacts --index index.json --publish
        --milvus-uri http://127.0.0.1:19530

Add new items and change attributes between trainings:

    python -m indexer upsert --attributes items.csv --interactions since.txt
    python -m indexer delete --ids 50,181

Check a Milvus before the first build, or after an upgrade:

    python -m indexer doctor --milvus-uri http://127.0.0.1:19530

Return to the previous release, and drop old collections:

    python -m indexer rollback
    python -m indexer prune --keep 2

Try a release in another channel first, then make it the live one:

    python -m indexer publish --channel b
    python -m indexer promote b
    python -m indexer close b

Do all of it every night, from new clicks to a release that is watched:

    python -m indexer nightly --config indexer/nightly.yaml

A build never changes the live collection. The same model, attributes and index
give the same collection, so it is safe to build again.

Exit codes: 0 success; 1 failure, with one line that says why; 2 wrong usage; 130 interrupted.
`nightly` has more of them, see its --help.
""",
)


@app.callback()
def _options(version: Version = False) -> None:
    """Take the options that stand before the command."""


app.command("build")(connected(build_command))
app.command("choose-index")(connected(choose_index_command))
app.command("tune", hidden=True)(connected(choose_index_command))  # its name in version 0.1
app.command("publish")(connected(publish_command))
app.command("promote")(connected(promote_command))
app.command("upsert")(connected(upsert_command))
app.command("delete")(connected(delete_command))
app.command("status")(connected(status_command))
app.command("count")(connected(count_command))
app.command("doctor")(connected(doctor_command))
app.command("rollback")(connected(rollback_command))
app.command("close")(connected(close_command))
app.command("prune")(connected(prune_command))
app.command("drop")(connected(drop_command))
app.command("purge-users")(connected(purge_users_command))
app.command("nightly")(connected(nightly_command))


def main() -> None:
    """Run the command line. SIGTERM ends it in the same way as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for noisy in ("pymilvus", "milvus_lite"):  # they log a traceback for every error they also raise
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    call(app, renamed=RENAMED)


if __name__ == "__main__":
    main()

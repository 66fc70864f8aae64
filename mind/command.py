"""What the commands of this package share: the configuration options, and errors as one line."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from mind.errors import MindError

ConfigFile = Annotated[
    Path, typer.Option("-m", "--config", help="YAML configuration in PaddleRec's terms, such as mind/config.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="Override any key, such as runner.epochs=3. Repeatable."
    ),
]


def run(app: typer.Typer) -> None:
    """Run a command line; errors that a user can mend are one line on stderr and exit code 1.

    SIGTERM ends it as Ctrl-C does: what it has begun to write is removed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except MindError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)

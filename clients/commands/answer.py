"""How an answer is shown: as a table for people or as JSON for programs."""

import json
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.message import Message
from rich.console import Console, RenderableType

from clients.plain import to_plain


class Format(StrEnum):
    """Spellings of --format."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="A table for people or one JSON document.")]


def show(format: Format, response: Message, *views: RenderableType) -> None:  # noqa: A002
    """Print the views of an answer, or the complete answer as JSON."""
    if format is Format.JSON:
        typer.echo(json.dumps(to_plain(response), indent=2))
    else:
        Console(highlight=False).print(*views, sep="\n")

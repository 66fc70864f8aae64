"""What the gateway is told: its options, checked. Knows nothing of command lines; `clients.gateway.options` does."""

import os
import shlex
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, FilePath, model_validator

from clients.options import Connection


def _words(value: object) -> object:
    """The words of a command, which the command line gives as a list of one text."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else None
    return value if texts is None else [word for text in texts for word in shlex.split(text)]


def _paths(value: object) -> object:
    """The paths of an environment variable; a list of flags stays as it is."""
    return value.split(os.pathsep) if isinstance(value, str) else value


LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _level(value: object) -> object:
    """The level that a text names in any case; other texts stay as they are, for the message."""
    return value.upper() if isinstance(value, str) and value.upper() in get_args(LogLevel) else value


class Settings(Connection):
    """What the gateway is told."""

    panels: ClassVar = Connection.panels | {
        "compare_with": "Gateway",
        "titles": "Explorer",
        "insert_command": "Insert and drop",
        "log_level": "Logging",
    }
    prefix: ClassVar = "RECALL_GATEWAY_"

    compare_with: str = ""
    """host:port of a second server, with another model; the explorer shows both side by side."""
    listen: str = Field(default="127.0.0.1:8000", pattern=r"^.+:\d{1,5}$")
    """Address to listen on. 0.0.0.0:8000 admits other machines; port 0 takes a free one."""
    max_body_bytes: int = Field(default=1024 * 1024, gt=0)
    """Size of a request's body."""
    titles: FilePath | None = None
    """CSV file of item_id,title rows, for the explorer and its search."""
    users: FilePath | None = None
    """File of example users for the explorer, as mind.prepare writes them or JSON lines; the first 200 are offered."""
    map: Annotated[tuple[FilePath, ...], BeforeValidator(_paths)] = ()
    """Map of a model's items, made by mind.item_map. Repeatable; the page takes the one of the model that answered."""
    insert_command: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Command that /rec/insert_data runs, such as "python -m indexer build --publish"; empty, insert is refused."""
    insert_timeout_s: float = Field(default=3_600, gt=0)
    """Seconds after which that command is stopped."""
    allow_drop: bool = False
    """Let /qa/drop drop the released collection, with the admin token: whoever reaches the gateway can then do it."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "INFO"
    """Least severe messages to log."""

    @model_validator(mode="after")
    def _usable_connection(self) -> Self:
        self.arguments()
        return self

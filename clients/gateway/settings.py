"""The options of the gateway, validated. The command line that reads them is `clients.gateway.options`."""

import os
import re
import shlex
import socket
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import BeforeValidator, Field, FilePath, model_validator

from clients.options import Connection


def _words(value: object) -> object:
    """Split a command into words. The command line gives it as a list with one text."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else None
    return value if texts is None else [word for text in texts for word in shlex.split(text)]


def _paths(value: object) -> object:
    """Split an environment variable into paths. A list of flags stays as it is."""
    return value.split(os.pathsep) if isinstance(value, str) else value


def _names(value: object) -> object:
    """Split an environment variable into host names or URLs. A list of flags stays as it is."""
    return re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value


MetricsUrl = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s@]*)?$")]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


def _level(value: object) -> object:
    """Write the name of a log level in capitals. Other texts stay as they are, so that an error can show them."""
    return value.upper() if isinstance(value, str) and value.upper() in get_args(LogLevel) else value


class Settings(Connection):
    """The options of the gateway."""

    panels: ClassVar = Connection.panels | {
        "compare_with": "Gateway",
        "titles": "Explorer",
        "allow_users": "Users, insert and drop",
        "log_level": "Logging",
    }
    prefix: ClassVar = "RECALL_GATEWAY_"

    compare_with: str = ""
    """host:port of a second server with another model. The explorer shows the answers of both side by side."""
    listen: str = Field(default="127.0.0.1:8000", pattern=r"^.+:\d{1,5}$")
    """Address to listen on. 0.0.0.0:8000 accepts other machines. Port 0 takes a free port."""
    allow_host: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Name of the gateway in requests, such as recall.example.com or *.example.com, besides --listen. Repeatable."""
    max_body_bytes: int = Field(default=1024 * 1024, gt=0)
    """Maximum size of a request body in bytes."""
    max_connections: int = Field(default=4096, gt=0)
    """Maximum number of connections, or less if the system permits fewer open files."""
    max_connections_per_address: int = Field(default=512, gt=0)
    """Maximum number of connections from one IP address, which may be that of a proxy."""
    header_timeout_s: float = Field(default=10, gt=0)
    """Seconds within which the headers of a request must come."""
    body_timeout_s: float = Field(default=30, gt=0)
    """Seconds within which the body of a request must come."""
    answer_timeout_s: float = Field(default=30, gt=0)
    """Seconds within which a client must read an answer."""
    titles: FilePath | None = None
    """CSV or Parquet file with item ids and the column title. The explorer shows the titles and searches them."""
    titles_id_column: str | None = None
    """Column of --titles that holds the item id; otherwise one with a usual name, such as sku."""
    users: FilePath | None = None
    """File of example users for the explorer, from mind.prepare or JSON lines. The first 200 users are offered."""
    map: Annotated[tuple[FilePath, ...], BeforeValidator(_paths)] = ()
    """Map of a model's items, from mind.item_map. The explorer shows the map of the model that answers. Repeatable."""
    metrics: Annotated[tuple[MetricsUrl, ...], BeforeValidator(_names)] = ()
    """URL of a server's metrics, such as http://127.0.0.1:9464/metrics, for the operations view. Repeatable."""
    allow_users: bool = False
    """Let /v1/users store, compare and delete the histories of users. Everyone who reaches the gateway can do it."""
    insert_command: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Command that /rec/insert_data runs, such as "python -m indexer build --publish". Empty refuses inserts."""
    insert_timeout_s: float = Field(default=3_600, gt=0)
    """Seconds after which the insert command is stopped."""
    allow_drop: bool = False
    """Let /qa/drop drop the released collection with the admin token. Everyone who reaches the gateway can do it."""
    log_level: Annotated[LogLevel, BeforeValidator(_level)] = "INFO"
    """Lowest severity of messages to log."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which requests may reach the gateway, besides IP addresses: patterns, in small letters."""
        host = self.listen.rpartition(":")[0].strip("[]")
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on
        names = ("localhost", socket.gethostname() if everywhere else host, *self.allow_host)
        return tuple(name.lower() for name in names)

    @model_validator(mode="after")
    def _usable_connection(self) -> Self:
        self.arguments()
        return self

"""The gateway's options: flag, then environment, then default."""

import argparse
import os
import shlex
from importlib import metadata
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FilePath, ValidationError, model_validator

PREFIX = "RECALL_GATEWAY_"


class SettingsError(ValueError):
    """Options that cannot work; the message names the option and the value."""


def _words(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _paths(value: object) -> object:
    return value.split(os.pathsep) if isinstance(value, str) else value


class Settings(BaseModel):
    """An HTTP gateway to a recall server, and the explorer page.

    Every option is also an environment variable: RECALL_GATEWAY_ and its name in capitals (RECALL_GATEWAY_SERVER).
    A flag wins over the environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    listen: str = Field(default="127.0.0.1:8000", pattern=r"^.+:\d{1,5}$")
    """Address to listen on. 0.0.0.0:8000 admits other machines; port 0 takes a free one."""
    server: str = "localhost:50051"
    """host:port of the recall server."""
    compare_with: str = ""
    """host:port of a second server, with another model; the explorer shows both side by side."""
    tls: bool = False
    """Use TLS to the servers and trust the system's authorities."""
    ca: FilePath | None = None
    """Use TLS to the servers and trust the authorities in this PEM file."""
    cert: FilePath | None = None
    """PEM file with the certificate shown to the servers (mutual TLS); needs --key, and --ca or --tls."""
    key: FilePath | None = None
    """PEM file with the private key of that certificate."""
    token_file: FilePath | None = None
    """File with the bearer token for the servers; insert and drop need the admin token."""
    timeout_ms: int = Field(default=2_000, gt=0)
    """Deadline of a call to a server, retries included."""
    max_body_bytes: int = Field(default=1024 * 1024, gt=0)
    """Size of a request's body."""
    titles: FilePath | None = None
    """CSV file of item_id,title rows, for the explorer and its search."""
    users: FilePath | None = None
    """File of example users for the explorer, as mind.prepare writes them or JSON lines; the first 200 are offered."""
    map: Annotated[tuple[FilePath, ...], BeforeValidator(_paths)] = ()
    """Map of a model's items, made by mind.item_map. Repeatable; the page takes the one of the model that answered."""
    insert_command: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Command that /rec/insert_data runs, such as "python -m indexer build --publish". Empty: insert is refused."""
    insert_timeout_s: float = Field(default=3_600, gt=0)
    """Seconds after which that command is stopped."""
    allow_drop: bool = False
    """Let /qa/drop drop the released collection: whoever reaches the gateway can then do it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages to log."""

    @model_validator(mode="after")
    def _certificate_is_whole(self) -> Self:
        if bool(self.cert) != bool(self.key):
            raise ValueError("--cert and --key go together")
        if self.cert and not (self.ca or self.tls):
            raise ValueError("--cert needs --ca or --tls")
        return self

    @property
    def token(self) -> str | None:
        """The bearer token for the servers."""
        return self.token_file.read_text(encoding="utf-8").strip() if self.token_file else None


def load_settings(argv: list[str]) -> Settings:
    """Settings from a command line and the environment.

    Raises:
        SettingsError: an option has a wrong value.
        SystemExit: an unknown flag (2), or --help or --version (0).
    """
    given: dict[str, Any] = {
        name: value for name in Settings.model_fields if (value := os.environ.get(PREFIX + name.upper()))
    }
    given |= vars(_parser().parse_args(argv))
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise SettingsError(str(first["ctx"]["error"])) from error
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise SettingsError(f"{option} is {first['input']!r}: {first['msg']}") from error
    for name in ("token_file", "ca", "cert", "key"):
        option, file = f"--{name.replace('_', '-')}", getattr(settings, name)
        try:
            if file:
                file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{option} is '{file}': cannot be read: {error}") from error
    return settings


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (Settings.__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="recall-gateway", description=summary, epilog=" ".join(rest.split()), allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=metadata.version("mind-recall"))
    for name, field in Settings.model_fields.items():
        default = {(): "none", "": "none", None: "none"}.get(field.default, field.default)
        options: dict[str, Any] = {"metavar": name.split("_")[-1].upper()}
        if field.annotation is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif name == "map":
            options["action"] = "append"
        help_ = f"{field.description} Default: {default}.".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=help_, **options)
    return parser

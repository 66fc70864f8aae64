"""The command line of the server: its options are the fields of `server.settings.Settings`."""

from collections.abc import Sequence
from typing import Self

import typer
from pydantic import model_validator

from mind.command import Version, call, with_options
from server.files import check_files
from server.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


class _Checked(Settings):
    """Settings whose files were read once, so that a wrong one is reported with the option that names it."""

    @model_validator(mode="after")
    def _usable_files(self) -> Self:
        check_files(self)
        return self


def _settings(settings: Settings, version: Version = False) -> Settings:
    """Serve candidates over gRPC from a trained model and its item collection in Milvus.

    Every option is also an environment variable, RECALL_ and its name in capitals
    (RECALL_MILVUS_URI), and a key of the YAML file that --config names (milvus_uri).
    A flag wins over the environment, and that over the file.
    """
    return settings


app.command()(with_options(_settings, {"settings": _Checked}))


def load_settings(arguments: Sequence[str]) -> Settings:
    """Settings from a command line, the environment and the file that either names.

    Raises:
        ConfigError: the file cannot be read, or an option has a wrong type or breaks a limit.
        SystemExit: an unknown flag (2), or --help or --version (0).
    """
    settings: Settings = call(app, arguments)
    return settings

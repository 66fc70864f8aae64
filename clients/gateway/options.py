"""The command line of the gateway: its options are the fields of `clients.gateway.settings.Settings`."""

from collections.abc import Sequence

import typer

from clients.command import Version, call, with_options
from clients.gateway.settings import Settings
from clients.options import RENAMED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _settings(settings: Settings, version: Version = False) -> Settings:
    """Run an HTTP gateway to a recall server, with the explorer page.

    Every option can also be set as an environment variable, such as
    RECALL_GATEWAY_LISTEN for --listen. The variables of Servers and Logging begin
    with RECALL_, as in the other programs: RECALL_SERVER for --server. A flag
    overrides a variable.
    """
    return settings


app.command()(with_options(_settings, "settings", Settings))


def load_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings from a command line and from the environment.

    Raises:
        OptionError: an option has a wrong value.
        SystemExit: the exit code is 2 for an unknown flag, and 0 for --help and --version.
    """
    settings: Settings = call(app, "recall-gateway", arguments, RENAMED)
    return settings

"""The command line of the gateway: its options are the fields of `clients.gateway.settings.Settings`."""

from collections.abc import Sequence

import typer

from clients.command import Version, call, with_options
from clients.gateway.settings import Settings
from clients.options import RENAMED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _settings(settings: Settings, version: Version = False) -> Settings:
    """An HTTP gateway to a recall server, and the explorer page.

    Every option is also an environment variable: RECALL_GATEWAY_LISTEN for
    --listen. Variables of Servers and Logging begin with RECALL_ alone, as in
    other programs: RECALL_SERVER for --server. A flag wins over a variable.
    """
    return settings


app.command()(with_options(_settings, "settings", Settings))


def load_settings(arguments: Sequence[str]) -> Settings:
    """Settings from a command line and the environment.

    Raises:
        OptionError: an option has a wrong value.
        SystemExit: an unknown flag (2), or --help or --version (0).
    """
    settings: Settings = call(app, "recall-gateway", arguments, RENAMED)
    return settings

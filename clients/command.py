"""Code that the commands of `recall-client` and `recall-gateway` share: options, and short error messages."""

import functools
import inspect
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NoReturn, get_args, get_origin

import typer

from clients.errors import DeadlineExceededError, RecallError, UnavailableError
from clients.options import Connection, Group, OptionError, Options, flag, read
from clients.sync_client import RecallClient

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The class UsageError of Click. Typer contains its own Click or imports it, depending on the version."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("mind-recall"))
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_print_version, is_eager=True, expose_value=False, help="Print the version and exit."
    ),
]


def call(app: typer.Typer, name: str, arguments: Sequence[str], renamed: Mapping[str, str]) -> Any:
    """Run the command that the arguments name, and return its result. Wrong usage prints two lines on stderr.

    Args:
        app: the command line.
        name: the name of the program.
        arguments: the words after the name of the program.
        renamed: flags of earlier versions, which still work, and their current names.

    Raises:
        SystemExit: wrong usage (2), an answer of no to a question (1), Ctrl-C (130), --help or --version (0), or the
            exit code of the command itself.
    """
    print_anywhere()
    try:
        result = app([_renamed(word, renamed) for word in arguments], name, standalone_mode=False)
    except typer.Abort:
        typer.echo("aborted", err=True)
        sys.exit(1)
    except _UsageError as error:
        _exit_for(error)
    if isinstance(result, int):  # the exit code that a command asked for
        sys.exit(result)
    return result


def print_anywhere() -> None:
    """Let standard output print a question mark for a character that its encoding, such as ASCII, does not have."""
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper) and (output.errors == "strict" or output.encoding.lower() != "utf-8"):
        output.reconfigure(errors="replace")


def _renamed(word: str, renamed: Mapping[str, str]) -> str:
    name, equals, value = word.partition("=")
    return f"{renamed.get(name, name)}{equals}{value}"


def _exit_for(error: Any) -> NoReturn:
    """Print what is wrong with the usage and what was probably meant, and exit."""
    context = error.ctx
    if context and not context.args and type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    message = error.format_message()
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        shown = [option for option in context.command.params if not getattr(option, "hidden", False)] if context else []
        known = [name for option in shown for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
        near = get_close_matches(error.option_name, known, n=1)
        message = f"No such option: {error.option_name}" + "".join(f". Did you mean {name}?" for name in near)
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    if context:
        typer.echo(f"`{context.command_path} --help` shows the usage.", err=True)
    sys.exit(2)


def parameters(group: type[Options]) -> list[inspect.Parameter]:
    """Return the options of a group as parameters of a command. All are text, which the group itself checks."""
    made, panel = [], None
    for name, field in group.model_fields.items():
        panel = group.panels.get(name, panel)
        kind, default = _kind(field.annotation), field.default
        annotation = Annotated[
            kind,  # type: ignore[valid-type]
            typer.Option(
                flag(name) + (f"/--no-{name.replace('_', '-')}" if kind is bool else ""),
                help=field.description,
                metavar=None if kind is bool else _metavar(field.annotation),
                rich_help_panel=panel,
            ),
        ]
        shown = default if kind is bool else None if default in (None, "", ()) else str(default)
        made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation))
    return made


def with_options(command: Callable[..., Any], takes: str, group: type[Options]) -> Callable[..., Any]:
    """Return a command with the options of a group instead of the parameter that takes the group."""
    own = [each for each in inspect.signature(command).parameters.values() if each.name != takes]

    @functools.wraps(command)
    def run_with(context: typer.Context, **values: Any) -> Any:
        return command(**{takes: _read(group, context, values)}, **values)

    options = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
        *parameters(group),
    ]
    run_with.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run_with.__annotations__ = {each.name: each.annotation for each in options}
    return run_with


def with_connection(command: Callable[..., None], group: type[Connection] = Connection) -> Callable[..., None]:
    """Return a command whose `connection` comes from options. A failure becomes one line and an exit code."""

    @functools.wraps(command)
    def run_connected(**values: Any) -> None:
        try:
            command(**values)
        except (OSError, RecallError, ValueError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            # A server behind a silent network is a deadline, not a refused connection.
            unreachable = isinstance(error, DeadlineExceededError | UnavailableError)
            raise typer.Exit(3 if unreachable else 1) from error

    also = "Each Servers option can also be set as an environment variable, such as RECALL_SERVER."
    run_connected.__doc__ = f"{inspect.getdoc(command)}\n\n{also}"
    connected = with_options(run_connected, "connection", group)

    @functools.wraps(connected)
    def run_checked(*context: typer.Context, **values: Any) -> None:
        try:
            connected(*context, **values)
        except OptionError as error:
            raise typer.BadParameter(str(error)) from error

    return run_checked


def with_client(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose `client` is made from the options of the connection."""
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "client"]

    @functools.wraps(command)
    def run_client(connection: Connection, **values: Any) -> None:
        with RecallClient(**connection.arguments()) as client:
            command(client, **values)

    run_client.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    return with_connection(run_client)


def _read(group: type[Group], context: typer.Context, values: dict[str, Any]) -> Group:
    """Make a group of options from the values of a command. The environment is read again, as text."""
    taken = {name: values.pop(name) for name in group.model_fields}
    return read(group, {name: taken[name] for name in taken if _on_command_line(context, name)})


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _kind(annotation: Any) -> Any:
    """Return the type of an option for Typer: a switch, a list of texts or one text."""
    if annotation is bool:
        return bool
    return list[str] | None if get_origin(annotation) is tuple else str | None


def _metavar(annotation: Any) -> str:
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType and kind is not Ellipsis]
    if all(isinstance(kind, str) for kind in kinds):
        return f"[{'|'.join(kinds)}]"
    return {int: "INTEGER", float: "FLOAT", Path: "PATH"}.get(getattr(kinds[0], "__origin__", kinds[0]), "TEXT")

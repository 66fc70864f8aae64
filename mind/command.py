"""The parts that the commands of server, indexer and mind share: options, and errors in one or two lines."""

import functools
import inspect
import io
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NoReturn, get_args, get_origin

import typer

from mind.errors import MindError
from mind.options import Group, Options, flag, is_secret, read

_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The class UsageError of Click. Typer contains its own Click or imports it, depending on the version."""

ConfigFile = Annotated[
    Path, typer.Option("-m", "--config", help="YAML configuration in PaddleRec's terms, such as mind/config.yaml.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Directory that `mind.prepare` wrote. Its train/, valid/ and test/ take the place of "
        "runner.train_data_dir, valid_data_dir and test_data_dir; -o overrides them.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--override", metavar="KEY=VALUE", help="Override any key, such as runner.epochs=3. Repeatable."
    ),
]


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


def run(app: typer.Typer) -> NoReturn:
    """Run a command line and exit. Errors that a user can correct are one line on stderr and exit code 1.

    SIGTERM ends the command as Ctrl-C does: a file that is half written is removed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        call(app)
    except MindError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    sys.exit(0)


def call(app: typer.Typer, arguments: Sequence[str] | None = None, renamed: Mapping[str, str] | None = None) -> Any:
    """Run the command that the arguments name, and return its result.

    Wrong usage is two lines on stderr and exit code 2.

    Args:
        app: the command line.
        arguments: the arguments; those of the process by default.
        renamed: flags of earlier versions, which still work, with their present names.

    Raises:
        SystemExit: wrong usage (2), an answer of no to a question (1), Ctrl-C (130), --help or --version (0), and
            whatever code the command itself exits with.
    """
    print_anywhere()
    words = [_renamed(word, renamed or {}) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        result = app(words, standalone_mode=False)
    except typer.Abort:
        typer.echo("aborted", err=True)
        sys.exit(1)
    except _UsageError as error:
        _exit_for(error)
    if isinstance(result, int):  # the exit code that a command asked for
        sys.exit(result)
    return result


def print_anywhere() -> None:
    """Make standard output print a question mark for a character that its encoding, such as ASCII, does not have."""
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper) and (output.errors == "strict" or output.encoding.lower() != "utf-8"):
        output.reconfigure(errors="replace")


def _renamed(word: str, renamed: Mapping[str, str]) -> str:
    name, equals, value = word.partition("=")
    return f"{renamed.get(name, name)}{equals}{value}"


def _exit_for(error: Any) -> NoReturn:
    """Print what is wrong with the usage and what was probably meant, then exit."""
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
                hidden=is_secret(group, name),
                rich_help_panel=panel,
            ),
        ]
        shown = default if kind is bool else None if default in (None, "", ()) else str(default)
        made.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation))
    return made


def with_options(command: Callable[..., Any], groups: Mapping[str, type[Options]]) -> Callable[..., Any]:
    """Return a command with the options of some groups instead of the parameters that take these groups.

    Args:
        command: a function with a parameter for each group.
        groups: the group of options for each of these parameters, by the parameter's name.
    """
    own = [each for each in inspect.signature(command).parameters.values() if each.name not in groups]
    shared = [each for group in groups.values() for each in parameters(group)]

    @functools.wraps(command)
    def run_with(context: typer.Context, **values: Any) -> Any:
        made = {name: _read(group, context, values) for name, group in groups.items()}
        return command(**made, **values)

    takes = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
        *shared,
    ]
    run_with.__signature__ = inspect.Signature(takes)  # type: ignore[attr-defined]
    run_with.__annotations__ = {each.name: each.annotation for each in takes}
    return run_with


def _read(group: type[Group], context: typer.Context, values: dict[str, Any]) -> Group:
    """Make a group of options of the values of a command. The environment is read again, as text."""
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
    return {int: "INTEGER", float: "FLOAT", Path: "PATH"}.get(kinds[0], "TEXT")

"""Groups of options as pydantic models. A field is an option, and its docstring is the help.

A value comes from the command line, else from the environment, else from a YAML file, else it is the default. The model
checks it in all cases. `mind.command` turns a group into the options of a command. This module does not import typer,
because it stays loaded in a running server.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from mind.config import explain
from mind.errors import ConfigError

CONFIG = "config"
"""The field that names a YAML file with values of the other fields."""


class Options(BaseModel):
    """A group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    panels: ClassVar[Mapping[str, str]] = {}
    """Panels of the help: the first field of each panel, with the panel's title."""


Group = TypeVar("Group", bound=Options)


def flag(name: str) -> str:
    """Return the flag of a field."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the command-line flag of a field."""
    return f"RECALL_{name.upper()}"


def is_secret(group: type[Options], name: str) -> bool:
    """Return whether a field has no flag, because the list of processes shows flags."""
    return group.model_fields[name].annotation is SecretStr


def read(group: type[Group], flags: Mapping[str, Any]) -> Group:
    """Read a group of options from the command line, the environment and the YAML file that the field `config` names.

    Args:
        group: the model.
        flags: the values from the command line, by field. An empty environment variable counts as not given.

    Raises:
        ConfigError: the file cannot be read, or an option has a wrong type or breaks a limit. The message names an
            option as it was given: `--max-users`, RECALL_MAX_USERS or `max_users in FILE`.
    """
    for name in flags:
        if is_secret(group, name):
            raise ConfigError(
                f"{flag(name)}: a flag shows in the process list; give {flag(name)}-file, or {variable(name)}"
            )
    environment = {name: text for name in group.model_fields if (text := os.environ.get(variable(name)))}
    file = {**environment, **flags}.get(CONFIG) if CONFIG in group.model_fields else None
    content = _read_yaml(Path(file)) if file else {}
    called = {name: f"{name} in {file}" for name in content}
    called |= {name: variable(name) for name in environment} | {name: flag(name) for name in flags}
    try:
        return group.model_validate({**content, **environment, **flags})
    except ConfigError as error:
        message = str(error)
    except ValidationError as error:
        secret = [name for name in group.model_fields if is_secret(group, name)]
        message = explain(error, group, secret).replace("configuration: ", "")
    raise ConfigError(_as_called(message, {name: flag(name) for name in group.model_fields} | called))


def _read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"{flag(CONFIG)} {file}: no such file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{flag(CONFIG)} {file}: cannot be used: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{flag(CONFIG)} {file}: expected a mapping of options, found {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def _as_called(message: str, called: Mapping[str, str]) -> str:
    """Replace the names of fields in a message by the names of the options as they were given."""
    name = r"^[A-Za-z_]+\b|(?<= )[a-z]+(_[a-z]+)+(?=[ :,]|$)"
    return re.sub(name, lambda found: called.get(found[0], found[0]), message, flags=re.MULTILINE)

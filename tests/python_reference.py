"""Makes the page of the Python clients from their signatures and docstrings."""

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import clients

FIRST = ("RecallClient",)
INHERITED = ("AsyncRecallClient",)
"""Classes whose methods are those of another class, so that the page does not repeat them."""
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^ {4}(\*{0,2}\w+): (.*)$")


def python_clients() -> str:
    """The page: every public name of the package `clients`."""
    names = sorted(clients.__all__, key=lambda name: (name not in FIRST, name))
    parts = [_entry(name, getattr(clients, name)) for name in names]
    return (
        "\n\n".join(
            [
                "# Python clients",
                "The package `clients` needs only grpcio and protobuf ([how to install it](../how-to/install.md)). "
                "[Call the service](../how-to/call.md) shows it in use. Times are in seconds.",
                *parts,
            ]
        )
        + "\n"
    )


def _entry(name: str, thing: Any) -> str:
    text = markdown(inspect.getdoc(thing) or "")
    if not inspect.isclass(thing):
        return f"## {name}\n\n{_signature(name, thing)}\n\n{text}"
    if issubclass(thing, enum.Enum):
        return f"## {name}\n\n{text}\n\nValues: {', '.join(f'`{value.name}`' for value in thing)}."
    if issubclass(thing, Exception):
        bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
        return f"## {name}\n\nAn exception; a subclass of {bases}.\n\n{text}"
    parts = [f"## {name}", text]
    if dataclasses.is_dataclass(thing):
        fields = (f"- `{field.name}`: `{_type(field.type)}`" for field in dataclasses.fields(thing))
        parts.append("Fields:\n\n" + "\n".join(fields))
    else:
        parts += [_signature(name, thing), markdown(inspect.getdoc(thing.__init__) or "")]
    return "\n\n".join([*parts, *(() if name in INHERITED else _methods(thing))])


def _methods(thing: type) -> Iterator[str]:
    for name, member in vars(thing).items():
        if name.startswith("_"):
            continue
        text = markdown(inspect.getdoc(member) or "")
        if isinstance(member, property):
            answer = _type(inspect.signature(member.fget).return_annotation)
            yield f"### {thing.__name__}.{name}\n\nA property, `{answer}`.\n\n{text}"
        elif inspect.isfunction(member):
            yield f"### {thing.__name__}.{name}\n\n{_signature(name, member)}\n\n{text}"


def _signature(name: str, function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    shown = [_type(str(one)) for one in parameters]
    if any(one.kind is one.KEYWORD_ONLY for one in parameters):
        first = next(index for index, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY)
        shown.insert(first, "*")
    empty = inspect.isclass(function) or signature.return_annotation is signature.empty
    answer = "" if empty else f" -> {_type(signature.return_annotation)}"
    line = f"{name}({', '.join(shown)}){answer}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){answer}"
    return f"```python\n{line}\n```"


def _type(name: object) -> str:
    """A type as a reader writes it, without the modules that it comes from."""
    text = name if isinstance(name, str) else inspect.formatannotation(name)
    return re.sub(r"\b(?:[a-z_0-9]+\.)+(?=[A-Z])", "", text)


def markdown(docstring: str) -> str:
    """A docstring as Markdown: indented lines are code, entries of a section are a list."""
    lines: list[str] = []
    section = ""
    code = False
    for line in docstring.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading[1]
            lines += [f"{section}:", ""]
            continue
        entry = _ENTRY.match(line) if section else None
        indented = not section and line.startswith("    ")
        if indented != code and line:
            if code and not lines[-1]:
                lines.pop()
            lines.append("```python" if indented else "```\n")
            code = indented
        if entry:
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section:
            lines.append("  " + line.strip() if line.strip() else "")
        else:
            lines.append(line.removeprefix("    "))
    return "\n".join([*lines, *(["```"] if code else [])])

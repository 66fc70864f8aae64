"""Writes the pages of docs/reference/ that are made from the code: the contract, options, metrics, Python clients.

`make reference`. A test compares the pages with the code.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from server.instrumentation import make_metrics
from server.settings import Settings
from tests import ROOT
from tests.python_reference import python_clients

FOLDER = ROOT / "docs" / "reference"
PROTOS = ("protos/recall/v1/recall.proto", "protos/recall/v1/admin.proto")
SYNTAX, MESSAGES, ENUMS, SERVICES, NESTED = 12, 4, 5, 6, 2
"""Field numbers in descriptor.proto, of which the path of a comment consists. `NESTED`: fields, values and methods."""
Comments = dict[tuple[int, ...], str]


def option_table(heading: str, rows: list[tuple[str, object, str]]) -> str:
    """A table of options or keys: name, default and meaning."""
    lines = [f"| {heading} | default | meaning |", "|---|---|---|"]
    for name, default, meaning in rows:
        shown = (
            ""
            if default in (None, "", PydanticUndefined)
            else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        lines.append(f"| `{name}` | {shown} | {' '.join(meaning.split()).replace('|', '/')} |")
    return "\n".join(lines)


def options(settings: type[BaseModel]) -> list[tuple[str, object, str]]:
    """The options of a program, one for each field of its settings."""
    rows = []
    for name, field in settings.model_fields.items():
        secret = name == "milvus_token"
        shown = "RECALL_MILVUS_TOKEN" if secret else f"--{name.replace('_', '-')}"
        rows.append((shown, "" if secret or field.default == () else field.default, field.description or ""))
    return rows


def server_options() -> str:
    """The page of the server's options."""
    return f"""# Server options

An option is a flag of `python -m server`, or an environment variable (`RECALL_` and the name in capitals, such as
`RECALL_MAX_USERS`), or a key of the YAML file that `--config` names (such as `max_users`). A flag wins over a variable,
and a variable wins over the file. [Run a server](../how-to/serve.md) tells which option to use for which task.

{option_table("option", options(Settings))}
"""


def metrics() -> str:
    """The page of metrics."""
    made = make_metrics()
    made.count_request("Recall", "UNAVAILABLE", "NOT_READY", 0.1)  # series with labels appear with their first value
    made.set_file("--token-file", usable=True)
    made.shadow.start("b", ["compared"])
    made.follow_channels(["live"])
    made.set_release("live", "0123456789ab", "items_0123456789ab_01234567", miscounted=False)
    rows = []
    for family in made.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    table = "\n".join(rows)
    return f"""# Metrics

A server with `--metrics-listen` exports these metrics for Prometheus. A histogram has the series `_bucket`, `_sum` and
`_count`. [Monitor a server](../how-to/monitor.md) tells which metric answers which question.

| metric | type | labels | meaning |
|---|---|---|---|
{table}
"""


def contract() -> str:
    """The page of the contract: services, messages, fields and enums, with their comments."""
    files = _files()
    known = {message.name for file in files for message in file.message_type}
    known |= {enum.name for file in files for enum in file.enum_type}
    sources = " and ".join(f"[{path}](../../{path})" for path in PROTOS)
    lines = ["# Contract\n", f"The gRPC services of `recall.v1`. This page is made from {sources}."]
    for file in files:
        places = file.source_code_info.location
        comments = {tuple(place.path): _plain(place.leading_comments) for place in places}
        (head,) = (place.leading_comments for place in places if tuple(place.path) == (SYNTAX,))
        lines += ["", *(_plain(part) + "\n" for part in head.split("\n\n"))]
        for index, service in enumerate(file.service):
            lines += _service(service, (SERVICES, index), comments, known)
        for index, message in enumerate(file.message_type):
            lines += _message(message, (MESSAGES, index), comments, known)
        for index, enum in enumerate(file.enum_type):
            lines += _enum(enum, (ENUMS, index), comments)
    return "\n".join(lines)


def _service(service: ServiceDescriptorProto, path: tuple[int, ...], comments: Comments, known: set[str]) -> list[str]:
    lines = [f"## {service.name}\n", comments[path], "", "| method | request | answer | meaning |", "|---|---|---|---|"]
    for index, method in enumerate(service.method):
        request, answer = (_linked(name, known) for name in (method.input_type, method.output_type))
        lines.append(f"| `{method.name}` | {request} | {answer} | {comments[(*path, NESTED, index)]} |")
    return [*lines, ""]


def _message(message: DescriptorProto, path: tuple[int, ...], comments: Comments, known: set[str]) -> list[str]:
    lines = [f"### {message.name}\n", comments[path], ""]
    if message.field:
        lines += ["| field | number | type | meaning |", "|---|---|---|---|"]
    for index, field in enumerate(message.field):
        meaning = comments[(*path, NESTED, index)]
        lines.append(f"| `{field.name}` | {field.number} | {_type(field, known)} | {meaning} |")
    return [*lines, ""] if message.field else lines


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], comments: Comments) -> list[str]:
    lines = [f"### {enum.name}\n", comments[path], "", "| value | number | meaning |", "|---|---|---|"]
    for index, value in enumerate(enum.value):
        lines.append(f"| `{value.name}` | {value.number} | {comments[(*path, NESTED, index)]} |")
    return [*lines, ""]


def _type(field: FieldDescriptorProto, known: set[str]) -> str:
    name = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    return ("repeated " if repeated else "optional " if field.proto3_optional else "") + _linked(name, known)


def _linked(type_name: str, known: set[str]) -> str:
    name = type_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})" if name in known else f"`{name}`"


def _plain(comment: str) -> str:
    """A comment on one line, as Markdown: outside of code, `<` is not the beginning of a tag."""
    parts = " ".join(comment.split()).replace("|", "/").split("`")
    return "`".join(part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts))


def _files() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "descriptors"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_source_info"]
        subprocess.run([*command, f"--descriptor_set_out={output}", *PROTOS], cwd=ROOT, check=True)
        return list(FileDescriptorSet.FromString(output.read_bytes()).file)


PAGES: dict[str, Callable[[], str]] = {
    "contract.md": contract,
    "metrics.md": metrics,
    "python-clients.md": python_clients,
    "server-options.md": server_options,
}
"""The pages, and what makes each."""

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")

"""SECURITY.md tells the truth: its tables are those of the code, no field lacks a bound, and its tests exist."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic import BaseModel

from clients.gateway import article, operations, pages, similar, users, v1
from clients.gateway.settings import Settings as GatewaySettings
from protos.recall.v1 import admin_pb2, recall_pb2
from server.settings import Settings
from tests import ROOT, bounds

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
BOUNDED = re.findall(r"`([\w.]+)[`,]", " ".join(each.what for each in bounds.of_server()))
OF_GATEWAY = " ".join(each.what for each in bounds.of_gateway())


@pytest.mark.parametrize("table", [bounds.of_server(), bounds.of_gateway()], ids=["server", "gateway"])
def test_the_bounds_are_the_codes(table: list[bounds.Bound]) -> None:
    assert bounds.table(table) in PAGE, f"`make bounds` prints what SECURITY.md must hold:\n{bounds.table(table)}"


def test_options_of_bounds_exist() -> None:
    for settings, table in ((Settings, bounds.of_server()), (GatewaySettings, bounds.of_gateway())):
        known = {f"--{name.replace('_', '-')}" for name in settings.model_fields}
        assert {option for each in table for option in each.option.split(", ") if option} <= known


def fields(message: Descriptor) -> Iterator[str]:
    """Lists, texts and top_k of a request, and of the messages in it."""
    for field in message.fields:
        if field.is_repeated or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield f"{message.name}.{field.name}"
        if field.name == "top_k" or (field.message_type and not field.is_repeated):
            yield f"{message.name}.{field.name}"
        if field.message_type:
            yield from fields(field.message_type)


@pytest.mark.parametrize(
    "method",
    [
        method
        for service in (
            *recall_pb2.DESCRIPTOR.services_by_name.values(),
            *admin_pb2.DESCRIPTOR.services_by_name.values(),
        )
        for method in service.methods
    ],
    ids=lambda method: method.name,
)
def test_every_list_and_text_of_a_request_has_a_bound(method: Any) -> None:
    assert not set(fields(method.input_type)) - set(BOUNDED)


def has_no_end(annotation: Any) -> bool:
    return "list" in str(annotation) or annotation is str


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model of a body, and the models in it."""
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from models(part)


def test_every_list_and_text_of_the_gateway_has_a_bound() -> None:
    found = set()
    routers = (v1.router, similar.router, users.router, v1.health, article.router, pages.router, operations.router)
    for router in routers:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for query in route.dependant.query_params:
                if query.field_info.annotation is str:
                    found.add(f"`{query.name}` of {route.path}")
            for parameter in route.dependant.body_params:
                for model in models(parameter.field_info.annotation):  # type: ignore[arg-type]
                    ends = (name for name, field in model.model_fields.items() if has_no_end(field.annotation))
                    found |= {f"`{model.__name__}.{name}" for name in ends}
    assert len(found) >= 9
    assert not {each for each in found if each not in OF_GATEWAY}


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 30
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert not missing


def test_every_surface_names_a_test() -> None:
    rows = PAGE.partition("| surface |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) > 20
    assert not [row for row in rows if "::test_" not in row]

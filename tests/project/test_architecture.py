"""The arrows between packages, and what must not be imported where."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

OURS = {"clients", "indexer", "mind", "protos", "server", "tests"}
MAY_IMPORT = {
    "clients": {"protos"},
    "indexer": {"mind", "protos"},
    "mind": set(),
    "protos": set(),
    "server": {"mind", "protos"},
}


def imports(file: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_depend_as_drawn(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        reached = imports(file) & OURS - {package}
        assert reached <= MAY_IMPORT[package], f"{file} imports {reached}"


def test_mind_knows_neither_milvus_nor_grpc() -> None:
    for file in (ROOT / "mind").rglob("*.py"):
        if file.is_relative_to(ROOT / "mind" / "milvus"):
            continue
        assert not imports(file) & {"pymilvus", "milvus_lite", "grpc", "google", "protos"}, file


def test_pymilvus_is_imported_in_mind_milvus_alone() -> None:
    for package in ("indexer", "server", "clients", "mind"):
        for file in (ROOT / package).rglob("*.py"):
            if not file.is_relative_to(ROOT / "mind" / "milvus"):
                assert not imports(file) & {"pymilvus", "milvus_lite"}, file


def test_private_parts_of_pymilvus_are_used_in_one_file() -> None:
    private = re.compile(r"\b(milvus|client)\._\w+|_final_channel|_async_stub|_interceptors")
    using = {file.name for file in (ROOT / "mind" / "milvus").rglob("*.py") if private.search(file.read_text())}
    assert using == {"internals.py"}


def test_paddle_is_imported_in_one_place() -> None:
    for file in (ROOT / "mind").rglob("*.py"):
        path = str(file.relative_to(ROOT))
        assert ("paddle" in imports(file)) == (path == "mind/paddle_runtime.py"), path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("server.app", {"paddle", "pyarrow.csv", "typer", "opentelemetry", "pythonjsonlogger"}),
        ("indexer.__main__", {"paddle", "server", "clients"}),
        ("mind.infer", {"paddle", "grpc", "pymilvus", "matplotlib", "jinja2"}),
        ("clients", {"numpy", "rich", "typer", "google.rpc", "fastapi", "mind", "server"}),
        ("clients.gateway.app", {"numpy", "rich", "typer", "google.rpc", "mind", "server"}),
    ],
)
def test_what_a_process_does_not_load(module: str, absent: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & {absent!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""The arrows between packages and between the folders of one, and what must not be imported where."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
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
FLOORS = {
    "server": [
        "errors",
        "signals",
        "settings",
        "ports",
        "watching/",
        "popular",
        "release",
        "loader",
        "releases",
        "channels",
        "serving/",
        "users/",
        "edge/",
        "files",
        "options",
        "instrumentation",
        "app",
        "processes",
        "__main__",
    ],
    "indexer": [
        "errors",
        "progress",
        "catalogue",
        "doctor/",
        "model",
        "verify",
        "items/",
        "build",
        "users/",
        "rollout/",
        "tuning/",
        "nightly/",
        "display",
        "listing",
        "options",
        "commands/",
        "__main__",
    ],
}
"""The modules and folders of a package from the lowest floor to the highest: each imports only from those before it."""

BELOW_THE_EDGE = FLOORS["server"][: FLOORS["server"].index("edge/")]
KNOW_THE_WIRE = {"server/watching/tracing.py"}
"""Files of the server below its edge that speak to Milvus, or in gRPC's status codes to a collector of traces."""


def imports(file: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def imported_files(file: Path) -> set[Path]:
    """Files of this repository that a file imports, anywhere in it; a package stands for its `__init__.py`."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in names:
        path = ROOT.joinpath(*name.split("."))
        for module in (path, path.parent):  # the last part may name a module, or something in one
            if there := [each for each in (module.with_suffix(".py"), module / "__init__.py") if each.is_file()]:
                found.add(there[0])
                break
    return found


def floor(file: Path, package: str) -> int | None:
    """The number of a file's floor in its package; None for the package itself, and for files of others."""
    folder = ROOT / package
    if not file.is_relative_to(folder) or file == folder / "__init__.py":
        return None
    first, *rest = file.relative_to(folder).parts
    name = f"{first}/" if rest else file.stem
    assert name in FLOORS[package], f"{file.relative_to(ROOT)} has no floor; give {name!r} a place in FLOORS"
    return FLOORS[package].index(name)


@pytest.mark.parametrize("package", FLOORS)
def test_no_import_goes_up(package: str) -> None:
    up = []
    for file in sorted((ROOT / package).rglob("*.py")):
        own = floor(file, package)
        for imported in sorted(imported_files(file)):
            other = floor(imported, package)
            if own is not None and other is not None and other > own:
                up.append(f"{file.relative_to(ROOT)} imports {imported.relative_to(ROOT)}, which is on a higher floor")
    assert not up, "\n".join(up)


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_in_no_circle(package: str) -> None:
    folder = ROOT / package
    graph = {
        file: {each for each in imported_files(file) if each.is_relative_to(folder)} for file in folder.rglob("*.py")
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(str(file.relative_to(ROOT)) for file in reversed(error.args[1])))


def test_only_the_edge_of_the_server_knows_protobuf_and_grpc() -> None:
    for name in BELOW_THE_EDGE:
        path = ROOT / "server" / name
        for file in path.rglob("*.py") if name.endswith("/") else [path.with_suffix(".py")]:
            if str(file.relative_to(ROOT)) not in KNOW_THE_WIRE:
                wire = imports(file) & {"google", "grpc", "milvus_lite", "protos", "pymilvus"}
                assert not wire, f"{file} imports {wire}"


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
        assert not any("milvus" in each.relative_to(ROOT).parts for each in imported_files(file)), file


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


def test_spark_is_imported_in_one_place() -> None:
    for file in (ROOT / "mind").rglob("*.py"):
        path = str(file.relative_to(ROOT))
        assert bool({"pyspark", "py4j"} & imports(file)) == (path == "mind/spark/job.py"), path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("server.app", {"paddle", "pyarrow.csv", "typer", "opentelemetry", "pythonjsonlogger"}),
        ("indexer.__main__", {"paddle", "server", "clients", "scipy", "jinja2", "matplotlib"}),
        ("mind.infer", {"paddle", "grpc", "pymilvus", "matplotlib", "jinja2"}),
        ("clients", {"numpy", "rich", "typer", "google.rpc", "fastapi", "mind", "server"}),
        ("clients.gateway.app", {"numpy", "rich", "typer", "google.rpc", "mind", "server"}),
    ],
)
def test_what_a_process_does_not_load(module: str, absent: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & {absent!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
